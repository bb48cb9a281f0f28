"""The command that chooses frames which stand for a trajectory."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from cryolike_dask.cli.app import app
from cryolike_dask.cli.console import errors_for_people, out, say
from cryolike_dask.cli.options import Every, Overwrite, TrajectoryFrames
from cryolike_dask.labels import SubsetMethod


@app.command()
def subset(
    *,
    trajectory: Annotated[
        Path, typer.Argument(help="XTC, TRR, DCD, or what else MDAnalysis reads.")
    ],
    topology: Annotated[
        Path, typer.Option(help="A PDB file, say, of the same atoms in their order.")
    ],
    n: Annotated[int, typer.Option("--n", help="Frames that are chosen.")],
    output: Annotated[
        Path,
        typer.Option(help="Folder for frames.txt, counts.txt and assignment.csv; it is created."),
    ],
    by: Annotated[
        str,
        typer.Option(
            help="rmsd: of atoms, superposed; or a text file of features, a line for each frame."
        ),
    ] = "rmsd",
    method: Annotated[
        SubsetMethod,
        typer.Option(
            help="farthest: as far from each other as can be; clusters: the middles of clusters."
        ),
    ] = "farthest",
    selection: Annotated[
        str | None,
        typer.Option(help="Atoms that are superposed. Default: name CA; or all that are heavy."),
    ] = None,
    frames: TrajectoryFrames = None,
    every: Every = 1,
    overwrite: Overwrite = False,
) -> None:
    """Choose frames that stand for all of a trajectory, and say for how many each does.

    Other commands take them with --frames OUTPUT/frames.txt.
    """
    with errors_for_people():
        from cryolike_dask.structures.trajectories.subset import (
            choose_subset,
            refuse_subset,
            write_subset,
        )
        from cryolike_dask.structures.trajectories.trajectory import Trajectory

        refuse_subset(output, overwrite=overwrite)
        say("reading frames ...")
        found = choose_subset(
            Trajectory(trajectory, topology, frames, every, selection),
            n,
            by=by,
            method=method,
            folder=next(p for p in output.absolute().parents if p.is_dir()),
        )
        written = write_subset(found, output, overwrite=overwrite)
        far, counts = found.distance, found.counts
        out.print(
            f"{len(found.structures):,} of {len(found.frames):,} frames, each for {counts.min():,} "
            f"to {counts.max():,}; frames are {far.mean():.3g} {found.unit} from theirs in the "
            f"mean, {far.max():.3g} at most",
            highlight=False,
        )
        typed = shlex.join([str(trajectory), "--topology", str(topology)])
        out.print(
            f"Next: cryolike-dask templates {escape(typed)} --frames {escape(str(written[0]))} ...",
            highlight=False,
        )
