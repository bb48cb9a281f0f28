"""From pixels to poses in the files of RELION and cryoSPARC: at them the structure looks like
the particle."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from cryolike_dask import (
    ImageParameters,
    configure_likelihood_files,
    convert_particles,
    make_templates,
    open_particles,
    open_structures,
    run_likelihood_optimal_pose,
)
from cryolike_dask.analysis.dataset import open_results
from cryolike_dask.analysis.export.cryosparc_export import export_cryosparc
from cryolike_dask.analysis.export.star_export import export_star
from cryolike_dask.cli import app
from cryolike_dask.errors import InputError
from cryolike_dask.io.star import read_star
from cryolike_dask.particles.opening import read_particles
from tests.analysis.export.test_relion_poses import mirrored
from tests.analysis.made_results import LIKELIHOODS, text_of
from tests.particles.test_frames import PIXEL, SEARCH, draw, write_mrcs, write_particles
from tests.particles.test_frames import N as SIDE
from tests.particles.test_frames import write_star as write_set
from tests.real_density import leucines, write_map, write_pdb
from tests.real_space import StarPoses, render, two_lobes

PARAMETERS = ImageParameters(SIDE, PIXEL, viewing_distance=0.8, atom_shape="gaussian")
ATOMS = leucines(two_lobes(40) + np.array([40.0, -25.0, 12.0]))


def correlation(one, other):
    """Of images, each with its own, less their means."""
    one, other = (x.reshape(len(x), -1) - x.mean(axis=(1, 2))[:, None] for x in (one, other))
    return (one * other).sum(1) / np.sqrt((one**2).sum(1) * (other**2).sum(1))


def poses_of(path):
    """As this package's own reader of metadata files gives them."""
    table = read_particles(path)
    return StarPoses(*np.degrees(table.angles_radian).T, *table.origin_angstrom.T)


def at_exported_poses(path, atoms=ATOMS, side=SIDE, pixel=PIXEL):
    """What RELION would see of the structure at the poses that a file says."""
    return render(atoms, poses_of(path), read_particles(path).optics, side, pixel)


def pixels_of(path):
    table = read_particles(path)
    return open_particles(path, PARAMETERS).source.pixels(np.arange(len(table))).astype(np.float64)


def run(folder, images, structures, **options):
    files = configure_likelihood_files(None, None, folder, i_template="all")
    search = options.pop("search", SEARCH)
    run_likelihood_optimal_pose(
        files,
        PARAMETERS,
        search,
        images=images,
        templates=structures,
        progress=False,
        **options,
        noise="white",
    )
    return open_results(folder)


@pytest.fixture(scope="module")
def conformations(tmp_path_factory):
    """Two conformations, eight particles of each, and what is found of them."""
    folder, rng = tmp_path_factory.mktemp("run"), np.random.default_rng(3)
    atoms = [leucines(two_lobes(opening)) for opening in (40, 110)]
    drawn = draw(rng, 16, PARAMETERS.viewing_angles())
    which = np.arange(16) // 2 % 2
    pixels = [render(one, drawn.poses, drawn.optics, SIDE, PIXEL) for one in atoms]
    pixels = np.where(which[:, None, None] == 0, *pixels)
    write_mrcs(folder / "all.mrcs", pixels, PIXEL)
    star = write_set(folder / "all.star", drawn, [f"{i + 1:06d}@all.mrcs" for i in range(16)])
    structures = [
        write_pdb(folder / f"{name}.pdb", one)
        for name, one in zip(("open", "closed"), atoms, strict=True)
    ]
    results = run(
        folder / "out",
        open_particles(star, PARAMETERS, batch_size=7),
        open_structures(structures, PARAMETERS),
        pose_posteriors=True,
    )
    return star, atoms, which, drawn, results


