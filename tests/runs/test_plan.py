"""What a plan says is what the run then does: its blocks, its files, its bytes; and what cannot
fit is refused."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

import cryolike_dask as cld
from cryolike_dask.cli import app
from cryolike_dask.errors import CannotFitError, InputError, OutputError
from cryolike_dask.io.sources import Files
from cryolike_dask.likelihoods import graph
from cryolike_dask.likelihoods.search import adaptive
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.runs import search_trial
from cryolike_dask.runs.envelope import CLIMBED
from cryolike_dask.runs.kinds import FULL_CROSS_CORRELATION, OPTIMAL_POSE
from cryolike_dask.runs.noise_cost import work_of_noise
from cryolike_dask.runs.noise_of_run import settle_noise
from cryolike_dask.runs.options import NoiseRequest
from cryolike_dask.runs.plan import JOB_SECONDS
from cryolike_dask.runs.run import open_run
from cryolike_dask.runs.search_trial import SearchTrial, templates_wanted
from cryolike_dask.runs.trial import memory_of, ranks_of
from cryolike_dask.stacks import ImageStack
from cryolike_dask.structures.atoms import Atoms

SEARCH = cld.configure_displacement(1.5, 3, 2)
PARAMETERS = cld.ImageParameters(12, 1.5, n_inplanes=20, viewing_distance=3.0, precision="single")
N_TEMPLATES = len(PARAMETERS.viewing_angles())
SIZES = (4, 3, 4)
RUNS = {
    "optimal_pose": cld.run_likelihood_optimal_pose,
    "full_cross_correlation": cld.run_likelihood_full_cross_correlation,
}


@pytest.fixture
def files(tmp_path, build):
    """Two structures and three stacks, two of them of one length."""
    files = cld.configure_likelihood_files(
        tmp_path / "templates", tmp_path / "particles", tmp_path / "out", i_template="all"
    )
    build.write_files(files, PARAMETERS, sizes=SIZES)
    return files


def plan(files, displacer=SEARCH, **options):
    """For this process alone, though other tests may have left a client."""
    defaults = {"measure": False, "n_workers": 0, "noise": "white"}
    return cld.plan_likelihood(files, PARAMETERS, displacer, **{**defaults, **options})


def blocks_of(monkeypatch):
    """Count the blocks of every graph that is built."""
    counted = []
    original = graph.ComparisonGraph.blockwise

    def counting(self, *arguments, **options):
        array = original(self, *arguments, **options)
        counted.append(array.npartitions)
        return array

    monkeypatch.setattr(graph.ComparisonGraph, "blockwise", counting)
    return counted


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("batches", [{}, {"n_images_per_batch": 3, "n_templates_per_batch": 5}])
def test_counts_and_bytes_are_those_of_the_run(files, monkeypatch, kind, batches):
    planned = plan(files, kind=kind, n_workers=None, **batches)
    assert (planned.n_structures, planned.n_stacks, planned.n_images) == (2, 3, 11)
    assert (planned.n_templates, planned.n_poses_per_image) == (
        2 * N_TEMPLATES,
        2 * N_TEMPLATES * 7 * 20,
    )
    assert (planned.n_jobs, planned.n_jobs_done) == (6, 0)
    assert not files.folder_output.exists(), "a plan writes nothing"
    counted = blocks_of(monkeypatch)
    # a plan counts comparisons, not the blocks that noise is estimated with
    RUNS[kind](files, PARAMETERS, SEARCH, progress=False, noise="white", **batches)
    assert planned.n_tasks == sum(counted)
    written = sum(
        path.stat().st_size for path in files.folder_output.glob("[ti]*/**/*") if path.is_file()
    )
    assert planned.written_bytes == pytest.approx(written, rel=0.05)


def test_blocks_on_workers_are_those_of_the_run(files, cluster, monkeypatch):
    planned = plan(files, client=cluster, n_workers=None, i_template=0, n_stacks=1)
    assert plan(files, n_workers=2, i_template=0, n_stacks=1).n_tasks == planned.n_tasks > 1
    counted = blocks_of(monkeypatch)
    cld.run_likelihood_optimal_pose(
        files, PARAMETERS, SEARCH, 0, 1, client=cluster, progress=False, noise="white"
    )
    assert planned.n_tasks == sum(counted)
    assert planned.n_workers == 2
    limits = [w["memory_limit"] for w in cluster.scheduler_info(n_workers=-1)["workers"].values()]
    assert planned.worker_memory_bytes == min(limits)


def test_what_is_read_are_the_files(files):
    images = sum(files.image_stack(k)[0].stat().st_size for k in range(3))
    templates = sum(path.stat().st_size for path in files.template_files())
    planned = plan(files, tolerance=0)
    assert planned.n_tasks == 6
    assert planned.read_bytes == pytest.approx(2 * images + 3 * templates, rel=0.1)
    assert plan(files).read_bytes == pytest.approx(2 * images + 6 * templates, rel=0.1), (
        "each basis reads a sample"
    )


def test_what_is_done_is_left_out(files):
    fresh = plan(files)
    cld.run_likelihood_optimal_pose(files, PARAMETERS, SEARCH, 0, 2, progress=False, noise="white")
    again = plan(files)
    assert again == replace(fresh, **volatile(again))
    planned = plan(files, skip_exist=True)
    assert (planned.n_jobs, planned.n_jobs_done, planned.n_tasks) == (6, 2, 4)
    assert planned.written_bytes == pytest.approx(fresh.written_bytes * 4 / 6, rel=0.02)
    cld.run_likelihood_optimal_pose(files, PARAMETERS, SEARCH, progress=False, noise="white")
    (files.folder_output / "template1/optimal_pose/optimal_template_stack_000002.pt").unlink()
    assert plan(files, skip_exist=True).n_jobs_done == 5
    cld.run_likelihood_optimal_pose(
        files, PARAMETERS, SEARCH, skip_exist=True, progress=False, noise="white"
    )
    finished = plan(files, skip_exist=True, measure=True)
    assert (finished.n_tasks, finished.seconds, finished.written_bytes) == (0, 0, 0)


def volatile(planned):
    """What the machine has free just now, and what follows from it."""
    names = ("free_disk_bytes", "device_free_bytes", "worker_memory_bytes")
    return {name: getattr(planned, name) for name in names}


def test_results_of_another_run_are_refused_unless_they_are_to_be_replaced(files):
    cld.run_likelihood_optimal_pose(files, PARAMETERS, SEARCH, progress=False, noise="white")
    with pytest.raises(OutputError, match="conventions: standard there, cryolike here"):
        plan(files, conventions="cryolike")
    assert plan(files, conventions="cryolike", overwrite=True).n_jobs == 6


def test_time_is_that_of_blocks_bases_and_files_shared_among_workers(files):
    planned = plan(files, measure=True, n_workers=2)
    parts = (planned.basis_seconds, planned.read_seconds, planned.compare_seconds)
    assert min(parts) > 0
    parts += (planned.noise_seconds,)
    shared = (sum(parts) + 6 * JOB_SECONDS) / 2
    assert shared <= planned.seconds <= 1.5 * shared
    assert planned.least_seconds < planned.seconds < planned.most_seconds
    assert plan(files, measure=True, n_workers=0).n_workers == 1


def test_the_time_of_estimating_noise_is_planned(files):
    planned = plan(files, measure=True, noise="estimate")
    with_b_factor = plan(files, measure=True, noise="estimate", b_factor="fit")
    assert 0 < planned.noise_seconds < planned.seconds
    assert "estimating noise" in str(planned)
    settings = Settings("standard", "cpu", "default", None)
    opened = [
        open_run(files, PARAMETERS, SEARCH, settings, noise=asked)
        for asked in (NoiseRequest("estimate"), NoiseRequest("estimate", "fit"))
    ]
    without, fitted = (work_of_noise(settle_noise(run, ())) for run in opened)
    n_images, n_structures = 11, 2
    assert without.n_images == fitted.n_images == n_images
    assert without.n_pairs == n_images * n_structures * N_TEMPLATES
    assert fitted.n_pairs == without.n_pairs + n_images * (n_structures + CLIMBED) * N_TEMPLATES
    assert fitted.n_bases > without.n_bases > 0
    assert with_b_factor.noise_seconds > 0
    for noise in ("white", cld.NoiseModel.of_spectrum([0, 1], [1, 1], PARAMETERS.grid)):
        known = plan(files, measure=True, noise=noise)
        assert known.noise_seconds == 0
        assert "estimating noise" not in str(known)


@pytest.fixture
def with_levels(monkeypatch):
    """Bands as narrow as those of tests are searched coarse to fine."""
    monkeypatch.setattr(adaptive, "HALF_PIXELS", 4)


@pytest.mark.usefixtures("with_levels")
def test_an_adaptive_search_is_tried_on_some_images(files, monkeypatch):
    everything = plan(files, measure=True)
    assert everything.parts_compared == ()
    monkeypatch.setattr(search_trial, "MOST_TRIED", 6)
    planned = plan(files, measure=True, search="adaptive", n_workers=2)
    assert len(planned.parts_compared) == 6
    assert min(planned.parts_compared) > 0
    assert planned.read_seconds is None, "a part of searching"
    assert planned.compare_seconds > 0
    assert planned.least_seconds < planned.seconds < planned.most_seconds
    said = str(planned)
    assert "search  adaptive; 6 images spread over the run, tried under the first struct" in said
    assert re.search(r"time +[\d.]+ s to [\d.]+ s; .* of work .*: bases [\d.]+ s, comparing", said)
    without = plan(files, search="adaptive")
    assert "poses, memory and time here are those of an exhaustive search" in str(without)
    assert without.n_tasks == planned.n_tasks


@pytest.mark.usefixtures("with_levels")
def test_an_adaptive_search_is_tried_on_workers(files, cluster):
    planned = plan(files, measure=True, search="adaptive", client=cluster, n_workers=None)
    assert planned.n_workers == 2
    assert len(planned.parts_compared) == 11


def test_bands_without_levels_are_planned_as_they_are_searched(files):
    planned = plan(files, measure=True, search="adaptive")
    assert planned.parts_compared == ()
    assert planned.read_seconds > 0


def test_images_of_a_trial_are_spread_over_all_stacks(files, monkeypatch):
    run = open_run(files, PARAMETERS, SEARCH, Settings(device="cpu"))
    images = search_trial.some_images(run)
    np.testing.assert_array_equal(images.stack, np.repeat([0, 1, 2], SIZES))
    monkeypatch.setattr(search_trial, "MOST_TRIED", 4)
    images = search_trial.some_images(run)
    assert [*zip(images.stack, images.image_in_stack, strict=True)] == [
        (0, 0),
        (0, 3),
        (2, 0),
        (2, 3),
    ]
    values = run.images[2].source.take(np.array([3]))
    np.testing.assert_array_equal(images.source.take(np.array([3])), values)


def test_what_a_trial_says_of_more_images():
    """Ten images, each of which wants two of forty templates of its own."""
    wanted = np.zeros((10, 40), bool)
    for m in range(10):
        wanted[m, [2 * m, 2 * m + 1]] = True
    assert [templates_wanted(wanted, n) for n in (1, 5, 10)] == pytest.approx([2, 10, 20])
    assert 20 < templates_wanted(wanted, 11) < 22
    assert 39.9 < templates_wanted(wanted, 1000) <= 40
    trial = SearchTrial(0.0, 3.0, 0.2, 0.1, wanted, np.full(10, 0.05))
    assert trial.doubt == 0, "all are compared with as much"
    assert trial.seconds_of(10, 40) == pytest.approx([3 + 20 * 0.2 + 1] * 3)
    assert trial.seconds_of(5, 40) == pytest.approx([3 + 10 * 0.2 + 0.5] * 3)
    least, about, most = trial.seconds_of(1000, 40)
    assert least == pytest.approx(3 + 20 * 0.2 + 100), "of templates that are wanted by ten"
    assert most == pytest.approx(3 + 40 * 0.2 + 100), "of all"
    assert least < about < most
    assert trial.seconds_of(1000, 80) == pytest.approx((2 * least, 2 * about, 2 * most))
    uneven = replace(trial, parts_compared=np.array([0.01] * 9 + [0.41]))
    assert uneven.doubt > 0.5
    assert uneven.seconds_of(1000, 40)[2] > most
    assert replace(trial, parts_compared=np.ones(1)).doubt == 1


def test_time_on_workers(files, cluster):
    planned = plan(files, measure=True, client=cluster, n_workers=None)
    assert planned.n_workers == 2
    assert planned.seconds > 0


def test_without_measuring_there_is_no_time(files):
    planned = plan(files)
    assert planned.seconds is planned.least_seconds is planned.basis_seconds is None
    assert "time    not measured" in str(planned)
    assert planned.line().startswith("2 structures x 11 images (3 stacks): 6 tasks, on 1 worker, ")
    assert planned.line() == str(planned).splitlines()[0]


def test_lazy_inputs_are_projected_and_timed(files, rng):
    small, large = (Atoms(rng.normal(0, 2, (n, 3)), np.ones(n), np.ones(n)) for n in (10, 50000))
    lazily = replace(files, folder_templates=None)
    times = []
    for atoms in (small, large):
        templates = cld.open_structure(atoms, PARAMETERS)
        planned = plan(lazily, measure=True, templates=templates)
        assert planned.n_templates == N_TEMPLATES
        times.append(planned.read_seconds)
    assert times[1] > times[0], "projecting is part of reading"
    images = sum(files.image_stack(k)[0].stat().st_size for k in range(3))
    assert planned.read_bytes < 1.1 * images


def test_a_large_run_is_counted_not_built(files, build):
    one, n_stacks = cld.open_images(files, PARAMETERS, 0), 500
    images = ImageStack(
        Files(one.source.parts * n_stacks),
        one.grid,
        np.tile(one.optics, n_stacks),
        one.frame,
        np.repeat(np.arange(n_stacks), 4),
        np.tile(np.arange(4), n_stacks),
        (4,) * n_stacks,
    )
    templates = [cld.open_templates(files, PARAMETERS, 0)] * 40
    planned = plan(
        cld.configure_likelihood_files(None, None, files.folder_output, i_template="all"),
        images=images,
        templates=templates,
    )
    assert (planned.n_jobs, planned.n_tasks, planned.n_images) == (20000, 20000, 2000)
    assert "40 structures x 2,000 images (500 stacks): 20,000 tasks" in planned.line()


def test_blocks_of_a_full_correlation_larger_than_memory_are_refused(files):
    side = int(np.sqrt(psutil.virtual_memory().total / (4 * N_TEMPLATES * 20 * 4))) | 1
    with pytest.raises(
        CannotFitError, match=rf"4 x {N_TEMPLATES} x {side**2} x 20 .* takes [\d.e+]+ GB"
    ):
        plan(
            files,
            cld.configure_displacement(1.0, side, side),
            kind="full_cross_correlation",
            n_images_per_batch=4,
            n_templates_per_batch=N_TEMPLATES,
        )
    assert not files.folder_output.exists()


def test_results_larger_than_the_disk_are_refused_with_what_would_fit(files):
    free = psutil.disk_usage(str(files.folder_particles)).free
    side, n = 51, 40
    one = cld.open_images(replace(files, n_stacks=1), PARAMETERS)
    each = n * N_TEMPLATES * side**2 * 20 * 4
    n_stacks = int(1.5 * free / each) + 1
    images = one[np.zeros(n * n_stacks, int)].chunk(n)
    with pytest.raises(
        CannotFitError, match=r"take [\d.e+]+ [GT]B, .* free. That is enough for [\d,]+ of"
    ) as refusal:
        plan(
            replace(files, folder_particles=None),
            cld.configure_displacement(1.0, side, side),
            i_template=0,
            kind="full_cross_correlation",
            images=images,
        )
    fitting, of = (
        int(x.replace(",", ""))
        for x in re.search(r"for ([\d,]+) of ([\d,]+) images", str(refusal.value)).groups()
    )
    assert of == len(images)
    assert fitting == pytest.approx(of / 1.5, rel=0.1)


def test_a_block_that_cannot_be_made_small_enough_is_refused_with_what_would_fit(files):
    n = psutil.virtual_memory().total // (20 * 7 * 4)
    side = int(np.sqrt(n)) // 4 | 1
    with pytest.raises(
        CannotFitError, match=rf"at {side**2:,} displacements take [\d.]+ GB on the cpu, but"
    ) as refusal:
        plan(files, cld.configure_displacement(1.0, side, side), device="cpu", n_workers=64)
    fitting = int(
        re.search(r"At most ([\d,]+) displacements would fit", str(refusal.value))[1].replace(
            ",", ""
        )
    )
    assert 0 < fitting < side**2


def test_more_workers_than_the_memory_is_enough_for_are_refused(files):
    n = psutil.virtual_memory().total // 300_000_000
    with pytest.raises(
        CannotFitError, match=r"a worker takes \d+ MB, .* is enough for \d+ workers"
    ):
        plan(files, n_workers=n)


def test_memory_grows_with_the_tile(files):
    images, templates = cld.open_images(files, PARAMETERS), cld.open_templates(files, PARAMETERS, 0)
    comparison = graph.ComparisonGraph(images, SEARCH(templates), Settings(device="cpu")).comparison
    ranks = ranks_of((), comparison)
    taken = [
        memory_of(comparison, ranks, tile, (4, 5), OPTIMAL_POSE, "cpu") for tile in ((1, 1), (4, 5))
    ]
    assert taken[0].least < taken[0].total < taken[1].total
    assert taken[0].least == taken[1].least
    whole = memory_of(comparison, ranks, (1, 1), (4, 5), FULL_CROSS_CORRELATION, "cpu")
    assert whole.result == 4 * 5 * 7 * 20 * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "poses"}, "kind='poses'"),
        ({"n_workers": -1}, "n_workers=-1"),
        ({"gpu": "MI300X"}, "gpu='MI300X' is no GPU whose rates are known.*H100"),
        ({"n_stacks": 9}, r"n_stacks=9, but .* has \d image stack\(s\)"),
    ],
)
def test_nonsense_is_refused(files, options, message):
    with pytest.raises(InputError, match=message):
        plan(files, **options)


def on_scheduler(command, options):
    """What the command says of a running cluster."""
    arguments = [*command[:-2], *options]
    return CliRunner().invoke(app, [str(a) for a in arguments]).stdout


def test_the_command(files, reaching_the_cluster):
    folders = ["--templates", files.folder_templates, "--particles", files.folder_particles]
    search = ["--max-displacement-pixels", 1.5, "--n-displacements-x", 3, "--n-displacements-y", 2]
    command = [
        "plan",
        *folders,
        "--output",
        files.folder_output,
        *search,
        "--i-template",
        "all",
        "--workers",
        2,
    ]
    said = CliRunner().invoke(app, [str(a) for a in command])
    assert said.exit_code == 0, said.stderr
    assert re.search(
        r"2 structures x 11 images \(3 stacks\): \d+ tasks, about [\d.]+ s on 2 workers, [\d.]+ kB",
        said.stdout,
    )
    assert re.search(r"time +[\d.]+ s to [\d.]+ s; .* of work for \d+ workers?: bases", said.stdout)
    assert re.search(r"2 structures .* on 2 workers", on_scheduler(command, reaching_the_cluster))
    command += ["--no-measure", "--kind", "full-cross-correlation"]
    said = CliRunner().invoke(app, [str(a) for a in command])
    assert "not measured" in said.stdout
    assert not files.folder_output.exists()
