"""Output folders that hold results already: what goes on, what is refused, what `overwrite`
removes."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import zipfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import cryolike_dask as cld
from cryolike_dask.errors import InputFileError, OutputError
from cryolike_dask.io.archives import write_archive
from cryolike_dask.io.jobs import withdraw_record
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.particles.provenance import PER_IMAGE
from cryolike_dask.runs import folder
from cryolike_dask.runs.kinds import OPTIMAL_POSE
from cryolike_dask.runs.origins import describe_images, read_origins
from cryolike_dask.runs.run import open_run
from cryolike_dask.simulation.demo import write_hinge

PARAMETERS = cld.ImageParameters(
    16, 8.0, n_inplanes=20, viewing_distance=2.0, atom_shape="gaussian"
)
SEARCH = cld.configure_displacement(1.0, 2, 2)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Two structures, and two STAR files of particles of them."""
    folder = tmp_path_factory.mktemp("inputs")
    structures = [folder / "closed.pdb", folder / "open.pdb"]
    for path, opening in zip(structures, (0.0, 0.9), strict=True):
        write_hinge(path, opening)
    star = cld.simulate_particles(
        structures, PARAMETERS, folder / "relion", n_images=9, progress=False
    )
    return structures, [star, Path(shutil.copy(star, star.with_name("second.star")))]


@pytest.fixture(scope="module")
def done(inputs, tmp_path_factory):
    """The results of a run of both structures, and all of them read."""
    structures, (star, _) = inputs
    folder = tmp_path_factory.mktemp("done") / "out"
    return folder, run(folder, structures, star).load()


@pytest.fixture
def output(done, tmp_path):
    """A copy of these results."""
    return shutil.copytree(done[0], tmp_path / "out")


def run(output, structures, star, batch_size=3, **options):
    files = cld.configure_likelihood_files(None, None, output, i_template="all")
    images = cld.open_particles(star, PARAMETERS, batch_size=batch_size)
    templates = cld.open_structures(structures, PARAMETERS)
    cld.run_likelihood_optimal_pose(
        files,
        PARAMETERS,
        SEARCH,
        images=images,
        templates=templates,
        **{"progress": False, "noise": "white", **options},
    )
    return cld.open_results(output)


def test_the_same_run_goes_on_and_says_what_it_replaces(inputs, tmp_path, caplog):
    structures, (star, _) = inputs
    first = run(tmp_path, structures, star).load()
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        again = run(tmp_path, structures, star, n_stacks=2)
    assert "results that are there are replaced" in caplog.text
    assert again.sizes == first.sizes == {"structure": 2, "image": 9}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"structures": [1]}, "structure 0 is closed there, open here"),
        ({"structures": [1, 0]}, "structure 0 is closed there, open here"),
        ({"structures": [0]}, "open is structure 1 there, 1 structure(s) here"),
        ({"batch_size": 4}, "image stack 0 has 3 images there, 4 here"),
        ({"batch_size": 9}, "image stack 0 has 3 images there, 9 here"),
        ({"star": 1}, "made from particles.star there, second.star here"),
    ],
)
def test_results_of_other_inputs_are_neither_mixed_nor_replaced(inputs, tmp_path, change, message):
    structures, stars = inputs
    before = run(tmp_path, structures, stars[0]).load()
    other = {
        "structures": [structures[i] for i in change.get("structures", (0, 1))],
        "star": stars[change.get("star", 0)],
        "batch_size": change.get("batch_size", 3),
    }
    for skip_exist in (False, True):
        with pytest.raises(
            OutputError, match=r"holds results of another run .*Choose another output folder"
        ) as refusal:
            run(tmp_path, skip_exist=skip_exist, **other)
        assert message in str(refusal.value)
    assert cld.open_results(tmp_path).load().identical(before)
    after = run(tmp_path, overwrite=True, **other)
    assert after.sizes == {"structure": len(other["structures"]), "image": 9}
    assert np.isfinite(after.cross_correlation).all()
    assert sorted(after.structure.values) == sorted(path.stem for path in other["structures"])


def test_fewer_stacks_are_a_part_of_the_run_if_the_inputs_have_more(inputs, tmp_path):
    structures, (star, _) = inputs
    run(tmp_path, structures, star)
    assert run(tmp_path, structures, star, n_stacks=1, skip_exist=True).sizes["image"] == 9


