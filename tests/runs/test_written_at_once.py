"""What is found is written before the next block begins: whoever kills a run loses what is being
computed, and nothing that is done."""

from __future__ import annotations

import csv
import logging
from datetime import datetime

import pytest

import cryolike_dask as cld
from cryolike_dask.compute.local import SATURATION
from cryolike_dask.likelihoods import cutting

PARAMETERS = cld.ImageParameters(12, 1.5, n_inplanes=20, viewing_distance=0.35)
SEARCH = cld.configure_displacement(2.0, 27, 27)
"""Comparing 8 images takes half a second, and settling and writing a tenth of that."""


def blocks_of(folder):
    """Name, begin and end of each block, in seconds."""
    with open(folder / "blocks.csv") as file:
        rows = [
            (r["name"], datetime.fromisoformat(r["time"]).timestamp(), float(r["seconds"]))
            for r in csv.DictReader(file)
        ]
    return [(name, end - seconds, end) for name, end, seconds in rows]


def overtaken(files, names, n_stacks):
    """Stacks under structures whose results were not written when a block was done that began
    after all of theirs."""
    blocks, late = blocks_of(files.folder_output), []
    for i, structure in enumerate(names):
        for k in range(n_stacks):
            name = f"{structure}-stack_{k:06d}"
            found = max(end for of, _, end in blocks if of == name)
            written = files.record(i, k, "optimal_pose").stat().st_mtime
            if any(found < begin and end < written for _, begin, end in blocks):
                late.append(name)
    return late


@pytest.mark.parametrize(("names", "n_blocks"), [("abcdef", 6), ("abc", 6)])
def test_results_are_written_before_another_block_begins(
    tmp_path, build, cluster, monkeypatch, caplog, names, n_blocks
):
    monkeypatch.setattr(cutting, "WITHHELD", 2**16)  # these take less than blocks of a run
    files = cld.configure_likelihood_files(
        tmp_path / "templates", tmp_path / "particles", tmp_path / "out", i_template="all"
    )
    build.write_files(files, PARAMETERS, structures=tuple(names), sizes=(8,))
    cld.run_likelihood_optimal_pose(
        files, PARAMETERS, SEARCH, client=cluster, progress=False, noise="white"
    )
    blocks = blocks_of(files.folder_output)
    assert len(blocks) == n_blocks
    assert not overtaken(files, names, 1)
    # what is kept is said before anything is computed
    files.record(1, 0, "optimal_pose").unlink()
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        cld.run_likelihood_optimal_pose(
            files, PARAMETERS, SEARCH, client=cluster, progress=True, skip_exist=True
        )
    n = len(names)
    kept = f"{n - 1} of {n} stacks are complete and kept; skip_exist=False computes them again"
    messages = [one.getMessage() for one in caplog.records if one.name == "cryolike_dask"]
    says, keeps, computes = messages[-3:]
    assert says.startswith(f"{n} structure(s) x 8 images in 1 stack(s)")
    assert keeps == kept
    assert computes.startswith("template1-stack_000000 is computed")


def test_schedulers_give_workers_nothing_beside_what_they_compute(cluster):
    def saturation(dask_scheduler):
        return dask_scheduler.WORKER_SATURATION

    assert cluster.run_on_scheduler(saturation) == SATURATION == 1
    before = cluster.cluster.scheduler
    before.WORKER_SATURATION = 1.1  # Dask's own
    cld.connect(cluster)
    assert cluster.run_on_scheduler(saturation) == SATURATION


@pytest.mark.parametrize(
    ("n_images", "device", "n_workers", "withheld"),
    [(2, "cpu", 2, True), (1, "cpu", 2, False), (2, "cuda", 2, False), (2, "cpu", 0, False)],
)
def test_only_long_blocks_of_cpus_are_withheld(
    build, monkeypatch, n_images, device, n_workers, withheld
):
    images, templates = build.stacks(n_images=n_images, n_templates=7)
    n_poses = 7 * len(templates.displacements)
    monkeypatch.setattr(cutting, "WITHHELD", 2 * n_poses)
    assert cutting.Cut(n_workers, 1, device).withholds(images, templates) is withheld
    # of two blocks each is half as long
    assert not cutting.Cut(n_workers, 1, device).withholds(images.chunk(1), templates)
