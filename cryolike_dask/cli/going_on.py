"""Commands go on where they stopped: what is complete and came from the same inputs is kept,
unless they are told."""

from __future__ import annotations

from typing import Annotated

import typer

from cryolike_dask.errors import InputError

Recompute = Annotated[
    bool,
    typer.Option(
        "--recompute", help="Compute again what is complete and came from these very inputs."
    ),
]
SkipExist = Annotated[bool | None, typer.Option(hidden=True)]
"""What going on was asked for by before it was the default."""


def goes_on(*, recompute: bool | None, skip_exist: bool | None) -> bool:
    """Whether what is complete is kept.

    Raises
    ------
    InputError
        If both are asked for.
    """
    if recompute and skip_exist:
        raise InputError(
            "--recompute and --skip-exist exclude each other", remedy="Give one of them."
        )
    return not recompute and skip_exist is not False
