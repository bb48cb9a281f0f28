"""What a configuration asks for once all is compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from cryolike_dask.config.inputs import Section
from cryolike_dask.config.values import Concentration, Count, File, Seed, Sets


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

    def write(self, folder: Path) -> list[Path]:
        """Estimate shares from the results of a folder, and write them there."""
        from cryolike_dask.analysis.populations.written import estimate_and_write

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
