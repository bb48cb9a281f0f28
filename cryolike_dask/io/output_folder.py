"""An output folder: claimed by the command that writes there, or left alone where nothing can be
written and all is done."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryolike_dask.errors import OutputError
from cryolike_dask.io.claims import Claim, holding, refuse_beneath_others


@dataclass(frozen=True)
class OutputFolder:
    """A folder for the outputs of one command, and its ways with those of others that are there.

    Attributes
    ----------
    path : Path
        Created if it is not there.
    kind : str
        "results", "image-stacks" or "templates".
    identity : mapping
        What must be the same for all that is made there; JSON.
    refuse_others : callable
        Raises if what lies there is of others.
    remove_others : callable
        Removes what `refuse_others` refuses.
    """

    path: Path
    kind: str
    identity: Mapping[str, object]
    refuse_others: Callable[[], None]
    remove_others: Callable[[], None]

    @contextmanager
    def claimed(
        self, to_do: Callable[[], Sequence[object]], *, skip_exist: bool, overwrite: bool
    ) -> Iterator[Claim | None]:
        """Claim the folder while the body runs; None if it takes nothing, and all is done there.

        Parameters
        ----------
        to_do : callable
            Gives what is to be done; asked only if the folder takes nothing.
        skip_exist : bool
            What is done is left alone.
        overwrite : bool
            Remove what is of others, instead of refusing; unless a run lives that writes it.

        Raises
        ------
        OutputError
            If the folder holds what is of others, another run writes there, or something is to be
            done where nothing can be written; and at the end, if the folder was taken away.
        """
        need_folder(self.path)
        if skip_exist and not overwrite and nothing_to_do(self.path, to_do, self.refuse_others):
            yield None
            return
        with holding(
            self.path,
            self.kind,
            self.identity,
            overwrite=overwrite,
            refuse_others=self.refuse_others,
        ) as claim:
            if overwrite:
                self.remove_others()
            yield claim

    def refuse(self) -> None:
        """Refuse what `claimed` refuses without `overwrite`, and write nothing."""
        need_folder(self.path)
        refuse_beneath_others(self.path, self.kind, self.identity)
        self.refuse_others()


def need_folder(folder: Path) -> None:
    """Refuse an output folder that is something else."""
    if folder.exists() and not folder.is_dir():
        raise OutputError("is not a folder", source=folder, remedy="Choose another output folder.")


def takes_nothing(folder: Path) -> bool:
    """Whether a folder is on a disk, or of an owner, that lets nothing be written there."""
    return folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK)


def nothing_to_do(
    folder: Path, to_do: Callable[[], Sequence[object]], refuse_others: Callable[[], None]
) -> bool:
    """Whether a folder takes nothing, and all is done there.

    Raises
    ------
    OutputError
        If something is to be done in a folder that takes nothing.
    """
    if not takes_nothing(folder):
        return False
    refuse_others()
    if n := len(to_do()):
        what = (
            f"cannot be written, and {n} of the results that belong there are missing, damaged "
            f"or of other inputs"
        )
        raise OutputError(
            what, source=folder, remedy="Choose another output folder, or a copy of this one."
        )
    return True