def test_a_plan_refuses_what_the_run_would(inputs, tmp_path):
    structures, (star, _) = inputs
    run(tmp_path, structures, star)
    files = cld.configure_likelihood_files(None, None, tmp_path, i_template="all")
    images = cld.open_particles(star, PARAMETERS, batch_size=4)
    templates = cld.open_structures(structures, PARAMETERS)
    with pytest.raises(OutputError, match="image stack 0 has 3 images there, 4 here"):
        cld.plan_likelihood(
            files, PARAMETERS, SEARCH, images=images, templates=templates, measure=False
        )


def test_displacements_without_results_are_replaced(inputs, tmp_path):
    structures, (star, _) = inputs
    run(tmp_path, structures, star)
    shutil.rmtree(tmp_path / "template0")
    shutil.rmtree(tmp_path / "template1")
    files = cld.configure_likelihood_files(None, None, tmp_path, i_template="all")
    given = {
        "images": cld.open_particles(star, PARAMETERS),
        "templates": cld.open_structures(structures, PARAMETERS),
    }
    other = cld.configure_displacement(1.0, 3, 3)
    cld.run_likelihood_optimal_pose(files, PARAMETERS, other, **given, progress=False)
    assert cld.open_results(tmp_path).attrs["n_displacements"] == 9


def test_what_is_said_of_a_structure_stays_while_it_has_results(inputs, tmp_path):
    structures, (star, _) = inputs
    run(tmp_path, structures, star)
    images = cld.open_particles(star, PARAMETERS, batch_size=3)[:6]
    files = cld.configure_likelihood_files(None, None, tmp_path, i_template="all")
    given = {"images": images, "templates": cld.open_structures(structures, PARAMETERS)}
    cld.run_likelihood_optimal_pose(
        files, PARAMETERS, SEARCH, **given, progress=False, overwrite=True, skip_exist=True
    )
    results = cld.open_results(tmp_path)
    assert results.sizes == {"structure": 2, "image": 6}
    assert np.isfinite(results.optimal_azimuth).all()


def test_a_record_that_another_run_wrote_in_between_is_not_removed(inputs, tmp_path, monkeypatch):
    structures, (star, _) = inputs
    run(tmp_path, structures, star)
    path = tmp_path / "template0/done/stack_000000.json"
    judged = json.loads(path.read_text())
    folder._remove_results(path, {**judged, "device": "another"})
    assert path.is_file()
    folder._remove_results(path, judged)
    assert not path.exists()
    assert not [*tmp_path.glob("template0/*/*_stack_000000.pt")]


# --- runs at the same time, and folders that change beneath a run ---


def opened(output, structures, star):
    images = cld.open_particles(star, PARAMETERS, batch_size=3)
    templates = cld.open_structures(structures, PARAMETERS)
    files = cld.configure_likelihood_files(None, None, output, i_template="all")
    return open_run(files, PARAMETERS, SEARCH, Settings(device="cpu"), images, templates)


def claimed(opened_run):
    """The output folder of a run, claimed as the run claims it."""
    return folder.output_folder(opened_run).claimed(list, skip_exist=False, overwrite=False)


def test_beneath_a_run_that_lives_nothing_else_is_computed_or_overwritten(inputs, output):
    structures, (star, second) = inputs
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.*")}
    before.pop(output / "run.log")  # of every run that goes on
    files = cld.configure_likelihood_files(None, None, output, i_template="all")
    given = {
        "images": cld.open_particles(star, PARAMETERS),
        "templates": cld.open_structures(structures, PARAMETERS),
    }
    other = cld.configure_displacement(1.0, 3, 3)
    with claimed(opened(output, structures, star)):
        for overwrite in (False, True):
            with pytest.raises(OutputError, match=r"another (search|run is writing here)"):
                cld.run_likelihood_optimal_pose(
                    files, PARAMETERS, other, **given, progress=False, overwrite=overwrite
                )
            with pytest.raises(OutputError):
                run(output, structures, second, overwrite=overwrite)
        with pytest.raises(OutputError, match="another run is writing here"):
            run(output, structures, star, overwrite=True)
        run(output, structures, star, skip_exist=True)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_runs_of_different_structures_at_once_are_told_apart_before_there_is_any_record(
    inputs, tmp_path
):
    structures, (star, _) = inputs
    output = tmp_path / "out"
    refused = pytest.raises(
        OutputError, match=r"another run is writing here .*structures: \['closed'\] there"
    )
    with claimed(opened(output, structures[:1], star)), refused:
        run(output, structures[1:], star)
    assert not list(output.glob("template*"))


