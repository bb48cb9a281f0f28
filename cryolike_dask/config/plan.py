"""The cost of all that a configuration asks for, as a value that prints itself."""

from __future__ import annotations

from dataclasses import dataclass

from cryolike_dask.analysis.populations.cost import PopulationsPlan
from cryolike_dask.runs.cost import LikelihoodPlan


@dataclass(frozen=True)
class RunPlan:
    """The cost of a run of a configuration.

    Attributes
    ----------
    likelihood : LikelihoodPlan
    subset : str
        Which frames of a trajectory stand for all; empty: none are chosen.
    populations : PopulationsPlan or None
        None: shares are not asked for.
    """

    likelihood: LikelihoodPlan
    subset: str = ""
    populations: PopulationsPlan | None = None

    def __str__(self) -> str:
        lines = [str(self.likelihood)]
        if self.subset:
            lines.append(f"  {'frames':<8}{self.subset}")
        if self.populations is not None:
            lines.append(f"  {'shares':<8}{self.populations}")
        return "\n".join(lines)
