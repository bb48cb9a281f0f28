"""The command that takes results back to RELION and cryoSPARC."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from cryolike_dask.cli.app import app, errors_for_people, out
from cryolike_dask.cli.given import need, need_each
from cryolike_dask.errors import InputError


class TemplatesFrom(StrEnum):
    """What templates were made from."""

    atoms = "atoms"
    map = "map"


@app.command("export")
def export(
    output: Annotated[Path, typer.Argument(help="Folder with results.")],
    star: Annotated[Path | None, typer.Option(help="STAR file to write, for RELION.")] = None,
    cs: Annotated[Path | None, typer.Option(help=".cs file to write, for cryoSPARC.")] = None,
    subsets: Annotated[
        Path | None,
        typer.Option(help="Folder for one STAR file per structure, of the particles it fits best."),
    ] = None,
    structure: Annotated[
        str | None,
        typer.Option(help="Poses under this structure. Default: under the best one of each image."),
    ] = None,
    metadata: Annotated[
        list[Path] | None,
        typer.Option(
            help="STAR or .cs file whose rows are the images in order, where results do not say; "
            "repeatable."
        ),
    ] = None,
    passthrough: Annotated[
        Path | None,
        typer.Option(help="cryoSPARC's passthrough file, whose columns are added to --cs."),
    ] = None,
    template_source: Annotated[
        TemplatesFrom | None,
        typer.Option(
            "--templates-from", help="What CryoLike made its templates from: its files do not say."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace files that are there.")] = False,
) -> None:
    """Write poses and likelihoods into a copy of the particles' STAR or .cs file.

    Names of images start in the project folder, as before; in files outside of it they are whole
    paths.
    """
    with errors_for_people():
        _refuse_unclear(
            star=star, cs=cs, subsets=subsets, structure=structure, passthrough=passthrough
        )
        need(output, "results")
        need_each(metadata or (), "particles")
        need(passthrough, "particles")
        for line in _export(**locals()):
            out.print(escape(line))


def _refuse_unclear(**given: Any) -> None:
    if all(given[name] is None for name in ("star", "cs", "subsets")):
        raise InputError("none of --star, --cs and --subsets given", remedy="Give at least one.")
    if given["subsets"] is not None and given["structure"] is not None:
        raise InputError("--structure and --subsets exclude each other", remedy="Give one of them.")
    if given["passthrough"] is not None and given["cs"] is None:
        raise InputError("--passthrough is for --cs", remedy="Leave it out.")


def _export(**options: Any) -> list[str]:
    """Write what is asked for, or nothing, and say what was written."""
    from cryolike_dask.analysis.dataset import open_results

    results, source = open_results(options["output"]), options["template_source"]
    common: dict[str, Any] = {
        "structure": options["structure"],
        "template_source": None if source is None else str(source),
    }
    exports: list[Any] = []
    as_star, as_cs = (
        options["star"] is not None or options["subsets"] is not None,
        options["cs"] is not None,
    )
    metadata = [options["metadata"] or None] * 2
    if as_star and as_cs:  # each takes its own
        metadata = [
            [f for f in options["metadata"] or () if (f.suffix == ".cs") is cs] or None
            for cs in (False, True)
        ]
    if as_star:
        from cryolike_dask.analysis.export.star_export import open_star

        particles = open_star(results, **common, metadata=metadata[0])
        exports += [particles.one(options["star"])] if options["star"] is not None else []
        exports += [particles.subsets(options["subsets"])] if options["subsets"] is not None else []
    if as_cs:
        from cryolike_dask.analysis.export.cryosparc_export import open_cryosparc

        cs = {"metadata": metadata[1], "passthrough": options["passthrough"]}
        exports.append(open_cryosparc(results, options["cs"], **common, **cs))
    for one in exports:
        one.claim(overwrite=options["overwrite"])
    return [line for one in exports for line in _said(one.written(overwrite=options["overwrite"]))]


def _said(written: Any) -> list[str]:
    files = list(written.values()) if isinstance(written, dict) else [written]
    lines = [f"{one.n_written} particles: {one.path}" for one in files]
    if files[0].dropped is not None:
        lines.append(f"{files[0].n_dropped} particles are left out; {files[0].dropped} says why")
    return lines
