"""Competition of structures with decoys for each image, and the false discoveries that it tells.

An image that shows none of the structures is as likely to prefer any of T structures and D decoys:
a decoy wins it with the probability D / (T + D), whatever the score that does not tell one from
another. Among images above a score, W that decoys have won therefore stand for W T / D that
structures have won by chance. With V of these, E[V / (1 + W)] <= T / D, so that (1 + W) T / (D R)
bounds the expected part of false ones among the R that structures have won.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Competition:
    """What structures and decoys have won.

    Attributes
    ----------
    n_targets, n_decoys : int
        Structures, and decoys, that have competed for each image.
    margin : (image,) float64
        Log-likelihood of the best structure less that of the best decoy, nat; NaN for images that
        lack a result under one of them.
    score : (image,) float64
        Log-likelihood of the best of all less their mean, nat: the same whichever are called
        decoys, as the bound supposes.
    """

    n_targets: int
    n_decoys: int
    margin: Floats
    score: Floats

    @property
    def ratio(self) -> float:
        """How many images structures win by chance for each that decoys win."""
        return self.n_targets / self.n_decoys

    @property
    def is_known(self) -> Booleans:
        """Which images were competed for."""
        return np.isfinite(self.margin)

    def q_values(self) -> Floats:
        """The least false discovery rate at which each image is held to show a structure: 1 where
        a decoy wins it or is level, NaN where nothing is known."""
        q = np.full(len(self.margin), np.nan)
        known = self.is_known
        q[known] = q_values(self.score[known], self.margin[known] > 0, self.ratio)
        return q

    def share_shown(self) -> tuple[float, float]:
        """The part of images that show one of the structures, and its standard error.

        Of those that show none decoys win D / (T + D). Images that show a structure and prefer a
        decoy are taken for others, so that weak images make it too small.
        """
        n = int(self.is_known.sum())
        if not n:
            return np.nan, np.nan
        lost = float((self.margin[self.is_known] <= 0).mean())
        error = (1 + self.ratio) * np.sqrt(lost * (1 - lost) / n)
        return float(np.clip(1 - (1 + self.ratio) * lost, 0, 1)), float(error)


def compete(log_likelihood: NDArray[Any], is_decoy: Booleans) -> tuple[Floats, Floats]:
    """Margin and score of some images: see `Competition`.

    Parameters
    ----------
    log_likelihood : (structure, image)
        Natural logarithm; NaN where there is no result.
    is_decoy : (structure,) bool
        At least one is, and one is not.
    """
    values = np.asarray(log_likelihood, np.float64)
    known = np.isfinite(values).all(axis=0)
    values = np.where(known, values, 0.0)
    best_target, best_decoy = (values[of].max(axis=0) for of in (~is_decoy, is_decoy))
    best = np.maximum(best_target, best_decoy)
    score = (best - values).mean(axis=0)
    return np.where(known, best_target - best_decoy, np.nan), np.where(known, score, np.nan)


def q_values(score: Floats, target_wins: Booleans, ratio: float) -> Floats:
    """The least false discovery rate at which each image is accepted.

    Parameters
    ----------
    score : (image,) float64
        Images of large ones are accepted first; those of one score together.
    target_wins : (image,) bool
    ratio : float
        Number of structures over that of decoys.

    Returns
    -------
    (image,) float64
        Falls as the score rises; 1 where a decoy wins.
    """
    order = np.argsort(-score, kind="stable")
    ranked, wins = score[order], target_wins[order]
    # those of one score are accepted together: all are counted before any is judged
    last = np.searchsorted(-ranked, -ranked, side="right") - 1
    n_won, n_lost = np.cumsum(wins)[last], np.cumsum(~wins)[last]
    rate = np.minimum(ratio * (1 + n_lost) / np.maximum(n_won, 1), 1.0)
    q = np.empty(len(score))
    q[order] = np.minimum.accumulate(rate[::-1])[::-1]
    return np.where(target_wins, q, 1.0)
