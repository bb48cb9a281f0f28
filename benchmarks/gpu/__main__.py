"""Does it run on this GPU, is it right, and how fast is it?

Every stage is a process with a limit of its own, the most valuable first: what a stage fails or
hangs at keeps none of the others. Findings are lines of JSON in a folder, and one table at last.

    python -m benchmarks.gpu [--out gpu_out] [--minutes 9.5] [--only fused block] [--dry]
    python -m benchmarks.gpu --count [--case standard] [--gpu H100]

`--dry` runs everything small on a CPU, to see that it works before it meets a GPU; `--count` needs
none either: launches, waits, bytes and flops of a block on a pretended GPU, and the rate that
follows by stated rates (`benchmarks.gpu.counts`).
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES
from benchmarks.gpu.bench import Bench
from cryolike_dask.compute.gpu_rates import gpu_named

STAGES = {
    "fused": ("correct", 120),
    "block": ("correct", 110),
    "speed": ("speed", 90),
    "contraction": ("speed", 45),
    "launches": ("waiting", 45),
    "kinds": ("correct", 45),
    "shapes": ("speed", 60),
    "memory": ("waiting", 45),
    "sizes": ("speed", 60),
    "projection": ("waiting", 45),
    "cluster": ("waiting", 60),
}
"""Where each is, and how many seconds it may take."""
LEAST_SECONDS = 10
IN_TABLE = (
    ("failed", "failed"),
    ("left_out", "left out"),
    ("G_triples_s", "G triples/s"),
    ("rate", "rate"),
    ("ns_each", "ns each"),
    ("ns_per_triple", "ns per triple"),
    ("ms_each", "ms each"),
    ("relative_error", "relative error"),
    ("nat", "nat off"),
    ("off_cross_correlation", "correlation off"),
    ("off_log_likelihood_integrated", "nat off"),
    ("off", "off"),
    ("other_poses", "other poses"),
    ("busy_fraction", "busy"),
    ("spills", "spills"),
    ("registers", "registers"),
    ("peak_MB", "peak MB"),
    ("planned_MB", "planned MB"),
    ("seconds", "s"),
    ("close_s", "s to close"),
    ("n", "times"),
)
"""What the table tells of a finding, and its heading there."""
NAMES = (
    "shape",
    "squared",
    "conventions",
    "precision",
    "tolerance",
    "device",
    "kind",
    "case",
    "ceiling",
    "unit",
    "step",
    "operands",
    "asked",
    "tile",
    "source",
    "compiled",
    "cluster",
    "workers",
    "call",
    "waits_at",
)
"""What says which finding it is."""


def run_stage(bench: Bench) -> int:
    """Run one stage in this process, and keep what it fails with."""
    module = importlib.import_module(f"benchmarks.gpu.{STAGES[bench.stage][0]}")
    try:
        getattr(module, bench.stage)(bench)
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"[:500]
        bench.say(failed=said, where=traceback.format_exc()[-1500:])
        return 1
    return 0


def run_apart(bench: Bench, seconds: float) -> str:
    """Run a stage in a process of its own, for so many seconds at most, and say how it ended."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--stage", bench.stage]
    command += ["--out", str(bench.out)] + ["--dry"] * bench.dry
    log = bench.out / f"{bench.stage}.log"
    started = time.perf_counter()
    with open(log, "w", encoding="utf-8") as file:
        try:
            done = subprocess.run(command, stdout=file, stderr=file, timeout=seconds, check=False)
            ended = "done" if done.returncode == 0 else f"failed ({done.returncode}), see {log}"
        except subprocess.TimeoutExpired:
            ended = f"stopped, see {log}"
            bench.say(failed=f"not done within {seconds:.0f} s")
    return f"{bench.stage}: {ended} after {time.perf_counter() - started:.0f} s"


def table(findings: list[dict[str, Any]]) -> str:
    """One line for each finding that has a number, or failed."""
    lines = []
    for finding in findings:
        told = {head: finding[key] for key, head in IN_TABLE if finding.get(key) is not None}
        if not told:
            continue
        name = ", ".join(f"{finding[key]}" for key in NAMES if finding.get(key) is not None)
        values = "  ".join(f"{head} {value}" for head, value in told.items())
        lines.append(f"{finding['stage']:<12}{name:<52}{values}")
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """The GPU, and the versions that it is used with."""
    import torch

    found: dict[str, Any] = {"python": sys.version.split()[0], "torch": torch.__version__}
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "cuda": torch.version.cuda,
            "gpu": properties.name,
            "memory_GB": properties.total_memory / 1e9,
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
        }
    return found


def run_all(out: Path, names: list[str], minutes: float, *, dry: bool) -> int:
    """Run stages one after the other, and print the table."""
    out.mkdir(parents=True, exist_ok=True)
    for name in STAGES:
        (out / f"{name}.jsonl").unlink(missing_ok=True)
    Bench("machine", out, dry).say(**machine())
    end, said = time.monotonic() + 60 * minutes, []
    for name in names:
        left = end - time.monotonic()
        if left < LEAST_SECONDS:
            said.append(f"{name}: no time left")
            continue
        said.append(run_apart(Bench(name, out, dry), min(left, STAGES[name][1])))
        print(said[-1], flush=True)
    findings = [
        json.loads(line)
        for name in names
        if (out / f"{name}.jsonl").exists()
        for line in (out / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    print(table(findings))
    failed = [finding for finding in findings if "failed" in finding]
    print(f"{len(findings)} findings, {len(failed)} failed; in {out}")
    return 1 if failed or not all(" done " in line for line in said) else 0


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("gpu_out"))
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--only", choices=STAGES, nargs="+", default=list(STAGES))
    parser.add_argument("--dry", action="store_true", help="small, on the CPU")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--count", action="store_true", help="on a pretended GPU")
    parser.add_argument("--case", choices=[case.name for case in CASES], default="standard")
    parser.add_argument("--gpu", default="H100", help="whose stated rates to take")
    options = parser.parse_args()
    if options.count:
        from benchmarks.gpu.counts import print_counts

        print_counts(next(c for c in CASES if c.name == options.case), gpu_named(options.gpu))
        return 0
    if not options.dry:
        import torch

        if not torch.cuda.is_available():
            print("this machine has no CUDA GPU; --dry runs all of it small on the CPU")
            return 2
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    if options.stage:
        return run_stage(Bench(options.stage, options.out, options.dry))
    names = [name for name in STAGES if name in options.only]
    return run_all(options.out, names, options.minutes, dry=options.dry)


if __name__ == "__main__":
    sys.exit(main())
