"""The command that takes results back to RELION and cryoSPARC."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from cryolike_dask.cli.app import app, errors_for_people, out
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
        Path | None, typer.Option(help="Folder for one STAR file per structure, of the particles it fits best.")
    ] = None,
    structure: Annotated[
        str | None, typer.Option(help="Poses under this structure. Default: under the best one of each image.")
    ] = None,
    metadata: Annotated[
        list[Path] | None,
        typer.Option(help="STAR or .cs file whose rows are the images in order, where results do not say; repeatable."),
    ] = None,
    passthrough: Annotated[
        Path | None, typer.Option(help="cryoSPARC's passthrough file, whose columns are added to --cs.")
    ] = None,
    templates_from: Annotated[
        TemplatesFrom | None, typer.Option(help="What CryoLike made its templates from: its files do not say.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace files that are there.")] = False,
) -> None:
    """Write poses and likelihoods into a copy of the particles' STAR or .cs file."""
    with errors_for_people():
        _refuse_unclear(star=star, cs=cs, subsets=subsets, structure=structure, passthrough=passthrough)
        for line in _export(**locals()):
            out.print(escape(line))


def _refuse_unclear(**given: Any) -> None:
    chosen = [f"--{name}" for name in ("star", "cs", "subsets") if given[name] is not None]
    if len(chosen) != 1:
        raise InputError(f"{' and '.join(chosen) or 'none of --star, --cs and --subsets'} given", remedy="Give one.")
    if given["subsets"] is not None and given["structure"] is not None:
        raise InputError("--structure and --subsets exclude each other", remedy="Give one of them.")
    if given["passthrough"] is not None and given["cs"] is None:
        raise InputError("--passthrough is for --cs", remedy="Leave it out.")


def _export(**options: Any) -> list[str]:
    """Write what is asked for, and say what was written."""
    from cryolike_dask.analysis.opening import open_results

    results = open_results(options["output"])
    source = options["templates_from"]
    common = {
        "template_source": None if source is None else str(source),
        "metadata": options["metadata"] or None,
        "overwrite": options["overwrite"],
    }
    if options["subsets"] is not None:
        from cryolike_dask.analysis.star_export import export_star_subsets

        exports = export_star_subsets(results, options["subsets"], **common)
    elif options["star"] is not None:
        from cryolike_dask.analysis.star_export import export_star

        exports = {"": export_star(results, options["star"], structure=options["structure"], **common)}
    else:
        from cryolike_dask.analysis.cryosparc_export import export_cryosparc

        passed = {"structure": options["structure"], "passthrough": options["passthrough"]}
        exports = {"": export_cryosparc(results, options["cs"], **passed, **common)}
    lines = [f"{one.n_written} particles: {one.path}" for one in exports.values()]
    left_out = next(iter(exports.values()))
    if left_out.dropped is not None:
        lines.append(f"{left_out.n_dropped} particles are left out; {left_out.dropped} says why")
    return lines
