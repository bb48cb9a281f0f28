"""STAR files of results: they keep what they had, and say what was left out."""

from __future__ import annotations

import numpy as np
import pytest

from cryolike_dask.analysis.export.star_export import export_star, export_star_subsets
from cryolike_dask.errors import InputError, InputFileError, OutputError
from cryolike_dask.io.mrc import write_mrc_stack
from cryolike_dask.io.star import read_star
from cryolike_dask.particles.opening import read_particles
from tests.analysis.made_results import (
    NAMES,
    OPTICS,
    expected,
    made,
    particle_columns,
    text_of,
    write_text,
)
from tests.particles.test_frames import draw, write_old_star, write_particles
from tests.real_space import StarPoses


@pytest.fixture
def star(tmp_path):
    return write_text(tmp_path / "job" / "particles.star", particle_columns(6))


def test_columns_stay_as_they_were(star, tmp_path, rng):
    results = made(rng, [star])
    path = tmp_path / "deep" / "out.star"
    assert export_star(results, path).n_written == 6
    assert [block.name for block in read_star(path)] == ["optics", "particles"]
    assert text_of(path, 0) == OPTICS
    columns, was = text_of(path), particle_columns(6)
    replaced = {"rlnAngleRot", "rlnClassNumber"}
    for label in was.keys() - replaced:
        assert columns[label] == was[label], label
    assert list(columns)[: len(was)] == list(was)
    assert columns["cryolikeFormerClassNumber"] == was["rlnClassNumber"]
    best = results.log_likelihood_integrated.values.argmax(axis=0)
    assert columns["rlnClassNumber"] == [str(k + 1) for k in best]
    assert columns["cryolikeAssignedStructure"] == [NAMES[k] for k in best]
    wanted = expected(results, np.arange(6), best)
    values = [
        np.array(columns[label], float) for label in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
    ]
    values += [np.array(columns[label], float) for label in ("rlnOriginXAngst", "rlnOriginYAngst")]
    np.testing.assert_allclose(StarPoses(*values).matrices(), wanted.matrices(), atol=1e-9)
    np.testing.assert_allclose(values[3:], [wanted.origin_x, wanted.origin_y], atol=1e-9)

    again = tmp_path / "again.star"
    export_star(results, again, metadata=path)
    assert text_of(again) == columns


def test_refined_poses_are_those_that_are_written(star, tmp_path, rng):
    results, others = made(rng, [star]), made(rng, [star])
    results["log_likelihood_integrated"] = others.log_likelihood_integrated
    for name in ("azimuth", "polar", "inplane_rotation", "displacement_x", "displacement_y"):
        results[f"refined_{name}"] = others[f"optimal_{name}"]
    results["refined_log_likelihood"] = results.log_likelihood_optimal + 1
    export_star(results, tmp_path / "refined.star")
    export_star(others, tmp_path / "others.star")
    refined, plain = (text_of(tmp_path / f"{name}.star") for name in ("refined", "others"))
    for label in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst"):
        assert refined[label] == plain[label]
    gained = [
        np.array(refined[f"cryolikeLogLikelihood{name}"], float) for name in ("Optimal", "Refined")
    ]
    np.testing.assert_allclose(gained[1] - gained[0], 1)
    # a later export of poses that are not refined says nothing of it
    export_star(others, tmp_path / "later.star", metadata=tmp_path / "refined.star")
    assert "cryolikeLogLikelihoodRefined" not in text_of(tmp_path / "later.star")


