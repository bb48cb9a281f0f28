"""How stacks are cut into blocks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cryolike_dask.likelihoods.cutting import (
    IMAGE,
    POSES_PER_BLOCK,
    REPEATED,
    SETTLED,
    TASKS_PER_WORKER,
    TEMPLATE,
    Cut,
    Work,
)

STANDARD = Work(1024, 208, 257)


def repeated(work, parts):
    return work.repeated(*map(np.array, parts)).item()


def test_what_is_repeated_is_what_blocks_do_beyond_the_stack():
    m, s, d = 1024, 208, 257
    whole, halves = m * s * d + m * IMAGE + s * d * TEMPLATE, 0
    for n, k in ((512, 52), (512, 156)):
        halves += 2 * (n * k * d + n * IMAGE + k * d * TEMPLATE)
    again = (halves - whole) / (whole + m * SETTLED)
    assert repeated(Work(m, s, d), (2, 2)) == pytest.approx(again)


@pytest.mark.parametrize("device", POSES_PER_BLOCK)
@pytest.mark.parametrize("n_workers", [0, 1, 2, 3, 16])
@pytest.mark.parametrize("n_stacks", [1, 2, 4, 17, 5000])
def test_all_workers_have_something_to_do_and_little_is_repeated(rng, n_stacks, n_workers, device):
    for _ in range(5):
        m, s, d = np.exp(rng.uniform(0, np.log([3000, 3000, 1000]))).astype(int).tolist()
        work = Work(m, s, d)
        along_images, along_templates = Cut(n_workers, n_stacks, device).parts(work)
        n_blocks = along_images * along_templates
        pairs = math.ceil(m / along_images) * math.ceil(s / along_templates)
        assert pairs * d <= POSES_PER_BLOCK[device]
        assert along_images <= m
        assert along_templates <= s
        is_large = m * s * d > POSES_PER_BLOCK[device]
        if not is_large:
            assert n_blocks <= max(1, TASKS_PER_WORKER * n_workers / n_stacks)
        if n_workers <= n_stacks and not is_large:
            assert repeated(work, (along_images, along_templates)) <= REPEATED
        if m * s > 2 * n_workers:
            assert n_blocks * n_stacks >= n_workers


def test_the_standard_case():
    """Many stacks are not cut; few are, where it repeats least."""
    cuts = {
        (0, 1): (1, 1),
        (2, 1): (2, 1),
        (2, 4): (1, 1),
        (2, 16): (1, 1),
        (16, 1): (4, 4),
        (16, 4): (2, 2),
    }
    assert {key: Cut(*key, "cpu").parts(STANDARD) for key in cuts} == cuts
    assert Cut(2, 1, "cpu").parts(Work(1024, 2000, 1))[1] == 1, "images are the work"


def test_settling_the_best_poses_of_images_takes_a_cut_along_images():
    """Of one block for each worker, a cut along templates would repeat less."""
    one, two = np.array(1), np.array(2)
    assert STANDARD.repeated(one, two) < STANDARD.repeated(two, one)
    assert STANDARD.of_settling(two) == STANDARD.of_settling(one) / 2
    assert Cut(2, 1, "cpu").parts(STANDARD) == (2, 1)


def test_chunks_of_stacks(build):
    images, templates = build.stacks()
    cut = Cut(4, 1, "cpu")
    images, templates = cut.stacks(images, templates)
    assert sum(images.chunks) == 5
    assert sum(templates.chunks) == 7
    assert len(images.chunks) * len(templates.chunks) >= 4
    assert len(cut.images_alone(images).chunks) == 3, "of five images, two, two and one"
    assert Cut(4, 4, "cpu").images_alone(images).chunks == (5,)
    assert Cut(0, 1, "cpu").images_alone(images).chunks == (5,)