def test_particles_and_exported_poses_agree(conformations, tmp_path):
    star, atoms, which, drawn, results = conformations
    path = star.parent / "exported.star"
    found = export_star(results, path, overwrite=True)
    assert (found.n_written, found.n_dropped, found.dropped) == (16, 0, None)
    seen = np.where(which[:, None, None] == 0, *(at_exported_poses(path, one) for one in atoms))
    agreement = correlation(seen, pixels_of(path))
    print(f"1 - correlation: {1 - agreement.min():.1e}")
    assert agreement.min() > 1 - 1e-9
    np.testing.assert_allclose(poses_of(path).matrices(), drawn.poses.matrices(), atol=1e-6)
    np.testing.assert_allclose(poses_of(path).origin_x, drawn.poses.origin_x, atol=5e-6)
    np.testing.assert_allclose(poses_of(path).origin_y, drawn.poses.origin_y, atol=5e-6)
    columns = read_star(path)[1].columns
    assert columns["rlnClassNumber"].astype(int).tolist() == (which + 1).tolist()
    assert columns["cryolikeAssignedStructure"].tolist() == [("open", "closed")[i] for i in which]
    for label, name in [
        ("CrossCorrelation", LIKELIHOODS[0]),
        ("LogLikelihoodIntegrated", LIKELIHOODS[1]),
        ("LogLikeliContribution", LIKELIHOODS[1]),
        ("MaxValueProbDistribution", "best_pose_probability"),
        ("NrOfSignificantSamples", "n_significant_poses"),
    ]:
        wanted = results[name].values[which, np.arange(16)]
        own = "cryolike" if name in LIKELIHOODS and "Contribution" not in label else "rln"
        np.testing.assert_allclose(columns[f"{own}{label}"].astype(float), wanted, rtol=1e-6)
    assert (columns["rlnNrOfSignificantSamples"].astype(int) >= 1).all()


def test_one_structure_for_all_and_one_image(conformations, tmp_path):
    star, atoms, which, _, results = conformations
    path = star.parent / "under_closed.star"
    export_star(results, path, structure="closed", overwrite=True)
    columns = read_star(path)[1].columns
    assert set(columns["rlnClassNumber"]) == {"2"}
    np.testing.assert_allclose(
        columns["cryolikeLogLikelihoodOptimal"].astype(float),
        results.log_likelihood_optimal.values[1],
        rtol=1e-6,
    )
    agreement = correlation(at_exported_poses(path, atoms[1]), pixels_of(path))
    assert agreement[which == 1].min() > 1 - 1e-9
    assert agreement[which == 0].max() < 1 - 1e-3

    selected = star.parent / "selected.star"
    export_star(results.sel(structure="closed"), selected, overwrite=True)
    assert read_star(selected)[1].columns["rlnAngleRot"].tolist() == columns["rlnAngleRot"].tolist()
    assert set(read_star(selected)[1].columns["rlnClassNumber"]) == {"1"}
    found = export_star(results.isel(image=5, structure=1), selected, overwrite=True)
    assert (found.n_written, found.n_dropped) == (1, 15)
    assert read_star(selected)[1].columns["rlnAngleRot"].tolist() == [columns["rlnAngleRot"][5]]


def write_cs(path, drawn, file):
    """Particles of one image file as cryoSPARC describes them, poses left out."""
    optics, n = drawn.optics, len(drawn)
    columns = {
        "uid": np.arange(n, dtype="u8") + 100,
        "blob/path": np.array([file.encode()] * n),
        "blob/idx": np.arange(n, dtype="u4"),
        "blob/psize_A": np.full(n, PIXEL, "f4"),
        "ctf/accel_kv": optics["voltage_kilovolt"],
        "ctf/cs_mm": optics["spherical_aberration_mm"],
        "ctf/amp_contrast": optics["amplitude_contrast"],
        "ctf/df1_A": optics["defocus_u_angstrom"],
        "ctf/df2_A": optics["defocus_v_angstrom"],
        "ctf/df_angle_rad": optics["defocus_angle_radian"],
        "ctf/phase_shift_rad": optics["phase_shift_radian"],
        "ctf/bfactor": optics["b_factor_angstrom2"],
        "ctf/scale": optics["scale"],
    }
    table = np.zeros(n, [(name, values.dtype) for name, values in columns.items()])
    for name, values in columns.items():
        table[name] = values
    with open(path, "wb") as file:
        np.save(file, table)
    return path


def test_particles_of_cryosparc_and_exported_poses_agree(conformations, tmp_path):
    star, atoms, which, drawn, _ = conformations
    cs = write_cs(star.parent / "all.cs", drawn, "all.mrcs")
    structures = open_structures([star.parent / "open.pdb", star.parent / "closed.pdb"], PARAMETERS)
    results = run(tmp_path / "out", open_particles(cs, PARAMETERS), structures)
    path = star.parent / "exported.cs"
    assert export_cryosparc(results, path, overwrite=True).n_written == 16
    seen = np.where(which[:, None, None] == 0, *(at_exported_poses(path, one) for one in atoms))
    agreement = correlation(seen, pixels_of(path))
    print(f"1 - correlation: {1 - agreement.min():.1e}")
    assert agreement.min() > 1 - 1e-9
    np.testing.assert_allclose(poses_of(path).matrices(), drawn.poses.matrices(), atol=1e-6)


