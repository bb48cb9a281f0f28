"""What images are called, and their defocus."""

from __future__ import annotations

import numpy as np
import pytest

from cryolike_dask.analysis.image_names import called, image_names
from tests.analysis.made_results import made, particle_columns, write_text
from tests.analysis.making import make_results


@pytest.fixture
def described(rng, tmp_path):
    """Results of the rows of a STAR file, the third left out."""
    star = write_text(tmp_path / "particles.star", particle_columns(6))
    rows = np.array([5, 0, 1, 3, 4])
    results = made(rng, [star], [rows])
    return results.assign_coords(
        image_file=("image", np.array(["/data/Extract/a.mrcs"] * 5, object)),
        image_index=("image", rows),
    )


def test_names_are_those_of_the_star_file(described):
    found = called(described)
    rows = described.metadata_row.values
    assert found.name.tolist() == [f"{row + 1:06d}@Extract/a.mrcs" for row in rows]
    expected = (15000 + rows + 0.1 + 14000) / 2
    np.testing.assert_allclose(found.defocus_angstrom, expected)
    assert image_names(described)[0] == "000006@/data/Extract/a.mrcs"


@pytest.mark.parametrize("fault", ["gone", "other images", "fewer rows", "no star", "no names"])
def test_a_file_that_is_another_by_now_is_passed_over(described, tmp_path, fault):
    star = tmp_path / "particles.star"
    if fault == "gone":
        star.unlink()
    if fault == "other images":
        write_text(star, particle_columns(6, "Extract/b.mrcs"))
    if fault == "fewer rows":
        write_text(star, particle_columns(4))
    if fault == "no names":
        columns = particle_columns(6)
        write_text(star, {**columns, "rlnImageName": ["0@a.mrcs"] * 6})
    if fault == "no star":
        star.write_bytes(b"\x00\xff")
    found = called(described)
    assert found.name.tolist() == image_names(described)
    assert found.defocus_angstrom is None


def test_without_defocus_there_are_names(described, tmp_path):
    columns = particle_columns(6)
    del columns["rlnDefocusU"]
    write_text(tmp_path / "particles.star", columns)
    found = called(described)
    assert found.name[0] == "000006@Extract/a.mrcs"
    assert found.defocus_angstrom is None


def test_images_without_names_have_numbers(rng):
    found = called(make_results(rng))
    assert found.name.tolist() == [str(i) for i in range(40)]
    assert found.defocus_angstrom is None