def test_what_is_left_out_is_listed(star, tmp_path, rng):
    results = made(rng, [star])
    results.log_likelihood_integrated[:, 4] = np.nan
    results.log_likelihood_integrated[0, 2] = np.nan
    found = export_star(results.isel(image=[5, 4, 2, 1]), tmp_path / "out.star")
    assert (found.n_written, found.n_dropped) == (3, 3)
    assert found.dropped == tmp_path / "out.dropped.txt"
    lines = [line.split("\t") for line in found.dropped.read_text().splitlines()[1:]]
    assert lines == [
        [str(star), "0", "not among the results given"],
        [str(star), "3", "not among the results given"],
        [str(star), "4", "no result"],
    ]
    columns = text_of(tmp_path / "out.star")
    assert columns["rlnCoordinateX"] == ["5.500", "2.500", "1.500"]
    assert columns["rlnClassNumber"][1] == "2"
    found = export_star(results, tmp_path / "open.star", structure="open")
    assert [line.split("\t")[1:] for line in found.dropped.read_text().splitlines()[1:]] == [
        ["2", "no result under open"],
        ["4", "no result under open"],
    ]
    results.log_likelihood_integrated[:] = 0.5
    export_star(results, tmp_path / "out.star", overwrite=True)
    assert not (tmp_path / "out.dropped.txt").exists()
    results.log_likelihood_integrated[:] = np.nan
    with pytest.raises(InputError, match=r"no result of any of 6 image\(s\)"):
        export_star(results, tmp_path / "none.star")
    assert not (tmp_path / "none.star").exists()


def test_nothing_is_overwritten(star, tmp_path, rng):
    results, before = made(rng, [star]), star.read_text()
    path = tmp_path / "out.star"
    export_star(results, path)
    text = path.read_text()
    with pytest.raises(
        OutputError, match=r"out\.star: is there already.*overwrite=True \(--overwrite\)"
    ):
        export_star(results, path)
    with pytest.raises(OutputError, match=r"particles\.star: describes the particles themselves"):
        export_star(results, star, overwrite=True)
    (tmp_path / "link.star").symlink_to(star)
    with pytest.raises(OutputError, match="describes the particles themselves"):
        export_star(results, tmp_path / "link.star", overwrite=True)
    with pytest.raises(InputError, match=r"out\.txt does not end in \.star"):
        export_star(results, tmp_path / "out.txt")
    assert (star.read_text(), path.read_text()) == (before, text)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["job", "link.star", "out.star"]


def test_subsets(star, tmp_path, rng):
    results = made(rng, [star], names=("../a b", "a_b", "none", "x" * 3))
    results.log_likelihood_integrated[:] = 0.0
    for image, best in enumerate((0, 1, 1, 3, 0)):
        results.log_likelihood_integrated[best, image] = 1.0
    results.log_likelihood_integrated[:, 5] = np.nan
    found = export_star_subsets(results, tmp_path / "subsets")
    assert {name: (one.path.name, one.n_written) for name, one in found.items()} == {
        "../a b": ("_a_b.star", 2),
        "a_b": ("a_b.star", 2),
        "xxx": ("xxx.star", 1),
    }
    assert sorted(p.name for p in (tmp_path / "subsets").iterdir()) == [
        "_a_b.star",
        "a_b.star",
        "dropped.txt",
        "xxx.star",
    ]
    assert text_of(found["a_b"].path)["rlnCoordinateX"] == ["1.500", "2.500"]
    assert set(text_of(found["xxx"].path)["rlnClassNumber"]) == {"4"}
    assert (tmp_path / "subsets/dropped.txt").read_text().splitlines()[1:] == [
        f"{star}\t5\tno result"
    ]
    with pytest.raises(OutputError, match=r"a_b\.star: is there already"):
        export_star_subsets(results, tmp_path / "subsets")


