"""The cost of a run, as a value that prints itself."""

from __future__ import annotations

from dataclasses import dataclass

from cryolike_dask.errors import counted
from cryolike_dask.geometry.search_method import Adaptive
from cryolike_dask.labels import KindName
from cryolike_dask.notebook import html_table

ADAPTIVE = (
    "adaptive; tasks, poses, memory and time here are those of an exhaustive search. What is left "
    "out depends on the images: of images that tell nothing, nothing is, and steps that are coarse "
    "for the band are made finer for them"
)
"""What is said of a plan that does not know how much an adaptive search will leave out."""
TRIED = (
    "adaptive; {} spread over the run, tried under {}, are compared in the whole band with {} to "
    "{} of the poses that there are, {} on average. Time is by these; tasks and memory are those "
    "of an exhaustive search"
)
"""The same where some images have told."""
AROUND = (
    "{}; tasks, poses, memory and time here are those of an exhaustive search: what is near the "
    "recorded poses takes a small part of it"
)
"""The same of one around recorded poses."""


@dataclass(frozen=True)
class LikelihoodPlan:
    """The cost of a run, said beforehand.

    Attributes
    ----------
    kind : "optimal_pose" | "full_cross_correlation"
    n_structures, n_stacks, n_images, n_templates : int
        Templates of all structures together.
    n_poses_per_image : int
        (template, displacement, rotation) triples that each image is compared with, of all
        structures together.
    n_jobs, n_jobs_done : int
        Stacks under structures; those that `skip_exist` leaves alone. What follows is of the
        others.
    n_tasks : int
        Blocks.
    n_workers : int
    device : "cpu" | "cuda"
    read_bytes : int
        By all blocks; each reads its images and its templates, often from the cache of the system.
    written_bytes, free_disk_bytes : int
    block_bytes, device_free_bytes : int
        On the device, of the largest block; what is free there for one worker.
    worker_bytes, worker_memory_bytes : int
        Of a worker process at its highest; what it may use.
    tile : (int, int)
        Images and templates that are compared at a time.
    noise : str
        What noise is taken for.
    search : str
        Tasks, poses and memory are those of an exhaustive search, whichever it is; so is the time,
        unless some images have told how much an adaptive one leaves out.
    parts_compared : tuple of float
        With how many poses each image of a trial of an adaptive search is compared in the whole
        band, as a part of those that there are under the first structure, more than 1 where its
        steps are finer; empty: none was tried.
    gpu : str
        The GPU of each worker, and how fast it is: measured, or an estimate by stated rates; empty:
        none.
    noise_seconds : float or None
        Of all workers together, to estimate the noise and to fit a B-factor; 0 where neither is to
        be done.
    basis_seconds, read_seconds, compare_seconds : float or None
        Of all workers together: making radial bases; reading, which projects and transforms what is
        not in files; and comparing. None: not measured; of an adaptive search reading is a part of
        comparing.
    seconds, least_seconds, most_seconds : float or None
        From the start of the run to its end.
    """

    kind: KindName
    n_structures: int
    n_stacks: int
    n_images: int
    n_templates: int
    n_poses_per_image: int
    n_jobs: int
    n_jobs_done: int
    n_tasks: int
    n_workers: int
    device: str
    read_bytes: int
    written_bytes: int
    free_disk_bytes: int
    block_bytes: int
    device_free_bytes: int
    worker_bytes: int
    worker_memory_bytes: int
    tile: tuple[int, int]
    noise: str = "white"
    search: str = "exhaustive"
    parts_compared: tuple[float, ...] = ()
    gpu: str = ""
    noise_seconds: float | None = None
    basis_seconds: float | None = None
    read_seconds: float | None = None
    compare_seconds: float | None = None
    seconds: float | None = None
    least_seconds: float | None = None
    most_seconds: float | None = None

    def _less(self) -> str:
        if self.parts_compared:
            parts = self.parts_compared
            least, mean, most = (
                part_of(part) for part in (min(parts), sum(parts) / len(parts), max(parts))
            )
            under = "its structure" if self.n_structures == 1 else "the first structure"
            return TRIED.format(counted(len(parts), "image"), under, least, most, mean)
        return AROUND.format(self.search) if Adaptive.named(self.search) is None else ADAPTIVE

    def line(self) -> str:
        """Give the plan in one line."""
        where = counted(self.n_workers, "worker")
        about = (
            f"about {duration_of(self.seconds)} on {where}"
            if self.seconds is not None
            else f"on {where}"
        )
        what = f"{counted(self.n_structures, 'structure')} x {counted(self.n_images, 'image')}"
        stacks, tasks = counted(self.n_stacks, "stack"), counted(self.n_tasks, "task")
        return f"{what} ({stacks}): {tasks}, {about}, {size_of(self.written_bytes)} written"

    def __str__(self) -> str:
        rows = self._rows()
        return "\n".join([self.line(), *(f"  {name:<8}{value}" for name, value in rows.items())])

    def _repr_html_(self) -> str:
        return html_table(self.line(), self._rows())

    def _rows(self) -> dict[str, str]:
        return {
            "poses": f"{self.n_poses_per_image:,} per image, of "
            f"{counted(self.n_templates, 'template')}",
            "done": f"{self.n_jobs_done:,} of {self.n_jobs:,} stacks (counted under each "
            f"structure)",
            "disk": f"{size_of(self.read_bytes)} read, {size_of(self.written_bytes)} written, "
            f"{size_of(self.free_disk_bytes)} free",
            "memory": f"{size_of(self.worker_bytes)} per worker of "
            f"{size_of(self.worker_memory_bytes)}; a block takes {size_of(self.block_bytes)} on "
            f"the {self.device}, of {size_of(self.device_free_bytes)} free, in tiles of "
            f"{self.tile[0]} images x {self.tile[1]} templates",
            "noise": self.noise,
            **({} if self.search == "exhaustive" else {"search": self._less()}),
            **({"gpu": self.gpu} if self.gpu else {}),
            "time": self._time(),
        }

    def _time(self) -> str:
        if self.seconds is None or self.least_seconds is None or self.most_seconds is None:
            return "not measured"
        measured = {
            "bases": self.basis_seconds,
            "reading": self.read_seconds,
            "comparing": self.compare_seconds,
            "estimating noise": self.noise_seconds or None,
        }
        parts = {name: seconds for name, seconds in measured.items() if seconds is not None}
        of_workers = ", ".join(f"{name} {duration_of(seconds)}" for name, seconds in parts.items())
        between = f"{duration_of(self.least_seconds)} to {duration_of(self.most_seconds)}"
        work = duration_of(sum(parts.values()))
        return f"{between}; {work} of work for {counted(self.n_workers, 'worker')}: {of_workers}"


def part_of(part: float) -> str:
    """Write a part of something in percent."""
    return f"{100 * part:.2g}%" if part < 0.095 else f"{100 * part:.0f}%"


def size_of(n_bytes: int) -> str:
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if n_bytes >= unit:
            return f"{n_bytes / unit:.3g} {name}"
    return f"{n_bytes / 1e3:.3g} kB"


def duration_of(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    days, hours_of_day = divmod(hours, 24)
    return f"{days:,} d {hours_of_day} h" if days else f"{hours} h {minutes} min"
