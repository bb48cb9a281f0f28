"""The command that makes a data set and recovers its truth, or has a look at a few particles of
one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from cryolike_dask.cli.app import app
from cryolike_dask.cli.console import errors_for_people, out, say
from cryolike_dask.cli.inputs import need, need_each
from cryolike_dask.cli.options import PlaceOptions, client_in, takes_options
from cryolike_dask.cli.showing import histogram, open_page
from cryolike_dask.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from distributed import Client

    from cryolike_dask.simulation.own_particles import OwnInputs


@dataclass(frozen=True, kw_only=True)
class DemoData:
    """What the demo is of."""

    data: Annotated[
        Literal["simulated", "small-real"],
        typer.Option(
            help="simulated: made from a seed. small-real: the first 128 of your --particles under "
            "your --structures, coarsely."
        ),
    ] = "simulated"
    particles: Annotated[
        Path | None, typer.Option(help="Of small-real: a STAR or .cs file.", show_default=False)
    ] = None
    structures: Annotated[
        list[Path] | None,
        typer.Option(
            help="Of small-real: a PDB, mmCIF or MRC file; repeatable.", show_default=False
        ),
    ] = None
    invert_contrast: Annotated[
        bool, typer.Option(help="Of small-real: particles are dark on light.")
    ] = False

    def refuse_unclear(self) -> None:
        """Refuse files where none are taken, and none where they are needed."""
        is_given = self.particles is not None or bool(self.structures) or self.invert_contrast
        if self.data == "simulated" and is_given:
            raise InputError(
                "--particles, --structures and --invert-contrast are for --data small-real",
                remedy="Add it, or leave them out.",
            )
        if self.data == "small-real" and not (self.particles and self.structures):
            raise InputError(
                "--data small-real needs --particles and --structures",
                remedy="Give a STAR or .cs file, and what its particles may show.",
            )
        need(self.particles, "particles")
        need_each(self.structures or (), "structures")


@app.command()
@takes_options()
def demo(
    *,
    output: Annotated[Path, typer.Option(help="Folder for inputs and results.")] = Path(
        "cryolike-dask-demo"
    ),
    seed: Annotated[int, typer.Option(help="Seed of the structures and particles.")] = 0,
    data: DemoData,
    show: Annotated[
        bool | None,
        typer.Option(
            "--open/--no-open",
            help="Open the report in a browser. Default: at a terminal with a display.",
        ),
    ] = None,
    place: PlaceOptions,
) -> None:
    """Two conformations, noisy particles of both: which particle is which? Made from a seed, run
    for real."""
    with errors_for_people():
        data.refuse_unclear()
        if data.data == "simulated":
            with client_in(place) as client:
                page = _simulated(output, seed, client)
        else:
            opened = _opened(data)
            with client_in(place, is_small=True) as client:
                page = _small_real(opened, output, client)
        out.print(f"\nThe report: {escape(str(page))}", highlight=False)
        if open_page(page, asked=show):
            out.print("It is opened in your browser.")
        folder = escape(str(page.parent))
        out.print(
            f"Particles and structures as tables for a spreadsheet: {folder}/*.csv\n"
            f"In Python: cld.open_results({folder!r})",
            highlight=False,
        )


def _simulated(output: Path, seed: int, client: Client | None) -> Path:
    from cryolike_dask.simulation.demo import (
        SIGNAL_TO_NOISE,
        STRUCTURES,
        make_demo_inputs,
        run_demo,
    )

    out.print(
        f"Making structures, particles and templates in {escape(str(output))} (seed {seed}) ..."
    )
    files, truth = make_demo_inputs(output, seed, client)
    out.print(
        f"{len(truth.structure)} particles of {len(STRUCTURES)} conformations "
        f"({', '.join(STRUCTURES)}), "
        f"signal to noise {SIGNAL_TO_NOISE}, astigmatic optics. Comparing each with both ..."
    )
    outcome = run_demo(files, truth, client)
    rate = outcome.n_images * len(STRUCTURES) / outcome.seconds
    poses = (
        f"{outcome.n_templates} views x {outcome.n_displacements} shifts x "
        f"{outcome.n_rotations} rotations"
    )
    _print_table(
        {
            "search": poses,
            "poses within one view and one pixel": f"{outcome.pose_recovered:.1%}",
            "assigned to the right conformation": f"{outcome.structure_recovered:.1%}",
            "speed": f"{rate:.0f} images per second under one structure ({outcome.seconds:.1f} s "
            f"in all)",
            "dashboard (while it ran)": client.dashboard_link
            if client is not None
            else "no cluster: one process",
            "inputs": f"{files.folder_templates}, {files.folder_particles}",
            "results": str(files.folder_output),
        }
    )
    names = {f"of {name}": truth.structure == k for k, name in enumerate(STRUCTURES)}
    _print_ratios(outcome.results, names)
    return _written(files.folder_output)


def _opened(data: DemoData) -> OwnInputs:
    from cryolike_dask.simulation.own_particles import open_own_inputs

    assert data.particles is not None  # `refuse_unclear` has seen to it
    say("opening structures and particles ...")
    return open_own_inputs(
        data.particles, data.structures or [], invert_contrast=data.invert_contrast
    )


def _small_real(opened: OwnInputs, output: Path, client: Client | None) -> Path:
    from cryolike_dask.simulation.own_particles import run_own_inputs

    folder, parameters = output / "small-real", opened.parameters
    results = run_own_inputs(opened, folder, client).load()
    best = results.log_likelihood_integrated.argmax("structure")
    n_best = [int((best == k).sum()) for k in range(results.sizes["structure"])]
    _print_table(
        {
            "particles": f"{results.sizes['image']}, on {parameters.n_pixels} pixels of "
            f"{parameters.pixel_size_angstrom:.3g} angstrom: a coarse look",
            **{
                f"fit {name} best": str(n)
                for name, n in zip(results.structure.values, n_best, strict=True)
            },
            "correlation with the best pose": f"{float(results.cross_correlation.max()):.3f} at "
            "most",
            "results": str(folder),
        }
    )
    _print_ratios(results, {"particles": best.notnull().values})
    return _written(
        folder,
        templates=opened.templates,
        particles=opened.images,
        parameters=opened.parameters,
    )


def _print_table(values: dict[str, str]) -> None:
    table = Table(show_header=False, box=None)
    for name, value in values.items():
        table.add_row(f"[bold]{escape(name)}[/]", escape(value))
    out.print(table)


def _print_ratios(results: xr.Dataset, groups: dict[str, Any]) -> None:
    """The first two structures against each other, as a histogram of letters."""
    if results.sizes["structure"] < 2:
        return
    first, second = results.log_likelihood_integrated.values[:2]
    names = [str(name) for name in results.structure.values[:2]]
    out.print(
        f"\nParticles by log-likelihood ratio, nat: below 0 they show {escape(names[0])}, above it "
        f"{escape(names[1])}",
        highlight=False,
    )
    ratio = second - first
    is_plain = "utf" not in out.encoding.lower()
    for line in histogram({name: ratio[of] for name, of in groups.items()}, ascii_only=is_plain):
        out.print(line, markup=False, highlight=False)


def _written(folder: Path, **inputs: Any) -> Path:
    """Write the report and the tables of results, and give the page."""
    say("writing the report and tables ...")
    from cryolike_dask.analysis.dataset import open_results
    from cryolike_dask.analysis.export.tables import write_tables
    from cryolike_dask.analysis.report.report import write_report

    write_tables(open_results(folder), folder)
    return write_report(folder, **inputs)
