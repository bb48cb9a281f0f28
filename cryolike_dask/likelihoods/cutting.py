"""How a stack is cut into blocks, so that workers have something to do and little is done twice
(numpy only).

A block prepares its images and its templates and compares them, so that a cut along templates
prepares images again, and one along images prepares templates again. What is repeated stays below
`REPEATED` of the work of a stack, unless workers would have nothing to do. When all blocks of some
images are done, one more task settles their best poses, which only a cut along images shares.

How a stack is cut depends on the number of workers and of stacks, never on time: the same run on as
many workers is cut in the same way again, and gives the same bits; on more or fewer, sums are
rounded in another order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sized
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.stacks import ImageStack, TemplateStack

IMAGE, TEMPLATE, SETTLED = 1300, 40, 1750
"""What preparing takes, where comparing an image with a template at one displacement takes 1: an
image as much as so many of these; a template, for each displacement, as much as so many images. And
what settling the best pose of an image takes. Measured on a CPU at the standard case: 0.84
microseconds, 1.1 ms, 8 to 10 ms for 257 displacements, 1.5 ms. All of it grows with the square of
the band."""
REPEATED = 0.05
"""Part of the work of a stack."""
POSES_PER_BLOCK = {"cpu": 2**27, "cuda": 2**28}
"""(image, template, displacement) triples of a block: on a CPU 143 seconds in the standard case."""
TASKS_PER_WORKER = 4
"""Blocks per worker at most, where there are fewer stacks than that."""
UNEVEN = 0.04
"""Part of a block for which workers wait in the end, since none is as fast as another."""
WITHHELD = 2**21
"""Triples of a block from which on the blocks after it wait at the scheduler: two seconds of a CPU.
A worker that is given the next block before begins with it at once, and what it has found waits
behind that one, and again behind the next, before it is written. For an answer of the scheduler a
worker waits some milliseconds: smaller blocks, and all of GPUs, lie ready with the workers."""
PREPARED = 150
"""What preparing templates for a chunk of images takes of a search that compares these with some
templates each: as much as so many images."""
MOST_ALONG = 128
"""Ways to cut along images, and along templates, that are looked at."""

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Work:
    """What a stack is under one structure: images, templates, and displacements of each."""

    n_images: int
    n_templates: int
    n_displacements: int

    def of_block(self, along_images: Counts, along_templates: Counts) -> NDArray[np.float64]:
        """Work of the largest block of a stack in so many parts."""
        m, s = -(-self.n_images // along_images), -(-self.n_templates // along_templates)
        of_templates = float(TEMPLATE) * s * self.n_displacements
        return m * s * self.n_displacements + m * IMAGE + of_templates

    def of_settling(self, along_images: Counts) -> NDArray[np.float64]:
        """Work of settling the best poses of the largest of so many parts of a stack."""
        settled: NDArray[np.float64] = -(-self.n_images // along_images) * np.float64(SETTLED)
        return settled

    @property
    def whole(self) -> float:
        """Work of a stack that is not cut."""
        one = np.ones(1, np.int64)
        return float((self.of_block(one, one) + self.of_settling(one)).item())

    def repeated(self, along_images: Counts, along_templates: Counts) -> NDArray[np.float64]:
        """Part of the work of a stack that is done again where it is cut into so many parts."""
        of_templates = self.n_templates * self.n_displacements * TEMPLATE
        again = (along_templates - 1) * self.n_images * IMAGE + (along_images - 1) * of_templates
        part: NDArray[np.float64] = again / self.whole
        return part

    def poses(self, along_images: Counts, along_templates: Counts) -> Counts:
        """(image, template, displacement) triples of the largest block."""
        m, s = -(-self.n_images // along_images), -(-self.n_templates // along_templates)
        return m * s * self.n_displacements


@dataclass(frozen=True)
class Cut:
    """How fine stacks are cut.

    Attributes
    ----------
    n_workers : int
        0: this process.
    n_stacks : int
        All that they have to do, each under one structure.
    device : "cpu" | "cuda"
    """

    n_workers: int
    n_stacks: int
    device: str

    def parts(self, work: Work) -> tuple[int, int]:
        """Parts along images and along templates, so that all stacks are done soonest."""
        along_images, along_templates = np.meshgrid(
            _counts(work.n_images), _counts(work.n_templates), indexing="ij"
        )
        n_workers = max(1, self.n_workers)
        per_stack, poses = along_images * along_templates, work.poses(along_images, along_templates)
        # a stack that is larger than a block is cut, whoever does it
        fits = poses <= max(POSES_PER_BLOCK[self.device], int(poses.min()))
        most = max(TASKS_PER_WORKER * n_workers / self.n_stacks, int(per_stack[fits].min()), 1)
        allowed = fits & (per_stack <= most)
        is_enough = allowed & (per_stack * self.n_stacks >= n_workers)
        repeats_little = work.repeated(along_images, along_templates) <= REPEATED
        for better in (is_enough, repeats_little):
            allowed = allowed & better if (allowed & better).any() else allowed
        rounds = np.ceil(per_stack * self.n_stacks / n_workers)
        uneven = UNEVEN if n_workers > 1 else 0
        seconds = (rounds + uneven) * work.of_block(along_images, along_templates)
        rounds_of_settling = np.ceil(along_images * self.n_stacks / n_workers)
        seconds += rounds_of_settling * work.of_settling(along_images)
        best = np.where(allowed, seconds, math.inf).argmin()
        return int(along_images.flat[best]), int(along_templates.flat[best])

    def stacks(
        self, images: ImageStack, templates: TemplateStack
    ) -> tuple[ImageStack, TemplateStack]:
        """Both, cut into chunks."""
        work = Work(len(images), len(templates), len(templates.displacements))
        along_images, along_templates = self.parts(work)
        return (
            images.chunk(even_chunks(len(images), -(-len(images) // along_images))),
            templates.chunk(even_chunks(len(templates), -(-len(templates) // along_templates))),
        )

    def withholds(self, images: ImageStack, templates: TemplateStack) -> bool:
        """Whether blocks of these wait at the scheduler until a worker has nothing else to do."""
        n_poses = len(images) * len(templates) * len(templates.displacements)
        n_blocks = len(images.chunks) * len(templates.chunks or (1,))
        return self.n_workers > 0 and self.device == "cpu" and n_poses >= WITHHELD * n_blocks

    def images_alone(self, images: ImageStack) -> ImageStack:
        """Images of a search that compares them with some templates each, cut so that every worker
        has some and all stacks are done soonest.

        A level of such a search takes all views of an image, and poses are left out by what the
        best ones before them are worth. Measured, 256 images under 208 templates, coarse to fine:
        each further chunk of images takes 9 seconds, for templates are prepared again, beside 24
        for all; two chunks of templates take 44% more than one.
        """
        n_images, n_workers = len(images), max(1, self.n_workers)
        fewest = min(n_images, -(-n_workers // self.n_stacks))
        counts = np.arange(fewest, min(n_images, TASKS_PER_WORKER * fewest) + 1)
        rounds = np.ceil(counts * self.n_stacks / n_workers)
        n_parts = int(counts[(rounds * (-(-n_images // counts) + PREPARED)).argmin()])
        return images.chunk(even_chunks(n_images, -(-n_images // n_parts)))


def largest_first(stacks: Mapping[int, Sized]) -> list[int]:
    """Numbers of stacks by size; those of one size in the order that they are given in."""
    return sorted(stacks, key=lambda k: -len(stacks[k]))


def even_chunks(n: int, size: int) -> tuple[int, ...]:
    """Chunks, as few as can be, of one size but for the last, which stores of arrays ask
    for."""
    n_chunks = -(-n // max(1, size))
    each = -(-n // n_chunks)
    return tuple(min(each, n - start) for start in range(0, n, each))


def _counts(n: int) -> Counts:
    """Numbers of parts of one size that n things can be in, those that are looked at."""
    few = np.arange(1, min(n, MOST_ALONG // 2) + 1)
    counts = np.concatenate([few, np.geomspace(1, n, MOST_ALONG // 2).astype(np.int64)])
    return np.unique(-(-n // -(-n // counts)))