@pytest.mark.parametrize("kind", ["atoms", "map"])
@pytest.mark.parametrize("conventions", ["cryolike", "standard"])
def test_stacks_of_cryolike(kind, conventions, tmp_path, rng):
    """Transposed stacks, under templates of CryoLike's kind and of ours."""
    drawn = draw(rng, 8, PARAMETERS.viewing_angles())
    optics = drawn.optics.copy()
    optics["defocus_v_angstrom"] = optics["defocus_u_angstrom"]
    for name, value in (
        ("voltage_kilovolt", 300),
        ("spherical_aberration_mm", 2.7),
        ("amplitude_contrast", 0.1),
    ):
        optics[name] = value
    optics["b_factor_angstrom2"], optics["phase_shift_radian"], optics["scale"] = 0, 0, 1
    drawn = replace(drawn, optics=optics, group=np.ones(8, int))
    seen = mirrored(ATOMS) if (kind, conventions) == ("map", "cryolike") else ATOMS
    write_mrcs(
        tmp_path / "all.mrcs", render(seen, drawn.poses, optics, SIDE, PIXEL).swapaxes(1, 2), PIXEL
    )
    star = write_set(tmp_path / "all.star", drawn, [f"{i + 1}@all.mrcs" for i in range(8)])
    cube = {"n": (SIDE,) * 3, "voxel_angstrom": (PIXEL,) * 3}
    structure = (
        write_pdb(tmp_path / "a.pdb", ATOMS)
        if kind == "atoms"
        else write_map(tmp_path / "a.mrc", ATOMS, **cube)
    )

    make_templates(
        [structure], PARAMETERS, tmp_path / "templates", conventions=conventions, progress=False
    )
    convert_particles(star, PARAMETERS, tmp_path / "stacks", conventions="cryolike", progress=False)
    files = configure_likelihood_files(
        tmp_path / "templates", tmp_path / "stacks", tmp_path / "out", i_template="all"
    )
    run_likelihood_optimal_pose(
        files, PARAMETERS, SEARCH, conventions=conventions, progress=False, noise="white"
    )
    results = open_results(tmp_path / "out")
    assert results.frame == "transposed"
    np.testing.assert_array_equal(results.optimal_template.values[0], drawn.template)
    np.testing.assert_allclose(
        results.optimal_inplane_rotation.values[0], drawn.rotation, atol=1e-6
    )
    np.testing.assert_allclose(results.optimal_displacement_x.values[0], drawn.x, atol=1e-6)

    path = tmp_path / "exported.star"
    export_star(results, path)
    agreement = correlation(at_exported_poses(path), pixels_of(path))
    print(f"1 - correlation: {1 - agreement.min():.1e}")
    assert agreement.min() > 0.99999

    by_order = results.assign_coords(
        metadata_file=("image", [""] * 8), metadata_row=("image", [-1] * 8)
    )
    export_star(by_order, tmp_path / "by_order.star", metadata=star)
    assert (tmp_path / "by_order.star").read_text() == path.read_text()

    nothing_said = results.assign_coords(template_source=("structure", ["unknown"]))
    again = tmp_path / "again.star"
    if conventions == "standard":
        export_star(nothing_said, again)
    else:
        with pytest.raises(
            InputError, match=r"made from atoms or from a map.*not known: a\. .*--templates-from"
        ):
            export_star(nothing_said, again)
        export_star(nothing_said, again, template_source=kind)
        other = {"atoms": "map", "map": "atoms"}[kind]
        with pytest.raises(
            InputError, match=f"template_source='{other}', but templates were made from {kind}: a"
        ):
            export_star(results, tmp_path / "other.star", template_source=other)
    assert again.read_text() == path.read_text()


