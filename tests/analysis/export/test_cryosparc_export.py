"""`.cs` files of results: poses that are read back, and all columns that there were."""

from __future__ import annotations

import numpy as np
import pytest

from cryolike_dask.analysis.export.cryosparc_export import export_cryosparc
from cryolike_dask.analysis.export.star_export import export_star
from cryolike_dask.errors import InputError, InputFileError, OutputError
from cryolike_dask.io.cryosparc import read_cs
from cryolike_dask.particles.opening import read_particles
from tests.analysis.made_results import (
    LIKELIHOODS,
    NAMES,
    expected,
    made,
    particle_columns,
    write_text,
)
from tests.real_space import StarPoses


def write_cs(path, **more):
    n = 5
    columns = {
        "uid": np.array([2**63 + 1, 7, 9, 3, 5], "u8"),
        "blob/path": np.array([b">J3/extract/a.mrc"] * n),
        "blob/idx": np.arange(n, dtype="u4"),
        "blob/psize_A": np.array([1.5, 1.5, 1.5, 1.5, 1.25], "f4"),
        "blob/shape": np.array([[64, 64]] * n, "u4"),
        "ctf/accel_kv": np.full(n, 300, "f4"),
        "ctf/cs_mm": np.full(n, 2.7, "f4"),
        "ctf/amp_contrast": np.full(n, 0.1, "f4"),
        "ctf/df1_A": np.linspace(1e4, 2e4, n, dtype="f4"),
        "ctf/df2_A": np.linspace(1e4, 2e4, n, dtype="f4"),
        "ctf/df_angle_rad": np.zeros(n, "f4"),
        "alignments3D/split": np.array([0, 1, 0, 1, 0], "u4"),
        "alignments3D/pose": np.ones((n, 3), "f4"),
        **more,
    }
    table = np.zeros(
        n, [(name, v.dtype, v.shape[1:]) for name, v in columns.items() if v is not None]
    )
    for name in table.dtype.names:
        table[name] = columns[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        np.save(file, table)
    (path.parent / "a.mrc").touch()
    return path


@pytest.fixture
def cs(tmp_path):
    return write_cs(tmp_path / "CS/J3/extract/particles.cs")


@pytest.mark.parametrize("own_pixel_size", [False, True])
def test_poses_in_cs_files_are_read_back(own_pixel_size, tmp_path, rng):
    more = (
        {"alignments3D/psize_A": np.array([2.0, 2.0, 2.0, 2.0, 0.0], "f4")}
        if own_pixel_size
        else {}
    )
    cs = write_cs(tmp_path / "CS/J3/extract/particles.cs", **more)
    results = made(rng, [cs], [np.arange(5)])
    results.log_likelihood_integrated[:, 3] = np.nan
    path = tmp_path / "CS/out.cs"
    found = export_cryosparc(results.isel(image=[4, 0, 3, 1]), path)
    assert (found.n_written, found.n_dropped) == (3, 2)
    reasons = [line.split("\t")[1:] for line in found.dropped.read_text().splitlines()[1:]]
    assert reasons == [["2", "not among the results given"], ["3", "no result"]]

    table = read_particles(path)
    rows, best = [4, 0, 1], results.log_likelihood_integrated.values.argmax(axis=0)
    wanted = expected(results, rows, best[rows])
    read_back = StarPoses(*np.degrees(table.angles_radian).T, *table.origin_angstrom.T)
    np.testing.assert_allclose(read_back.matrices(), wanted.matrices(), atol=1e-6)
    np.testing.assert_allclose(read_back.origin_x, wanted.origin_x, atol=1e-5)
    np.testing.assert_allclose(read_back.origin_y, wanted.origin_y, atol=1e-5)

    was, now = read_cs(cs), read_cs(path)
    replaced = {"alignments3D/pose", "alignments3D/psize_A"}
    for name in set(was.dtype.names) - replaced:
        assert now[name].dtype == was[name].dtype
        np.testing.assert_array_equal(now[name], was[name][rows], err_msg=name)
    assert now["alignments3D/pose"].dtype == now["alignments3D/shift"].dtype == np.float32
    assert now["alignments3D/psize_A"].tolist() == (
        [1.25, 2.0, 2.0] if own_pixel_size else [1.25, 1.5, 1.5]
    )
    assert [name.decode() for name in now["cryolike/structure"]] == [NAMES[k] for k in best[rows]]
    assert now["cryolike/structure_number"].tolist() == (best[rows] + 1).tolist()
    for name in LIKELIHOODS:
        np.testing.assert_array_equal(
            now[f"cryolike/{name}"], results[name].values[best[rows], rows]
        )
    assert np.load(path, allow_pickle=False).dtype == now.dtype


def test_columns_of_a_passthrough_file_are_added(cs, tmp_path, rng):
    other = np.zeros(6, [("uid", "u8"), ("location/micrograph_path", "S9"), ("blob/idx", "u4")])
    other["uid"] = [5, 3, 9, 7, 2**63 + 1, 11]
    other["location/micrograph_path"] = [b"m5", b"m3", b"m9", b"m7", b"m2", b"m11"]
    np.save(tmp_path / "passthrough.npy", other)
    passthrough = (tmp_path / "passthrough.npy").rename(tmp_path / "passthrough.cs")
    results = made(rng, [cs], [np.arange(5)])
    export_cryosparc(results, tmp_path / "out.cs", passthrough=passthrough)
    now = read_cs(tmp_path / "out.cs")
    assert now["location/micrograph_path"].tolist() == [b"m2", b"m7", b"m9", b"m3", b"m5"]
    assert now["blob/idx"].tolist() == list(range(5))
    with pytest.raises(OutputError, match=r"passthrough\.cs: describes the particles themselves"):
        export_cryosparc(results, passthrough, passthrough=passthrough, overwrite=True)
    np.save(tmp_path / "few.npy", other[1:])
    with pytest.raises(InputFileError, match=r"1 of 5 particles are not in .*few\.npy"):
        export_cryosparc(results, tmp_path / "no.cs", passthrough=tmp_path / "few.npy")


def test_several_cs_files_become_one(cs, tmp_path, rng):
    two = write_cs(
        tmp_path / "CS/J4/two.cs",
        uid=np.arange(50, 55, dtype="u8"),
        **{"blob/path": np.array([b"J4/longer_name.mrc"] * 5)},
    )
    export_cryosparc(made(rng, [cs, two], [np.arange(5)] * 2), tmp_path / "out.cs")
    now = read_cs(tmp_path / "out.cs")
    assert now["blob/path"].tolist() == [b">J3/extract/a.mrc"] * 5 + [b"J4/longer_name.mrc"] * 5
    same = write_cs(tmp_path / "CS/J5/same.cs")
    with pytest.raises(InputError, match=r"particles of one uid in .*same\.cs"):
        export_cryosparc(made(rng, [cs, same], [np.arange(5)] * 2), tmp_path / "no.cs")
    fewer = write_cs(tmp_path / "CS/J6/fewer.cs", **{"alignments3D/split": None})
    with pytest.raises(InputError, match=r"different columns: alignments3D/split"):
        export_cryosparc(made(rng, [cs, fewer], [np.arange(5)] * 2), tmp_path / "no.cs")


def test_one_kind_is_not_written_as_the_other(cs, tmp_path, rng):
    star = write_text(tmp_path / "particles.star", particle_columns(6))
    of_cs, of_star = made(rng, [cs], [np.arange(5)]), made(rng, [star])
    with pytest.raises(
        InputError,
        match=r"described by .*particles\.cs, no \.star file. Use export_cryosparc \(--cs\)",
    ):
        export_star(of_cs, tmp_path / "out.star")
    with pytest.raises(
        InputError,
        match=r"described by .*particles\.star, no \.cs file. Use export_star \(--star\)",
    ):
        export_cryosparc(of_star, tmp_path / "out.cs")
    with pytest.raises(InputError, match=r"out\.star does not end in \.cs"):
        export_cryosparc(of_cs, tmp_path / "out.star")
    export_cryosparc(of_cs, tmp_path / "out.cs")
    with pytest.raises(OutputError, match=r"out\.cs: is there already"):
        export_cryosparc(of_cs, tmp_path / "out.cs")
