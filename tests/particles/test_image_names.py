"""Every row is the image that the metadata name, whichever file it is in; what cannot be told is
refused."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import cryolike_dask as cld
from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.particles.image_names import ALONE, split_names
from tests.particles.described import PARAMETERS, cs, pictures, star, write_mrcs


@pytest.fixture
def pixels(rng):
    """Nine images."""
    return pictures(9, rng)


@pytest.fixture
def stack(tmp_path, pixels):
    return write_mrcs(tmp_path / "a.mrcs", pixels)


def defocus(n):
    return 10000.0 + 10 * np.arange(n)


def opened(path, **options):
    """The pixels of every row, and its defocus."""
    images = cld.open_particles(path, PARAMETERS, **options)
    return images.source.pixels(np.arange(len(images))), images.optics["defocus_u_angstrom"]


@pytest.mark.parametrize(
    "kind", ["all, shuffled", "some, shuffled", "some, in order", "several times"]
)
def test_given_images_are_taken_by_their_numbers(tmp_path, pixels, rng, kind):
    order = {
        "all, shuffled": rng.permutation(9),
        "some, shuffled": rng.permutation(9)[:5],
        "some, in order": np.arange(4),
        "several times": rng.integers(9, size=12),
    }[kind]
    moved = write_mrcs(tmp_path / "moved.mrcs", pixels)
    n = len(order)
    names = [f"{i + 1:06d}@Extract/job007/a.mrcs" for i in order]
    path = star(tmp_path / "p.star", n, names, defocus_u_angstrom=defocus(n))
    found, u = opened(path, images=moved)
    np.testing.assert_array_equal(found, pixels[order])
    np.testing.assert_allclose(u, defocus(n))


def test_converted_stacks_say_which_image_each_row_is(tmp_path, pixels):
    order = [3, 0, 8, 5]
    moved = write_mrcs(tmp_path / "moved.mrcs", pixels)
    path = star(tmp_path / "p.star", 4, [f"{i + 1}@a.mrcs" for i in order])
    (stack,) = cld.convert_particles(
        path, PARAMETERS, tmp_path / "out", images=moved, progress=False
    )
    with np.load(stack.with_suffix(".npz"), allow_pickle=False) as entries:
        assert entries["idxs"].tolist() == order
        assert set(entries["files"].tolist()) == {str(moved)}


@pytest.mark.parametrize("n", [8, 10, 1])
def test_rows_without_names_are_as_many_as_images(tmp_path, stack, n):
    path = star(tmp_path / "p.star", n, rlnImageName=None)
    with pytest.raises(
        InputFileError, match=rf"p\.star: describes {n} particles, but .*a\.mrcs holds 9 images"
    ):
        opened(path, images=stack)


def test_rows_without_names_are_images_in_order_and_that_is_said(tmp_path, stack, pixels, caplog):
    caplog.set_level(logging.INFO, logger="cryolike_dask")
    found, _ = opened(star(tmp_path / "p.star", 9, rlnImageName=None), images=stack)
    np.testing.assert_array_equal(found, pixels)
    assert [m for m in caplog.messages if "in order" in m] == [
        f"{tmp_path}/p.star: names no images; its 9 rows are taken for those of {stack}, in order"
    ]


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["a.mrcs"], r"1 row\(s\) name a file alone.*row 0 .*a\.mrcs, which holds 9"),
        (["a.mrcs"] * 3, r"3 row\(s\) name a file alone"),
        (
            ["2@a.mrcs", "1@a.mrcs", "a.mrcs"],
            r"1 row\(s\) name a file alone.*the first, row 2 \(from 0\)",
        ),
        (["one.mrc", "a.mrcs", "a.mrcs"], r"2 row\(s\) name a file alone.*the first, row 1 "),
    ],
)
def test_a_name_without_a_number_is_no_image_of_many(tmp_path, stack, pixels, names, complaint):
    write_mrcs(tmp_path / "one.mrc", pixels[:1])
    with pytest.raises(InputFileError, match=rf"p\.star: {complaint}(?s:.*)N@FILE.*--images"):
        opened(star(tmp_path / "p.star", len(names), names))


def test_a_name_without_a_number_is_the_only_image_of_its_file(tmp_path, pixels):
    for k in range(3):
        write_mrcs(tmp_path / f"{k}.mrc", pixels[k : k + 1])
    found, _ = opened(star(tmp_path / "p.star", 3, ["2.mrc", "1@0.mrc", "1.mrc"]))
    np.testing.assert_array_equal(found, pixels[[2, 0, 1]])
    found, _ = opened(star(tmp_path / "p.star", 1, ["gone.mrc"]), images=tmp_path / "1.mrc")
    np.testing.assert_array_equal(found, pixels[[1]])


@pytest.mark.parametrize("digits", ["1" + "0" * 30, "9" * 19, "7" * 5000, "0", "0" * 5000])
def test_numbers_that_no_image_has(tmp_path, stack, digits):
    names = ["1@a.mrcs", f"{digits}@a.mrcs"]
    path = star(tmp_path / "p.star", 2, names)
    why = "counted from 1" if not digits.strip("0") else "no file holds so many"
    for options in ({}, {"images": stack}):
        with pytest.raises(
            InputFileError, match=rf"p\.star: rlnImageName is '{digits[:30]}.* in row 1 .*{why}"
        ):
            opened(path, **options)
    with pytest.raises(InputError, match="in row 1 "):
        split_names(np.array(names))


def test_numbers_that_are_none(tmp_path, stack):
    """A name that is no number before the @ is that of a file."""
    names = ["-1@a.mrcs", "1.5@a.mrcs", "@a.mrcs", "x@a.mrcs", "\u0663@a.mrcs", "\u00b2@a.mrcs"]
    assert split_names(np.array(names)) == (names, pytest.approx([ALONE] * 6))
    with pytest.raises(InputFileError, match="6 missing input file"):
        opened(star(tmp_path / "p.star", 6, names))


@pytest.mark.parametrize(
    ("index", "complaint"),
    [
        ([0, 9, 2], r"row 1 \(from 0\) is image 10 of .*a\.mrcs, which holds 9"),
        (np.array([0, 1, 2**64 - 1], "u8"), r"blob/idx is 1.84467e\+19 in row 2"),
        ([0, -1, 2], "blob/idx is -1 in row 1"),
        ([0, 1.5, 2], "blob/idx is 1.5 in row 1"),
        ([np.nan, 1, 2], "blob/idx is nan in row 0"),
        (["0", "1", "2"], "blob/idx holds .*not numbers"),
    ],
)
def test_positions_that_no_image_of_cryosparc_has(tmp_path, stack, index, complaint):
    with pytest.raises(InputFileError, match=rf"p\.cs: {complaint}"):
        opened(cs(tmp_path / "p.cs", 3, blob__idx=index))


@pytest.mark.parametrize("kind", ["star", "cs", "several"])
def test_rows_that_share_an_image_are_counted(tmp_path, stack, caplog, kind):
    index = np.array([4, 2, 4, 0, 2, 4, 1])
    names = [f"{i + 1}@a.mrcs" for i in index]
    if kind == "cs":
        path = cs(tmp_path / "p.cs", 7, blob__idx=index)
    elif kind == "star":
        path = star(tmp_path / "p.star", 7, names)
    else:
        path = [star(tmp_path / "p.star", 4, names[:4]), star(tmp_path / "q.star", 3, names[4:])]
    opened(path)
    (said,) = [m for m in caplog.messages if "another row is too" in m]
    assert (
        "5 of 7 rows are an image that another row is too (2 such image(s); the first, image 5 of "
        in said
    )
    assert f"{stack}, in row(s) " + ("0, 2, 1" if kind == "several" else "0, 2, 5") in said
    assert "other optics" not in said


def test_rows_that_share_an_image_with_other_optics(tmp_path, stack, caplog):
    opened(
        star(
            tmp_path / "p.star",
            4,
            ["1@a.mrcs", "2@a.mrcs", "1@a.mrcs", "1@a.mrcs"],
            defocus_u_angstrom=defocus(4),
        )
    )
    assert "3 of 4 rows are an image that another row is too" in caplog.text
    assert ", 2 of them with other optics; each row counts by itself" in caplog.text


def test_distinct_images_are_no_oddity(tmp_path, stack, pixels, caplog):
    write_mrcs(tmp_path / "b.mrcs", pixels[:3])
    opened(star(tmp_path / "p.star", 4, ["1@a.mrcs", "1@b.mrcs", "2@a.mrcs", "2@b.mrcs"]))
    assert caplog.messages == []