def test_several_files_become_one(tmp_path, rng):
    other = {
        **OPTICS,
        "rlnOpticsGroup": ["1", "2"],
        "rlnOpticsGroupName": ["first", "second group"],
    }
    other |= {"rlnVoltage": ["200", "120"], "rlnSphericalAberration": ["2.7", "2.7"]}
    other |= {"rlnAmplitudeContrast": ["0.07", "0.1"], "rlnImagePixelSize": ["1.50", "1.5"]}
    one = write_text(tmp_path / "one.star", particle_columns(6))
    two = write_text(
        tmp_path / "two.star",
        {**particle_columns(4, "b.mrcs"), "rlnOpticsGroup": list("1221")},
        other,
    )
    results = made(rng, [one, two], [np.arange(6), np.array([0, 1, 3])])
    found = export_star(results, tmp_path / "both.star")
    assert (found.n_written, found.n_dropped) == (9, 1)
    assert found.dropped.read_text().splitlines()[1:] == [f"{two}\t2\tnot among the results given"]
    optics, columns = text_of(tmp_path / "both.star", 0), text_of(tmp_path / "both.star")
    assert optics["rlnOpticsGroup"] == ["1", "2", "3"]  # a group that is the same in both is one
    assert optics["rlnVoltage"] == ["300.000000", "200", "120"]
    assert optics["rlnOpticsGroupName"] == ["second group", "first", "second group_2"]
    assert columns["rlnOpticsGroup"] == [*"121212", "2", "3", "2"]
    names = particle_columns(6)["rlnImageName"] + [f"{i:06d}@b.mrcs" for i in (1, 2, 4)]
    assert columns["rlnImageName"] == names
    assert columns["_oddLabel#1"][6:] == ["a#b", "it's", "two words"]


def test_files_that_cannot_be_one(tmp_path, rng):
    one = write_text(tmp_path / "one.star", particle_columns(6))
    more = write_text(tmp_path / "more.star", {**particle_columns(6), "rlnPhaseShift": ["90"] * 6})
    with pytest.raises(
        InputError, match=r"one\.star has no rlnPhaseShift \(particles table\).*one by one"
    ):
        export_star(made(rng, [one, more]), tmp_path / "out.star")
    flat = {k: v for k, v in particle_columns(6).items() if k != "rlnOpticsGroup"}
    flat |= {
        "rlnVoltage": ["300"] * 6,
        "rlnMagnification": ["10000"] * 6,
        "rlnDetectorPixelSize": ["2.0"] * 6,
    }
    old = write_text(tmp_path / "old.star", flat, {})
    with pytest.raises(
        InputError, match=r"old\.star has no rlnAmplitudeContrast, .*\(optics table\)"
    ):
        export_star(made(rng, [one, old]), tmp_path / "out.star")
    same = write_text(tmp_path / "other" / "same.star", particle_columns(6))
    results = made(rng, [one, same])
    for name, folder in (("Extract/a.mrcs", tmp_path), ("Extract/a.mrcs", tmp_path / "other")):
        rows = np.flatnonzero(results.metadata_file == str(one if folder == tmp_path else same))
        results.image_file[rows] = str(folder / name)
        results.image_index[rows] = np.arange(6)
    with pytest.raises(
        InputError, match=r"Extract/a\.mrcs means .*other/Extract/a\.mrcs in another.*one by one"
    ):
        export_star(results, tmp_path / "out.star")
    found = export_star(
        results.isel(image=(results.metadata_file == str(same)).values), tmp_path / "out.star"
    )
    assert (found.n_written, found.n_dropped) == (6, 0)


def test_old_files_stay_old(tmp_path, rng):
    flat = {k: v for k, v in particle_columns(6).items() if k != "rlnOpticsGroup"}
    flat |= {
        "rlnVoltage": ["300"] * 6,
        "rlnMagnification": ["10000"] * 6,
        "rlnDetectorPixelSize": ["2.0"] * 6,
    }
    old = write_text(tmp_path / "old.star", flat, {})
    results = made(rng, [old])
    export_star(results, tmp_path / "out.star", structure="open")
    (block,) = read_star(tmp_path / "out.star")
    wanted = expected(results, np.arange(6), np.zeros(6, int))
    np.testing.assert_allclose(
        block.columns["rlnOriginX"].astype(float), wanted.origin_x / 2.0, atol=1e-9
    )
    np.testing.assert_allclose(
        block.columns["rlnOriginY"].astype(float), wanted.origin_y / 2.0, atol=1e-9
    )
    assert "rlnOriginXAngst" not in block.columns
    # with it RELION refuses to convert the file
    assert "# version" not in (tmp_path / "out.star").read_text()
    assert block.columns["rlnMagnification"].tolist() == flat["rlnMagnification"]
    del flat["rlnMagnification"]
    unknown = made(rng, [write_text(tmp_path / "unknown.star", flat, {})])
    with pytest.raises(InputFileError, match=r"unknown\.star: says no pixel size"):
        export_star(unknown, tmp_path / "no.star")


