"""Do workers that are killed at random moments change a result?

Twenty runs on a scheduler and two workers, each a process, with one to three workers killed by
SIGKILL; the outputs of each are compared, byte for byte, with those of an undisturbed run. Exits 1
if any differ.

    python -m benchmarks.faults [--n-runs 20] [--seed 0]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from distributed import Client

import cryolike_dask as cld
from benchmarks.processes import killing, processes

PARAMETERS = cld.ImageParameters(32, 2.0, n_inplanes=64, viewing_distance=0.4)
SEARCH = cld.configure_displacement(2.0, 5, 5)
N_IMAGES, BATCH = 192, 16


def inputs(folder: Path) -> cld.LikelihoodFiles:
    """Particles of two random structures, in stacks of 16."""
    rng = np.random.default_rng(0)
    structures = [cld.Volume(rng.random((8, 8, 8), np.float32), (4.0, 4.0, 4.0)) for _ in range(2)]
    cld.make_templates(structures, PARAMETERS, folder / "templates", progress=False)
    star = cld.simulate_particles(
        structures, PARAMETERS, folder / "relion", n_images=N_IMAGES, progress=False
    )
    cld.convert_particles(star, PARAMETERS, folder / "particles", batch_size=BATCH, progress=False)
    return cld.configure_likelihood_files(
        folder / "templates", folder / "particles", folder / "out", i_template="all"
    )


def run(files: cld.LikelihoodFiles, client: Client) -> float:
    """Run, and give the seconds that it took."""
    start = time.perf_counter()
    cld.run_likelihood_optimal_pose(
        files, PARAMETERS, SEARCH, client=client, progress=False, device="cpu", noise="white"
    )
    return time.perf_counter() - start


def results(folder: Path) -> dict[str, bytes]:
    """Every result, byte for byte."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.pt")}


def main() -> None:
    """Kill workers in each run, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--n-runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    different = 0
    with tempfile.TemporaryDirectory() as name:
        files = inputs(Path(name))
        with processes(Path(name)) as client:
            undisturbed = run(files, client), results(files.folder_output)
            print(f"undisturbed: {undisturbed[0]:.1f} s, {len(undisturbed[1])} files")
            for seed in range(arguments.seed, arguments.seed + arguments.n_runs):
                rng = np.random.default_rng(seed)
                again = replace(files, folder_output=Path(name) / f"out-{seed}")
                with killing(client, rng, int(rng.integers(1, 4))) as killed:
                    seconds = run(again, client)
                same = results(again.folder_output) == undisturbed[1]
                different += not same
                print(
                    f"seed {seed}: {len(killed)} killed, {seconds:.1f} s, "
                    f"{'identical' if same else 'DIFFERENT'}"
                )
    print(f"{different} of {arguments.n_runs} runs differ")
    raise SystemExit(different > 0)


if __name__ == "__main__":
    main()