def test_a_record_of_another_structure_that_came_meanwhile_is_not_replaced(inputs, output):
    structures, (star, _) = inputs
    ours = opened(output, structures[::-1], star)
    job = ours.job(OPTIMAL_POSE, 0, 0)
    before = job.record.read_bytes()
    with pytest.raises(
        OutputError, match=r"written meanwhile by another run, whose structure is closed, not open"
    ):
        withdraw_record(job)
    assert job.record.read_bytes() == before


def test_descriptions_of_very_many_images_are_no_bombs(tmp_path):
    n = 150_000
    names = np.char.add(
        "a/very/long/way/to/the/images/of/a/microscope/" * 5, np.arange(n).astype(np.str_)
    )
    write_archive(
        tmp_path / "stack.npz",
        {"n_images": n, "files": names, "metadataFile": names},
        compressed=True,
    )
    assert len(read_origins(tmp_path / "stack.npz", n)["files"]) == n
    with pytest.raises(InputFileError, match="far more than it should hold"):
        read_origins(tmp_path / "stack.npz", 1000)


def test_a_plan_refuses_a_folder_in_which_another_search_runs(inputs, tmp_path):
    structures, (star, _) = inputs
    files = cld.configure_likelihood_files(None, None, tmp_path / "out", i_template="all")
    given = {
        "images": cld.open_particles(star, PARAMETERS),
        "templates": cld.open_structures(structures, PARAMETERS),
    }
    with claimed(opened(tmp_path / "out", structures, star)):
        before = sorted((tmp_path / "out").iterdir())
        with pytest.raises(
            OutputError, match=r"another run is writing here .*n_displacements: 5 there, 9 here"
        ):
            cld.plan_likelihood(
                files, PARAMETERS, cld.configure_displacement(1.0, 3, 3), **given, measure=False
            )
        assert sorted((tmp_path / "out").iterdir()) == before


class Once(logging.Handler):
    """Does something when the first piece is finished."""

    def __init__(self, act):
        super().__init__()
        self.act = act

    def emit(self, record):
        self.act()
        self.act = lambda: None


@pytest.mark.parametrize(
    ("act", "what"),
    [
        (shutil.rmtree, "out: is gone: it was moved or removed while a run wrote into it"),
        (lambda out: out.rename(out.with_name("moved")), "out: is gone"),
        (
            lambda out: (out / ".claim-results.json").write_text("{}"),
            "out: is claimed by another run by now",
        ),
    ],
)
def test_a_folder_that_is_taken_away_from_a_run_ends_it_and_is_not_made_anew(
    inputs, tmp_path, act, what
):
    structures, (star, _) = inputs
    output = tmp_path / "out"
    handler, events = Once(lambda: act(output)), logging.getLogger("cryolike_dask.events")
    events.addHandler(handler)
    try:
        with pytest.raises(OutputError, match=what):
            run(output, structures, star, log_file=tmp_path / "log")
    finally:
        events.removeHandler(handler)
    records = [*tmp_path.glob("*/template*/done/*.json")]
    assert len(records) <= 1, "nothing is written after that"
    assert output.exists() == ("claimed" in what)


# --- what lies beside results ---


def expected(done, output):
    """What was read of the results, as the copy of them says it."""
    return done[1].assign_attrs(folder=str(output))


def cut_short(path):
    path.write_bytes(path.read_bytes()[:100])


def turn_a_byte(path):
    content = bytearray(path.read_bytes())
    at = len(content) // 3
    if path.suffix == ".npz":  # times in the headers of an archive count for nothing
        entry = zipfile.ZipFile(path).infolist()[0]
        name, extra = np.frombuffer(content, "<u2", 2, entry.header_offset + 26).tolist()
        at = entry.header_offset + 30 + name + extra + entry.compress_size // 2
    if path.suffix == ".pt":
        at = content.index(torch.load(path, weights_only=True).numpy().tobytes()) + 4
    content[at] ^= 1
    path.write_bytes(content)