def test_an_old_file_is_read_as_a_new_one(tmp_path, rng):
    """The same particles in both layouts are given the same poses."""
    drawn = draw(rng, 6)
    names = [f"{i // 2 + 1:06d}@half{i % 2}.mrcs" for i in range(6)]
    new = write_particles(tmp_path / "set", drawn)
    old = write_old_star(tmp_path / "set/old.star", drawn, names)
    seed = int(rng.integers(2**32))
    for star in (new, old):
        results = made(np.random.default_rng(seed), [star])
        export_star(results, star.with_name(f"{star.stem}_out.star"))
    one, two = (read_particles(star.with_name(f"{star.stem}_out.star")) for star in (new, old))
    np.testing.assert_allclose(one.angles_radian, two.angles_radian, atol=1e-9)
    np.testing.assert_allclose(one.origin_angstrom, two.origin_angstrom, atol=1e-9)


def test_metadata_that_results_do_not_know(star, tmp_path, rng):
    results = made(rng, [""], [np.full(6, -1)])
    path = tmp_path / "out.star"
    with pytest.raises(
        InputError, match=r"not known which rows .* 6 of 6 image.*metadata=, --metadata"
    ):
        export_star(results, path)
    export_star(results, path, metadata=star)
    export_star(made(rng, [star]), tmp_path / "known.star")
    assert text_of(path)["_oddLabel#1"] == particle_columns(6)["_oddLabel#1"]
    short = write_text(tmp_path / "short.star", particle_columns(5))
    long = write_text(tmp_path / "long.star", {k: v * 2 for k, v in particle_columns(6).items()})
    for wrong, n in ((short, 5), (long, 12)):
        with pytest.raises(
            InputFileError, match=rf"{wrong.name}: describes {n} particles, but .* 6 images"
        ):
            export_star(results, tmp_path / "no.star", metadata=wrong)
    found = export_star(results.isel(image=[4, 5]), tmp_path / "two.star", metadata=star)
    assert (found.n_written, found.n_dropped) == (2, 4)
    assert text_of(tmp_path / "two.star")["rlnCoordinateX"] == ["4.500", "5.500"]
    halves = [
        write_text(
            tmp_path / f"{k}.star",
            {a: v[3 * k : 3 * k + 3] for a, v in particle_columns(6).items()},
        )
        for k in (0, 1)
    ]
    export_star(results, tmp_path / "halves.star", metadata=halves)
    assert text_of(tmp_path / "halves.star")["rlnImageName"] == particle_columns(6)["rlnImageName"]


def test_names_of_images_prove_the_rows(star, tmp_path, rng):
    """A part of the rows may then be all that there are results of."""
    results = made(rng, [""], [np.full(4, -1)])
    results.image_file[:], results.image_index[:] = "/data/Extract/a.mrcs", np.arange(4)
    assert export_star(results, tmp_path / "out.star", metadata=star).n_dropped == 2
    results.image_index[:] = [0, 1, 3, 2]
    with pytest.raises(
        InputFileError,
        match=r"row 2 \(from 0\) is image 3 of Extract/a.mrcs, but .* image 4 of /data/.*; 2 ",
    ):
        export_star(results, tmp_path / "no.star", metadata=star)


