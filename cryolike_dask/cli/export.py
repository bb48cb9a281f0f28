"""The command that takes results back to RELION and cryoSPARC."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from cryolike_dask.cli.app import app
from cryolike_dask.cli.console import errors_for_people, out
from cryolike_dask.cli.inputs import need, need_each
from cryolike_dask.cli.options import takes_options
from cryolike_dask.errors import InputError
from cryolike_dask.labels import TemplateSource

if TYPE_CHECKING:
    from cryolike_dask.analysis.export.files import Export, ExportFiles
    from cryolike_dask.analysis.export.tables import TableFile


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Results to export, the files to write, and how."""

    output: Annotated[Path, typer.Argument(help="Folder with results.")]
    star: Annotated[Path | None, typer.Option(help="STAR file to write, for RELION.")] = None
    cs: Annotated[Path | None, typer.Option(help=".cs file to write, for cryoSPARC.")] = None
    subsets: Annotated[
        Path | None,
        typer.Option(help="Folder for one STAR file per structure, of the particles it fits best."),
    ] = None
    csv: Annotated[
        Path | None, typer.Option(help="Table of particles to write, for a spreadsheet.")
    ] = None
    classes: Annotated[
        Path | None,
        typer.Option(help="Table of structures to write, .csv: number, name and share of each."),
    ] = None
    structure: Annotated[
        str | None,
        typer.Option(help="Poses under this structure. Default: under the best one of each image."),
    ] = None
    structures: Annotated[
        list[str] | None,
        typer.Option(
            help="Poses under the best of these, as A+B, of the images that they fit best; with "
            "--min-probability, of those that show one of them so probably."
        ),
    ] = None
    min_probability: Annotated[
        float | None,
        typer.Option(
            help="Leave out images whose structure, or --structures together, are less probable."
        ),
    ] = None
    max_q: Annotated[
        float | None,
        typer.Option(
            help="Leave out images with a larger q-value: of those that are written about so "
            "many show none of the structures. Needs decoys."
        ),
    ] = None
    metadata: Annotated[
        list[Path] | None,
        typer.Option(
            help="STAR or .cs file whose rows are the images in order, where results do not say; "
            "repeatable."
        ),
    ] = None
    passthrough: Annotated[
        Path | None,
        typer.Option(help="cryoSPARC's passthrough file, whose columns are added to --cs."),
    ] = None
    template_source: Annotated[
        TemplateSource | None,
        typer.Option(
            "--templates-from", help="What CryoLike made its templates from: its files do not say."
        ),
    ] = None
    overwrite: Annotated[bool, typer.Option(help="Replace files that are there.")] = False

    @property
    def for_relion(self) -> bool:
        """Whether any STAR file is written."""
        return self.star is not None or self.subsets is not None

    def refuse_unclear(self) -> None:
        """Refuse options that exclude or need each other."""
        if not self.for_relion and not (self.cs or self.csv or self.classes):
            raise InputError(
                "none of --star, --cs, --csv, --classes and --subsets given",
                remedy="Give at least one.",
            )
        if self.subsets is not None and self.structure is not None:
            raise InputError(
                "--structure and --subsets exclude each other", remedy="Give one of them."
            )
        if self.structure is not None and self.structures:
            raise InputError(
                "--structure and --structures exclude each other", remedy="Give one of them."
            )
        if self.passthrough is not None and self.cs is None:
            raise InputError("--passthrough is for --cs", remedy="Leave it out.")

    def metadata_for(self, *, cs: bool) -> list[Path] | None:
        """The metadata for the .cs file, or for STAR files: if both are written, each takes its
        own."""
        files = self.metadata or []
        if self.for_relion and self.cs is not None:
            files = [file for file in files if (file.suffix == ".cs") is cs]
        return files or None


@app.command("export")
@takes_options()
def export(options: ExportOptions) -> None:
    """Write poses and likelihoods into a copy of the particles' STAR or .cs file.

    Names of images start in the project folder, as before; in files outside of it they are whole
    paths.
    """
    with errors_for_people():
        options.refuse_unclear()
        need(options.output, "results")
        need_each(options.metadata or (), "particles")
        need(options.passthrough, "particles")
        exports = _opened(options)
        for files in exports:  # nothing is written if one of them cannot be
            files.claim(overwrite=options.overwrite)
        written = [files.written(overwrite=options.overwrite) for files in exports]
        for exported in written:
            _tell([*exported.values()])


def _opened(options: ExportOptions) -> list[ExportFiles | TableFile]:
    """All that is exported, checked and not yet written."""
    from cryolike_dask.analysis.dataset import open_results
    from cryolike_dask.analysis.export.selection import Selection, joined_names
    from cryolike_dask.analysis.export.tables import classes_table, particles_table

    results = open_results(options.output)
    structures = joined_names(results, options.structures or ())
    selection = Selection.of(structures, options.min_probability, options.max_q)
    exports: list[ExportFiles | TableFile] = []
    if options.for_relion:
        from cryolike_dask.analysis.export.star_export import open_star

        particles = open_star(
            results,
            options.structure,
            options.template_source,
            options.metadata_for(cs=False),
            selection,
        )
        if options.star is not None:
            exports.append(particles.one(options.star))
        if options.subsets is not None:
            exports.append(particles.subsets(options.subsets))
    if options.cs is not None:
        from cryolike_dask.analysis.export.cryosparc_export import open_cryosparc

        exports.append(
            open_cryosparc(
                results,
                options.cs,
                structure=options.structure,
                template_source=options.template_source,
                metadata=options.metadata_for(cs=True),
                passthrough=options.passthrough,
                selection=selection,
            )
        )
    if options.csv is not None:
        exports.append(
            particles_table(
                results, options.csv, options.structure, options.template_source, selection
            )
        )
    if options.classes is not None:
        exports.append(classes_table(results, options.classes))
    return exports


def _tell(exports: list[Export]) -> None:
    """Say what was written, and what is left out of it."""
    for export in exports:
        out.print(escape(f"{export.n_written} {export.noun}: {export.path}"))
    first = exports[0]
    if first.n_dropped:
        where = first.dropped or "its column left_out"
        out.print(escape(f"{first.n_dropped} particles are left out; {where} says why"))
