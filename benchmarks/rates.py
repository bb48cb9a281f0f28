"""How fast whole blocks are on a GPU: triples and poses a second, the share of what the device can
do, launches and waits, energy; and beside them what others have published.

A triple is an image, a template and a displacement; all in-plane rotations of it are compared, so
that poses a second are as many times more. Others count poses where ours are these: an orientation
of the template and a place of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.gpu.bench import Bench, Setting, setting
from benchmarks.gpu.ceilings import measured_ceilings
from benchmarks.gpu.waiting import Profiled, profiled, waits_of
from cryolike_dask.compute.gpu_rates import find_gpu
from cryolike_dask.runs.roofline import SPLIT

N_IMAGES, N_TEMPLATES = 1024, 256
ENOUGH_SECONDS = 3.0
"""That energy is measured over at least."""
NOT_TOLD = "not told"
PER_MILLION = 1e6


@dataclass(frozen=True)
class Published:
    """A rate that was published, or is an estimate of ours.

    Attributes
    ----------
    name, device : str
    poses : (float, float)
        Poses a second, least and most.
    counts : str
        What a pose is there.
    """

    name: str
    device: str
    poses: tuple[float, float]
    counts: str


OTHERS = (
    Published(
        "Leopard-EM 1.1",
        "H100",
        (2.8e10, 2.8e10),
        "an orientation and a pixel of one image; best values, no integral. Highest published rate",
    ),
    Published(
        "Leopard-EM, newest FFT",
        "H100",
        (8e10, 1e11),
        "the same; promised, not shown",
    ),
)
ESTIMATES = (
    ("ours, estimate as first written", (0.15, 0.2)),
    ("ours, estimate by counts", (0.55, 0.55)),
    ("ours, estimate, the stretch", (0.85, 0.85)),
)
"""G triples a second of whole blocks on an H100, on paper: no GPU has run them."""
OURS = "an image, a view, a displacement and a rotation; best pose and integral over all"
ROTATIONS = 256
"""Of the standard case, which the estimates are of."""


@dataclass(frozen=True)
class Rates:
    """What was measured of whole blocks.

    Attributes
    ----------
    name : str
        Of the device.
    seconds : float
        Of a block.
    n_triples, n_rotations : int
    n_coefficients : int
        That are kept of a template.
    ceilings : dict
        Of the device, measured, as `measured_ceilings` gives them.
    profile : Profiled
    n_waits : int or None
        None: they cannot be counted here.
    joules : float or None
        Of a block; None: the driver does not tell.
    """

    name: str
    seconds: float
    n_triples: int
    n_rotations: int
    n_coefficients: int
    ceilings: dict[str, float]
    profile: Profiled
    n_waits: int | None
    joules: float | None

    @property
    def triples(self) -> float:
        """A second."""
        return self.n_triples / self.seconds

    @property
    def poses(self) -> float:
        """A second."""
        return self.triples * self.n_rotations

    def shares(self) -> dict[str, float]:
        """The part of the measured ceilings that products over shells reach in the time of a whole
        block, in halves of numbers as on tensor cores; and of the bandwidth, what writing and
        reading spectra of products takes of it."""
        flops = SPLIT * 8 * self.n_coefficients * self.triples
        n_bytes = 2 * 4 * 2 * (self.n_rotations // 2 + 1) * self.triples
        found = {"bandwidth": n_bytes / self.ceilings["copy"] / 1e12}
        if "float16" in self.ceilings:
            found["products"] = flops / self.ceilings["float16"] / 1e12
        return found

    def lines(self) -> list[str]:
        """All of it."""
        shares = ", ".join(f"{share:.0%} of {name}" for name, share in self.shares().items())
        of_waits = NOT_TOLD
        if self.n_waits is not None:
            of_waits = f"{self.n_waits / self.n_triples * PER_MILLION:.3g}"
        of_launches = self.profile.number("LaunchKernel") / self.n_triples * PER_MILLION
        energy = NOT_TOLD
        if self.joules is not None:
            energy = f"{self.joules / self.n_triples * 1e9:.3g} J for 1e9 triples"
        return [
            f"{self.name}: {self.triples / 1e9:.3g} G triples/s, {self.poses:.2g} poses/s "
            f"({self.n_rotations} rotations of each), {self.seconds:.3g} s a block",
            f"share of the device's ceilings: {shares}",
            f"for 1e6 triples: {of_launches:.3g} launches, {of_waits} waits; kernels run "
            f"{self.profile.busy / self.profile.wall:.0%} of the time",
            f"energy: {energy}",
        ]


def measure(bench: Bench, case: str = "standard") -> Rates:
    """Search whole blocks of a case."""
    one = setting(bench, N_IMAGES, N_TEMPLATES, case=case)
    seconds = bench.seconds(one.search, 3)
    grid = one.comparison.grid
    return Rates(
        name=name_of(bench),
        seconds=seconds,
        n_triples=one.n_triples,
        n_rotations=grid.n_inplanes,
        n_coefficients=sum(len(g) * g.shape[1] for g in one.basis),
        ceilings=measured_ceilings(bench.device, bench.seconds, small=bench.dry),
        profile=profiled(one, bench.device),
        n_waits=None if bench.dry else waits_of(one).total(),
        joules=joules_of(one, seconds, energy_counter()),
    )


def name_of(bench: Bench) -> str:
    """What the device calls itself, and whether its stated rates are known."""
    if bench.dry:
        return "CPU, dry"
    import torch

    name = torch.cuda.get_device_name()
    return f"{name} (stated: {known})" if (known := find_gpu(name)) else str(name)


def energy_counter() -> Callable[[], float] | None:
    """What gives the joules that the GPU has used so far; None where the driver does not tell."""
    try:
        nvml: Any = import_module("pynvml")
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByIndex(0)
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # the library, the driver, or the counter is not there
        return None
    return lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3


def joules_of(one: Setting, seconds: float, counter: Callable[[], float] | None) -> float | None:
    """Energy of a block, over as many as take some seconds."""
    if counter is None:
        return None
    n_blocks = max(1, round(ENOUGH_SECONDS / seconds))
    before = counter()
    for _ in range(n_blocks):
        one.search()
    return (counter() - before) / n_blocks


def beside_published(measured: Rates | None) -> str:
    """One table of rates, and what each counts."""
    rows = [(o.name, o.device, o.poses, None, o.counts) for o in OTHERS]
    for name, (least, most) in ESTIMATES:
        poses = (least * 1e9 * ROTATIONS, most * 1e9 * ROTATIONS)
        rows.append((name, "H100", poses, (least, most), OURS))
    if measured is not None:
        device, rate = measured.name.partition(" (")[0], measured.triples / 1e9
        rows.append(("ours, measured", device, (measured.poses,) * 2, (rate, rate), OURS))
    lines = [f"{'':<33}{'device':<16}{'poses/s':<20}{'G triples/s':<14}a pose is"]
    for name, device, poses, triples, counts in rows:
        of_triples = "" if triples is None else _range(triples)
        lines.append(f"{name:<33}{device:<16}{_range(poses):<20}{of_triples:<14}{counts}")
    as_fast = ", ".join(
        f"{poses / ROTATIONS / 1e9:.2g} G triples/s as {poses:.2g} poses/s"
        for poses in (OTHERS[0].poses[0], OTHERS[1].poses[1])
    )
    return "\n".join([*lines, f"with {ROTATIONS} rotations: {as_fast}"])


def _range(values: tuple[float, float]) -> str:
    least, most = (f"{value:.2g}" for value in values)
    return least if least == most else f"{least} to {most}"


def print_rates(out: Path, *, dry: bool, case: str = "standard") -> Rates:
    """Measure, and print all of it."""
    started = time.perf_counter()
    found = measure(Bench("rates", out, dry), case)
    print(f"\nwhole blocks of the {case} case")
    print("\n".join(found.lines()))
    print(beside_published(None if dry else found))
    print(f"{time.perf_counter() - started:.0f} s")
    return found