def test_a_file_that_was_changed_after_the_run(star, tmp_path, rng):
    results = made(rng, [star])
    results.image_file[:], results.image_index[:] = "/data/Extract/a.mrcs", np.arange(6)
    export_star(results, tmp_path / "out.star")
    write_text(star, {label: values[::-1] for label, values in particle_columns(6).items()})
    with pytest.raises(InputFileError, match=r"row 0 .* is image 6 of .*changed after the run"):
        export_star(results, tmp_path / "no.star")
    write_text(star, {label: values[:3] for label, values in particle_columns(6).items()})
    with pytest.raises(
        InputFileError,
        match=r"has 3 particles, but the results are of row 5 .*changed after the run",
    ):
        export_star(results, tmp_path / "no.star")
    star.unlink()
    with pytest.raises(InputFileError, match="no such file"):
        export_star(results, tmp_path / "no.star")


def test_images_that_were_given_beside_their_star_file(tmp_path, rng):
    """Names that are no longer those of the images stay; without names, those of the images are
    written."""
    star = write_text(tmp_path / "a.star", particle_columns(6))
    unnamed = {
        label: values for label, values in particle_columns(6).items() if label != "rlnImageName"
    }
    bare = write_text(tmp_path / "bare.star", unnamed)
    for file, names in (
        (star, particle_columns(6)["rlnImageName"]),
        (bare, [f"{i:06d}@/d/x.mrcs" for i in range(1, 7)]),
    ):
        results = made(rng, [file])
        results.image_file[:], results.image_index[:] = "/d/x.mrcs", np.arange(6)
        export_star(results, tmp_path / f"{file.stem}_out.star")
        assert text_of(tmp_path / f"{file.stem}_out.star")["rlnImageName"] == names
    with pytest.raises(InputError, match=r"bare\.star has no rlnImageName"):
        export_star(made(rng, [bare]), tmp_path / "no.star")


def test_images_that_were_given_beside_their_star_file_are_those_of_its_numbers(tmp_path, rng):
    """In another file, in any order; but a row is never the image of another row."""
    order = rng.permutation(6)
    columns = {label: [values[i] for i in order] for label, values in particle_columns(6).items()}
    star = write_text(tmp_path / "a.star", columns)
    results = made(rng, [star])
    results.image_file[:], results.image_index[:] = "/d/moved.mrcs", order
    export_star(results, tmp_path / "out.star")
    assert text_of(tmp_path / "out.star")["rlnImageName"] == columns["rlnImageName"]
    results.image_index[:] = np.roll(order, 1)
    with pytest.raises(
        InputFileError,
        match=rf"row 0 .* is image {order[0] + 1} of .* image {order[-1] + 1} of /d/moved",
    ):
        export_star(results, tmp_path / "no.star")


def test_a_number_that_no_image_has(star, tmp_path, rng):
    results = made(rng, [star])
    results.image_file[:], results.image_index[:] = "/data/Extract/a.mrcs", np.arange(6)
    names = particle_columns(6)["rlnImageName"]
    write_text(
        star, {**particle_columns(6), "rlnImageName": [*names[:5], f"1{'0' * 30}@Extract/a.mrcs"]}
    )
    with pytest.raises(
        InputFileError, match=r"particles\.star: rlnImageName is '10+@Extract/a\.mrcs' in row 5"
    ):
        export_star(results, tmp_path / "no.star")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda r: r.drop_vars("optimal_polar"), "results have no optimal_polar.*open_results"),
        (lambda r: r.assign_attrs(frame="?"), "frame='\\?': the axes of the images are not known"),
        (
            lambda r: r.assign(optimal_azimuth=r.optimal_azimuth * np.nan),
            "best poses of 6 image.*assign optimal_azimuth",
        ),
        (lambda r: r.isel(image=[0, 0]), "have an image twice"),
        (lambda r: r.log_likelihood_integrated, "results are a DataArray"),
    ],
)
def test_results_that_cannot_be_exported(change, complaint, star, tmp_path, rng):
    with pytest.raises(InputError, match=complaint):
        export_star(change(made(rng, [star])), tmp_path / "out.star")
    assert not (tmp_path / "out.star").exists()