def test_origins_that_were_undone_are_counted(tmp_path, rng):
    drawn = draw(rng, 10)
    origins = np.round(rng.uniform(-5 * PIXEL, 5 * PIXEL, (2, 10)), 6)
    off = np.array([[1], [-1]]) * SEARCH.grid(PIXEL).x_angstrom.max()  # what the search is to find
    poses = StarPoses(drawn.poses.rot, drawn.poses.tilt, np.zeros(10), *origins)
    star = write_particles(tmp_path / "set", replace(drawn, poses=poses))
    shifted = StarPoses(poses.rot, poses.tilt, poses.psi, *(origins + off))
    write_set(
        star,
        replace(drawn, poses=shifted),
        [f"{i // 2 + 1:06d}@half{i % 2}.mrcs" for i in range(10)],
    )

    structures = open_structures([write_pdb(tmp_path / "a.pdb", ATOMS)], PARAMETERS)
    images = open_particles(star, PARAMETERS, recenter=True)
    results = run(tmp_path / "out", images, structures)
    path = tmp_path / "set/exported.star"
    export_star(results, path)
    agreement = correlation(at_exported_poses(path), pixels_of(path))
    print(f"1 - correlation: {1 - agreement.min():.1e}")
    assert agreement.min() > 0.9999
    np.testing.assert_allclose(poses_of(path).origin_x, origins[0], atol=1e-5)
    np.testing.assert_allclose(poses_of(path).origin_y, origins[1], atol=1e-5)
    said = tmp_path / "set/said.star"
    export_star(results.assign_coords(recentered=("image", np.arange(10) < 5)), said)
    np.testing.assert_array_equal(poses_of(said).origin_x[:5], poses_of(path).origin_x[:5])
    np.testing.assert_allclose(poses_of(said).origin_x[5:], -off[0, 0], atol=1e-5)
    with pytest.raises(
        InputError, match=r"image\(s\) 0, 1, .*were moved by their recorded origins"
    ):
        export_star(results.drop_vars("recorded_origin_x"), tmp_path / "no.star")


def command(*arguments):
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_the_command(conformations, tmp_path):
    star, _, _, _, results = conformations
    path = star.parent / "by_command.star"
    done = command(results.folder, "--star", path, "--overwrite")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == f"16 particles: {path}"
    export_star(results, star.parent / "by_function.star", overwrite=True)
    assert path.read_text() == (star.parent / "by_function.star").read_text()
    done = command(results.folder, "--subsets", tmp_path / "subsets")
    assert sorted(p.name for p in (tmp_path / "subsets").iterdir()) == ["closed.star", "open.star"]
    done = command(
        results.folder, "--star", path, "--structure", "closed", "--metadata", star, "--overwrite"
    )
    assert done.exit_code == 0, done.output
    assert set(text_of(path)["rlnClassNumber"]) == {"2"}
    done = command(results.folder, "--cs", tmp_path / "out.cs")
    assert done.exit_code == 3
    assert "no .cs file. Use --star" in done.stderr
    for wrong in (["--star", path, "--cs", path], [], ["--subsets", path, "--structure", "a"]):
        assert command(results.folder, *wrong).exit_code == 3


def test_the_command_writes_all_that_is_asked_for_or_nothing(conformations, tmp_path):
    star, _, _, drawn, results = conformations
    cs = write_cs(star.parent / "all.cs", drawn, "all.mrcs")
    files = [
        "--star",
        tmp_path / "all.star",
        "--subsets",
        tmp_path / "subsets",
        "--cs",
        tmp_path / "all.cs",
    ]
    given = ["--metadata", star, "--metadata", cs]
    (tmp_path / "all.cs").touch()
    refused = command(results.folder, *files, *given)
    assert refused.exit_code == 4
    assert "all.cs: is there already" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["all.cs"]
    done = command(results.folder, *files, *given, "--overwrite")
    assert done.exit_code == 0, done.output
    assert [line.rpartition("/")[2] for line in done.stdout.splitlines()] == [
        "all.star",
        "open.star",
        "closed.star",
        "all.cs",
    ]
    n_each = [
        len(text_of(tmp_path / name)["rlnImageName"])
        for name in ("all.star", *(f"subsets/{n}.star" for n in ("closed", "open")))
    ]
    assert n_each[0] == sum(n_each[1:]) == len(np.load(tmp_path / "all.cs")) == 16


def test_lists_of_what_is_left_out_are_of_one_file_each(conformations, tmp_path):
    star, _, _, drawn, results = conformations
    cs = write_cs(star.parent / "left.cs", drawn, "all.mrcs")
    folder = shutil.copytree(results.folder, tmp_path / "results")
    for path in folder.glob("template*/*/*stack_000002*"):
        path.unlink()
    files = ["--star", tmp_path / "poses.star", "--cs", tmp_path / "poses.cs"]
    done = command(folder, *files, "--metadata", star, "--metadata", cs)
    assert done.exit_code == 0, done.output
    lists = [
        (tmp_path / f"poses{name}").read_text() for name in (".dropped.txt", ".cs.dropped.txt")
    ]
    assert all("not among the results given" in text for text in lists)
    assert lists[0].count("\n") == lists[1].count("\n") > 1