BESIDE = ["images/stack_000001.npz", "template1/structure.npz", "displacements_set.pt"]


@pytest.mark.parametrize(
    "damage", [cut_short, turn_a_byte, lambda path: path.write_bytes(b""), Path.unlink]
)
def test_what_lies_beside_results_is_verified_and_written_again(
    inputs, done, output, damage, caplog
):
    structures, (star, _) = inputs
    records = {path: path.stat().st_mtime_ns for path in output.glob("template*/done/*.json")}
    for name in BESIDE:
        damage(output / name)
    findings = "\n".join(cld.verify_likelihood(output, n_samples=0).findings)
    assert all(f"{output / name}: " in findings for name in BESIDE), findings
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        again = run(output, structures, star, skip_exist=True)
    assert "6 of 6 stacks are complete and kept" in caplog.text
    assert all(f"{Path(name).name} is written again: " in caplog.text for name in BESIDE)
    assert again.load().identical(expected(done, output))
    assert cld.verify_likelihood(output, n_samples=0).ok
    assert {path: path.stat().st_mtime_ns for path in records} == records


def test_a_description_of_another_stack_or_structure_is_found_out(inputs, done, output):
    structures, (star, _) = inputs
    shutil.copy(output / "images/stack_000000.npz", output / "images/stack_000001.npz")
    shutil.copy(output / "template0/structure.npz", output / "template1/structure.npz")
    findings = cld.verify_likelihood(output, n_samples=0).findings
    assert [finding.split(" than ")[0] for finding in findings] == [
        f"{output}/{name}: was made from other inputs" for name in BESIDE[:2]
    ]
    assert run(output, structures, star, skip_exist=True).load().identical(expected(done, output))


def test_a_description_of_other_types_is_one_error(inputs, output):
    structures, (star, _) = inputs
    for name, key, value, said in [
        (BESIDE[0], "n_images", "many", "n_images='many' is not"),
        (BESIDE[0], "n_images", 4, "angleRotation is not one value for each of its 4 images"),
        (
            BESIDE[0],
            "metadataRow",
            np.zeros(2, np.int64),
            "metadataRow is not one value for each of its 3 images",
        ),
        (BESIDE[0], "files", np.zeros(3), "entry 'files' has shape"),
        (BESIDE[0], "frame", np.array(["xy", "xy"]), "entry 'frame' has shape"),
        (BESIDE[1], "azimuth", np.zeros((2, 2)), "entry 'azimuth' has shape"),
        (BESIDE[1], "polar", "north", "entry 'polar' has shape"),
        (BESIDE[1], "structure", np.array(["a", "b"]), "entry 'structure' has shape"),
    ]:
        before = (output / name).read_bytes()
        with np.load(output / name) as archive:
            entries = {**archive, key: value}
        np.savez(output / name, **entries)
        with pytest.raises(InputFileError, match=f"{name}: {said}"):
            cld.open_results(output)
        assert f"{name}: {said}" in "".join(cld.verify_likelihood(output, n_samples=0).findings)
        if key in ("n_images", "structure"):
            assert run(output, structures, star, skip_exist=True).sizes["image"] == 9
        (output / name).write_bytes(before)


def test_descriptions_are_the_same_bytes_whatever_the_seed_of_hashes(inputs, tmp_path):
    """Entries stand in an order of their own, never in that of a set."""
    _, (star, _) = inputs
    stacks = tmp_path / "stacks"
    cld.convert_particles(star, PARAMETERS, stacks, batch_size=3, progress=False)
    files = cld.configure_likelihood_files(None, stacks, tmp_path / "out")
    lazy = cld.open_particles(star, PARAMETERS, batch_size=3)
    whole = cld.open_images(files, PARAMETERS)
    for n, images in enumerate((lazy, whole, whole[2:7], cld.open_images(files, PARAMETERS, 1))):
        path = tmp_path / f"{n}.npz"
        describe_images(path, images, [{"name": "x"}]).write()
        with np.load(path) as archive:
            names = [name for name in archive.files if name in PER_IMAGE]
        assert names == [name for name in PER_IMAGE if name in names]
        assert len(names) > 5


