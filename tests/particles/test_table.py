"""The record of particles: parts of it, several of them together, and where their image files
are found."""

from __future__ import annotations

import logging
import pickle

import numpy as np
import pytest

from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.particles.locate import distinct, resolve
from cryolike_dask.particles.table import ParticleTable, concatenate


@pytest.fixture
def table(build, rng):
    """Five particles in three files, described by two."""
    return ParticleTable(
        optics=build.optics(5),
        image_files=("/x", "/y", "/z"),
        file_number=np.array([0, 1, 0, 2, 1]),
        image_index=np.array([4, 3, 2, 1, 0]),
        sign=np.ones(5),
        metadata_files=("/1.star", "/2.star"),
        metadata_number=np.array([0, 0, 0, 1, 1]),
        metadata_row=np.array([0, 1, 2, 0, 1]),
        pixel_size_angstrom=np.arange(1.0, 6.0),
        angles_radian=rng.standard_normal((5, 3)),
        micrograph=np.array(list("abcde")),
    )


def files_of(table):
    """What `file_number` and `metadata_number` stand for."""
    images = [table.image_files[i] for i in table.file_number]
    return images, [table.metadata_files[i] for i in table.metadata_number]


@pytest.mark.parametrize(
    "rows", [[3, 1], [0, 0, 4], np.array([False, True, False, False, True]), [-1], []]
)
def test_some_particles(table, rows):
    part = table.take(rows)
    chosen = np.arange(5)[np.array(rows, dtype=None if len(rows) else int)]
    assert len(part) == len(chosen)
    np.testing.assert_array_equal(part.optics, table.optics[chosen])
    np.testing.assert_array_equal(part.angles_radian, table.angles_radian[chosen])
    assert part.micrograph.tolist() == table.micrograph[chosen].tolist()
    images, metadata = files_of(table)
    assert files_of(part) == ([images[i] for i in chosen], [metadata[i] for i in chosen])
    assert part.image_files == tuple(dict.fromkeys(images[i] for i in chosen))
    assert part.random_subset is None


def test_tables_together(table, caplog):
    parts = [table.take([3, 1]), table.take([0]), table.take([4, 2])]
    with caplog.at_level(logging.INFO, logger="cryolike_dask"):
        together, expected = concatenate(parts), table.take([3, 1, 0, 4, 2])
    np.testing.assert_array_equal(together.optics, expected.optics)
    np.testing.assert_array_equal(together.pixel_size_angstrom, expected.pixel_size_angstrom)
    np.testing.assert_array_equal(together.metadata_row, expected.metadata_row)
    assert files_of(together) == files_of(expected)
    assert together.image_files == expected.image_files
    assert together.metadata_files == table.metadata_files
    assert together.random_subset is None
    assert caplog.records == []


def test_a_column_that_one_table_lacks_is_left_out_and_named_once(table, caplog):
    bare = ParticleTable(
        optics=table.optics,
        image_files=("/w",),
        file_number=np.zeros(5, int),
        image_index=np.arange(5),
        sign=-np.ones(5),
        metadata_files=("/3.cs",),
        metadata_number=np.zeros(5, int),
        metadata_row=np.arange(5),
        pixel_size_angstrom=np.ones(5),
    )
    with caplog.at_level(logging.INFO, logger="cryolike_dask"):
        together = concatenate([table, bare, table])
    assert together.angles_radian is None
    assert together.pixel_size_angstrom is not None
    (record,) = caplog.records
    assert record.getMessage().endswith(": angles_radian, micrograph")


def test_no_tables_at_all():
    with pytest.raises(InputError, match="no particle tables"):
        concatenate([])


def test_a_table_travels_and_is_shown_on_one_line(table):
    shown = repr(pickle.loads(pickle.dumps(table)))
    assert shown == "<ParticleTable: 5 images in 3 file(s), described by /1.star, /2.star>"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"image_index": np.zeros(4, int)},
            r"image_index has shape \(4,\), but there are 5 particles",
        ),
        ({"angles_radian": np.zeros((5, 2))}, r"angles_radian has shape \(5, 2\)"),
        ({"origin_angstrom": np.zeros(5)}, "origin_angstrom has shape"),
        ({"file_number": np.full(5, 3)}, r"file_number runs from 3 to 3 for 3 file"),
        ({"metadata_number": np.full(5, -1)}, "metadata_number runs from -1"),
        ({"optics": np.zeros(5, [("a", "f8")])}, "optics have the columns"),
    ],
)
def test_columns_that_do_not_belong_together(table, change, message):
    values = {name: getattr(table, name) for name in table.__dataclass_fields__}
    with pytest.raises(InputError, match=message):
        ParticleTable(**{**values, **change})


def test_names_are_numbered_by_first_use():
    names, number = distinct(["b", "a", "b", "c", "a"])
    assert names == ("b", "a", "c")
    assert number.tolist() == [0, 1, 0, 2, 1]


@pytest.fixture
def project(tmp_path):
    """Files at several depths; `both.mrc` is there twice."""
    for name in (
        "both.mrc",
        "job/both.mrc",
        "job/run/particles.star",
        "Extract/x.mrc",
        "job/run/near.mrc",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_names_start_from_the_first_folder_upwards_that_has_the_first(
    project, monkeypatch, tmp_path_factory
):
    metadata = project / "job" / "run" / "particles.star"
    assert resolve(["near.mrc"], metadata) == (str(project / "job/run/near.mrc"),)
    assert resolve(["both.mrc"], metadata) == (str(project / "job/both.mrc"),)
    assert resolve(["Extract/x.mrc", "both.mrc"], metadata) == (
        str(project / "Extract/x.mrc"),
        str(project / "both.mrc"),
    )
    assert resolve(["Extract/x.mrc", "near.mrc"], metadata)[1] == str(project / "job/run/near.mrc")
    assert resolve([str(project / "both.mrc"), "near.mrc"], metadata)[0] == str(
        project / "both.mrc"
    )
    monkeypatch.chdir(project)
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "particles.star"
    assert resolve(["Extract/x.mrc"], elsewhere) == (str(project / "Extract/x.mrc"),)
    assert resolve(["both.mrc"], "job/run/particles.star") == (str(project / "job/both.mrc"),)


def test_names_start_from_where_a_link_leads(project, tmp_path_factory):
    link = tmp_path_factory.mktemp("linked") / "link.star"
    link.symlink_to(project / "job" / "run" / "particles.star")
    assert resolve(["Extract/x.mrc"], link) == (str(project / "Extract/x.mrc"),)


def test_a_given_folder_is_the_only_one(project):
    metadata = project / "job" / "run" / "particles.star"
    assert resolve(["both.mrc"], metadata, project) == (str(project / "both.mrc"),)
    with pytest.raises(
        InputFileError, match=rf"2 missing(?s:.*){project}/near\.mrc\n  {project}/no\.mrc"
    ):
        resolve(["near.mrc", "both.mrc", "no.mrc"], metadata, project)


def test_a_folder_is_no_image_file(project):
    with pytest.raises(InputFileError, match=r"1 missing(?s:.*)job(?s:.*)particles\.star"):
        resolve(["job"], project / "particles.star")
