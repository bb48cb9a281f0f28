"""Decoys that a run is asked to compare beside its structures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cryolike_dask.conventions import ConventionsName
from cryolike_dask.errors import InputError
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.layout import LikelihoodFiles
from cryolike_dask.io.parameters import read_parameters
from cryolike_dask.labels import DecoyKind
from cryolike_dask.stacks import TemplateStack, open_template_file
from cryolike_dask.structures.decoys.opening import as_decoys, open_decoys
from cryolike_dask.structures.naming import numbered
from cryolike_dask.structures.opening import open_structures

ALL = "all"


@dataclass(frozen=True)
class DecoyRequest:
    """What decoys are asked for.

    Attributes
    ----------
    n : int
        To be made of each structure; 0: none.
    kind : "phases" | "residues"
    structures : sequence of Path
        Files of structures that no image shows, or folders of them.
    """

    n: int = 0
    kind: DecoyKind = "phases"
    structures: Sequence[Path] = ()

    def added(
        self,
        templates: list[TemplateStack] | None,
        files: LikelihoodFiles,
        params_input: str | Path | ImageParameters,
        conventions: ConventionsName,
    ) -> tuple[list[TemplateStack] | None, LikelihoodFiles]:
        """Add decoys to the templates of a run.

        Parameters
        ----------
        templates : list of TemplateStack or None
            None: those of the files.
        files : LikelihoodFiles
        params_input : path or ImageParameters
        conventions : "standard" | "cryolike"

        Returns
        -------
        list of TemplateStack or None, LikelihoodFiles
            As they are, if none are asked for; else all templates, and files without any.

        Raises
        ------
        InputError, InputFileError
            If decoys cannot be made, or some of the structures are chosen.
        """
        if self.n < 0:
            raise InputError(f"decoys={self.n!r} is not 0 or more")
        if not self.n and not self.structures:
            return templates, files
        if files.i_template != ALL:
            raise InputError(
                f"i_template={files.i_template!r} chooses structures, but decoys are compared "
                "beside all of them",
                remedy="Leave one of them out.",
            )
        parameters = read_parameters(params_input)
        if templates is None:
            templates = [open_template_file(path, parameters) for path in files.template_files()]
        made = open_decoys(templates, self.n, kind=self.kind) if self.n else []
        named = list[TemplateStack]()
        if self.structures:
            named = open_structures(
                self.structures,
                parameters,
                viewing=templates[0].viewing,
                conventions=conventions,
            )
        every_name = [stack.structure for stack in (*templates, *made, *named)]
        names = numbered(every_name)[len(every_name) - len(named) :]
        named = [replace(stack, structure=name) for stack, name in zip(named, names, strict=True)]
        return [*templates, *made, *as_decoys(named)], replace(files, folder_templates=None)