def test_results_without_a_claim_are_done(inputs, output, caplog):
    structures, (star, _) = inputs
    (output / ".claim-results.json").unlink()
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        run(output, structures, star, skip_exist=True)
    assert "6 of 6 stacks are complete and kept" in caplog.text


def test_records_that_were_edited_are_one_error_or_computed_again(inputs, done, output, caplog):
    structures, (star, _) = inputs
    path = output / "template0/done/stack_000000.json"
    record = json.loads(path.read_text())
    for change in (
        {"settings": []},
        {"structure": 3},
        {"settings": {**record["settings"], "search": None}},
    ):
        path.write_text(json.dumps(record | change))
        (key,) = change
        for use in (cld.open_results, cld.write_report):
            with pytest.raises(InputFileError, match=rf"{path}: says {key}="):
                use(output)
        assert f"says {key}=" in "".join(cld.verify_likelihood(output, n_samples=0).findings)
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        assert (
            run(output, structures, star, skip_exist=True).load().identical(expected(done, output))
        )
    assert "5 of 6 stacks are complete and kept" in caplog.text


def test_a_link_in_place_of_the_table_of_blocks_is_not_followed(inputs, tmp_path):
    structures, (star, _) = inputs
    (tmp_path / "out").mkdir()
    (tmp_path / "mine").write_text("notes")
    (tmp_path / "out/blocks.csv").symlink_to(tmp_path / "mine")
    with pytest.raises(OutputError, match=r"blocks\.csv: is a link. Remove it"):
        run(tmp_path / "out", structures, star)
    assert (tmp_path / "mine").read_text() == "notes"


# --- disks that take nothing ---


@contextmanager
def taking_nothing(folder):
    """A folder on a disk that is mounted for reading only; or, for users that may not mount, one
    of such an owner."""
    if os.geteuid():
        paths = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
        for path in paths:
            path.chmod(0o555)
        try:
            yield
        finally:
            for path in paths:
                path.chmod(0o755)
        return
    try:
        subprocess.run(["mount", "--bind", folder, folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this root may not mount: {error}")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True, capture_output=True)
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_results_on_a_disk_that_takes_nothing_are_read_and_count_as_done(
    inputs, done, output, tmp_path, caplog
):
    structures, (star, _) = inputs
    with taking_nothing(output):
        with caplog.at_level(logging.INFO, "cryolike_dask"):
            assert (
                run(output, structures, star, skip_exist=True)
                .load()
                .identical(expected(done, output))
            )
        assert "6 of 6 stacks are complete and kept" in caplog.text
        assert cld.verify_likelihood(output, n_samples=0).ok
        cld.write_report(output, tmp_path / "report.html", n_examples=0)
        with pytest.raises(OutputError, match=r"out/\S+: cannot be written"):
            run(output, structures, star)
    for name in BESIDE:
        shutil.copy(output / name, tmp_path / "kept")
        cut_short(output / name)
        with (
            taking_nothing(output),
            pytest.raises(OutputError, match="out: cannot be written, and 1 of the results"),
        ):
            run(output, structures, star, skip_exist=True)
        shutil.copy(tmp_path / "kept", output / name)


def test_inputs_on_a_disk_that_takes_nothing_count_as_done(inputs, tmp_path):
    structures, (star, _) = inputs
    stacks, templates = tmp_path / "stacks", tmp_path / "templates"
    convert = partial(
        cld.convert_particles,
        star,
        PARAMETERS,
        stacks,
        batch_size=3,
        progress=False,
        skip_exist=True,
    )
    make = partial(
        cld.make_templates, structures, PARAMETERS, templates, progress=False, skip_exist=True
    )
    made = convert(), make()
    with taking_nothing(stacks), taking_nothing(templates):
        assert (convert(), make()) == made
    (stacks / "done/stack_000001.json").unlink()
    (templates / "template_file_list.npy").unlink()
    with taking_nothing(stacks), taking_nothing(templates):
        for again in (convert, make):
            with pytest.raises(
                OutputError, match="cannot be written, and 1 of the results that belong there"
            ):
                again()