def test_unknown_choices(star, tmp_path, rng):
    with pytest.raises(InputError, match="structure='ajar' is not among the results"):
        export_star(made(rng, [star]), tmp_path / "out.star", structure="ajar")
    with pytest.raises(InputError, match="template_source='mesh' is neither atoms nor map"):
        export_star(made(rng, [star]), tmp_path / "out.star", template_source="mesh")


def test_a_name_that_no_star_file_can_hold(star, tmp_path, rng):
    with pytest.raises(InputError, match=r"cryolikeAssignedStructure: 'a\\nb' cannot be written"):
        export_star(made(rng, [star], names=("a\nb",)).isel(image=[0]), tmp_path / "out.star")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["job"]


def test_structures_may_be_made_from_different_things(star, tmp_path, rng):
    """Only the structures that are used matter."""
    results = made(rng, [star], template_conventions="cryolike")
    results = results.assign_coords(template_source=("structure", ["atoms", "unknown"]))
    with pytest.raises(InputError, match="of 1 structure"):
        export_star(results, tmp_path / "out.star", structure=NAMES[1])
    export_star(results, tmp_path / "out.star", structure="open")
    export_star(results, tmp_path / "map.star", structure=NAMES[1], template_source="map")


@pytest.fixture
def project(tmp_path, rng):
    """Results of particles of a project, whose names start in it, and of a folder in which they
    start beside."""
    pixels = np.zeros((6, 4, 4), np.float32)
    made_of = {}
    for folder, name in (("project", "Extract/a.mrcs"), ("beside", "a.mrcs")):
        write_mrc_stack(tmp_path / folder / name, pixels, 1.5)
        star = write_text(
            tmp_path / folder / "Extract/job/particles.star", particle_columns(6, name)
        )
        if folder == "beside":
            star = star.rename(tmp_path / folder / "particles.star")
        made_of[folder] = made(rng, [star])
        made_of[folder].image_file[:] = str(tmp_path / folder / name)
        made_of[folder].image_index[:] = np.arange(6)
    return made_of


@pytest.mark.parametrize(
    ("of", "written", "name"),
    [
        ("project", "project/Class/subsets", "Extract/a.mrcs"),
        ("project", "elsewhere", "{}/project/Extract/a.mrcs"),
        ("beside", "beside/subsets", "a.mrcs"),
        ("beside", "project/subsets", "{}/beside/a.mrcs"),
        ("project", "other/of the same names", "{}/project/Extract/a.mrcs"),
    ],
)
def test_images_are_found_from_where_a_file_is_written(
    project, tmp_path, monkeypatch, caplog, of, written, name
):
    """By their names from the project folder, if the file is in there."""
    write_mrc_stack(tmp_path / "other/Extract/a.mrcs", np.ones((9, 4, 4), np.float32), 1.5)
    with caplog.at_level("INFO", "cryolike_dask"):
        subsets = export_star_subsets(project[of], tmp_path / written)
        found = export_star(project[of], tmp_path / written / "all.star")
    assert ("1 image file(s) are named with their whole path" in caplog.text) is name.startswith(
        "{}"
    )
    monkeypatch.chdir(tmp_path / "other")
    image = str(project[of].image_file.values[0])
    for one in (found, *subsets.values()):
        assert {text.split("@")[1] for text in text_of(one.path)["rlnImageName"]} == {
            name.format(tmp_path)
        }
        assert read_particles(one.path).image_files == (image,)
    assert sum(one.n_written for one in subsets.values()) == 6


def test_names_of_images_that_are_gone_stay(project, tmp_path):
    (tmp_path / "project/Extract/a.mrcs").unlink()
    export_star(project["project"], tmp_path / "out.star")
    assert text_of(tmp_path / "out.star")["rlnImageName"] == particle_columns(6)["rlnImageName"]
