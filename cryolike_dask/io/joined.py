"""Sources whose rows are those of several others, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.io.identity import InputDescription
from cryolike_dask.io.sources import ArraySource, OnDevice, Subset, on_device

if TYPE_CHECKING:
    import torch

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Joined:
    """The rows of several sources of one shape, one after the other."""

    parts: tuple[ArraySource, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, shell, angle)."""
        return (sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:])

    @property
    def dtype(self) -> str:
        """The widest type of the parts."""
        return str(np.result_type(*(part.dtype for part in self.parts)))

    @property
    def paths(self) -> tuple[str, ...]:
        """Files of all parts."""
        return tuple(dict.fromkeys(path for part in self.parts for path in part.paths))

    def take(self, rows: Rows) -> NDArray[Any]:
        """Copy rows into memory."""
        values = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for part, here, inside in self._by_part(rows):
            values[here] = part.take(inside)
        return values

    def take_on(self, rows: Rows, device: torch.device) -> OnDevice | None:
        """Make rows on a device if all parts that hold some of them do."""
        import torch

        places, made = [], []
        for part, here, inside in self._by_part(rows):
            of_part = on_device(part, inside, device)
            if of_part is None:
                return None
            places.append(here)
            made.append(of_part)
        if not made:
            return None
        order = torch.from_numpy(np.argsort(np.concatenate(places))).to(device)
        rings = [one.ring_sums for one in made if one.ring_sums is not None]
        return OnDevice(
            torch.cat([one.half_rings for one in made])[order],
            torch.cat(rings)[order] if len(rings) == len(made) and self.knows_rings else None,
        )

    @property
    def knows_rings(self) -> bool:
        """Whether all parts do."""
        return all(part.knows_rings for part in self.parts)

    def rings(self, rows: Rows) -> NDArray[np.float64] | None:
        """Those of the parts; None unless all of them know theirs."""
        if not self.knows_rings:
            return None
        rings = np.empty((len(rows), 2, self.shape[1]))
        for part, here, inside in self._by_part(rows):
            rings[here] = part.rings(inside)
        return rings

    def locate(self, row: int) -> tuple[str, int]:
        """The file of a row, and its position there."""
        ((part, _, inside),) = self._by_part(np.array([row]))
        return part.locate(int(inside[0]))

    def describe(self, rows: Rows) -> list[InputDescription]:
        """Describe the rows as their parts do."""
        return [one for part, _, inside in self._by_part(rows) for one in part.describe(inside)]

    def subset(self, rows: Rows) -> ArraySource:
        """These rows, of the parts that hold them."""
        parts, order = [], np.empty(len(rows), np.int64)
        n_before = 0
        for part, here, inside in self._by_part(rows):
            parts.append(part.subset(inside))
            order[here] = n_before + np.arange(len(inside))
            n_before += len(inside)
        return Subset(Joined(tuple(parts)), order)

    def _by_part(self, rows: Rows) -> Iterator[tuple[ArraySource, Rows, Rows]]:
        """Each part that holds some of the rows, with which of them, and their positions there."""
        starts = np.cumsum([0, *(part.shape[0] for part in self.parts)])
        of_row = np.searchsorted(starts, rows, side="right") - 1
        for i in np.unique(of_row).tolist():
            here = np.flatnonzero(of_row == i)
            yield self.parts[i], here, rows[here] - starts[i]
