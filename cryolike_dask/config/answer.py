"""What a configuration asks for once all is compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from cryolike_dask.analysis.populations.priors import one_of_each
from cryolike_dask.config.inputs import Section
from cryolike_dask.config.values import Concentration, Count, File, Seed, Sets
from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.io.counts import read_counts


class Populations(Section):
    """How shares of structures are estimated."""

    prior: Concentration = Field(
        default=1.0, description="Concentration of the Dirichlet prior; 1: all shares alike."
    )
    counts: File | None = Field(
        default=None,
        description="Text file of what each structure stands for: a number a line, or a name and a "
        "number.",
    )
    draw: bool | None = Field(
        default=None,
        description="Draw from the posterior. Default: up to 10 million likelihoods.",
    )
    n_chains: Count = Field(default=4, description="Chains of draws.")
    n_bootstrap: Sets | None = Field(
        default=None,
        description="Sets of images drawn again. Default: 200 up to a million likelihoods, else 0.",
    )
    seed: Seed = Field(default=0, description="Of all that is random.")
    decoys: bool = Field(
        default=True,
        description="Let decoys of the run tell how many images show none of the structures.",
    )

    def refuse(self, structures: Sequence[str] | None) -> None:
        """Refuse before anything is computed what would be refused once all is compared.

        Parameters
        ----------
        structures : sequence of str, optional
            Those whose shares are estimated, where they are known.

        Raises
        ------
        InputError, InputFileError
            If counts cannot be read, or are not of these structures; or a prior asks for draws,
            and there are to be none.
        """
        if self.draw is False and self.prior != 1.0:
            raise InputError(
                f"populations.prior={self.prior:g}, but populations.draw=False, and a prior is of "
                "draws",
                remedy="Leave one of them out.",
            )
        if self.counts is None:
            return
        counts = read_counts(self.counts)
        if structures is not None:
            try:
                one_of_each("counts", counts, structures)
            except InputError as error:
                raise InputFileError(str(error), source=self.counts) from error

    def write(self, folder: Path) -> list[Path]:
        """Estimate shares from the results of a folder, and write them there."""
        from cryolike_dask.analysis.populations.of_folder import estimate_and_write

        options = self.model_dump()
        return estimate_and_write(folder, folder, **options)[1]


def asked(section: Any) -> Any:
    """A section whose keys are all commented out, or true in its place, asks for it as it is by
    default; false does not ask."""
    if section is True or section is None:
        return {}
    return None if section is False else section


def or_true(schema: dict[str, Any]) -> None:
    """Let the JSON schema of a section take true and false in its place."""
    schema["anyOf"].append({"type": "boolean"})
