"""How poses are searched: words, and searches that are told more exactly."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import cast, get_args

from cryolike_dask.errors import InputError, number
from cryolike_dask.geometry.known_poses import RECORDED, Around
from cryolike_dask.labels import AUTO, Prior, SearchAsked, SearchMethod, SearchWord
from cryolike_dask.notebook import html_table

ERROR_NAT, LEAST_ERROR, MOST_ERROR = 0.1, 1e-6, 1.0
"""Of an integrated log-likelihood, unless another is asked for; and what may be asked for."""


@dataclass(frozen=True)
class Adaptive:
    """A search coarse to fine.

    Attributes
    ----------
    error_nat : float
        About what an integrated log-likelihood may be off by, nat: the less, the more views are
        kept, and the finer likelihoods are interpolated.
    """

    error_nat: float = ERROR_NAT

    def __post_init__(self) -> None:
        """Refuse what is no error."""
        error = number("error_nat", self.error_nat)
        if not LEAST_ERROR <= error <= MOST_ERROR:
            raise InputError(
                f"error_nat={error:g} is not between {LEAST_ERROR:g} and {MOST_ERROR:g}",
                remedy="Of less nothing is left out: search everything (exhaustive).",
            )
        object.__setattr__(self, "error_nat", float(error))

    def __str__(self) -> str:
        """The name of this method of search, by which results are told apart."""
        return "adaptive" if self == Adaptive() else f"adaptive to {self.error_nat:.15g} nat"

    def _repr_html_(self) -> str:
        entries = {"likelihoods to": f"about {self.error_nat:g} nat"}
        return html_table("Search: adaptive, coarse to fine", entries)

    @classmethod
    def named(cls, name: str) -> Adaptive | None:
        """The search of a name; None if it is that of another method."""
        found = re.fullmatch(r"adaptive(?: to (\S+) nat)?", name)
        try:
            return found and cls(float(found[1] or ERROR_NAT))
        except ValueError:  # of Python for what is no number, and of this package
            return None


Search = SearchMethod | Around | Adaptive
AskedSearch = SearchAsked | Around | Adaptive


@dataclass(frozen=True)
class AskedAround:
    """What is asked of a search around recorded poses, beside how far it looks.

    Attributes
    ----------
    check : bool
    prior : "flat" | "gaussian", or None
        None: nothing is asked for.
    refine : bool
    """

    check: bool = True
    prior: Prior | None = None
    refine: bool = False


def search_asked(
    method: SearchWord | None,
    within_degrees: float | None,
    within_pixels: float | None,
    asked: AskedAround,
    error_nat: float | None = None,
) -> AskedSearch:
    """The search that words and numbers ask for, as of `Around` where it is "around", of `Adaptive`
    where it is "adaptive", and "auto" where nothing is asked for.

    Raises
    ------
    InputError
        If numbers are missing, or say nothing of this method.
    """
    given = within_degrees, within_pixels
    if method == "around":
        if within_degrees is None or within_pixels is None:
            raise InputError(
                "a search around recorded poses needs an angle and a distance",
                remedy="Give within_degrees and within_pixels.",
            )
        prior = asked.prior or "flat"
        return Around(within_degrees, within_pixels, asked.check, prior, asked.refine)
    if given != (None, None):
        raise InputError(
            "within_degrees and within_pixels are of a search around recorded poses",
            remedy="Give method: around (--around recorded) too, or leave them out.",
        )
    if asked.prior is not None:
        raise InputError(
            f"prior={asked.prior} is of a search around recorded poses",
            remedy="Give method: around (--around recorded) too, or leave it out.",
        )
    if error_nat is not None and method != "adaptive":
        raise InputError(
            "error_nat is of an adaptive search",
            remedy="Give method: adaptive (--search adaptive) too, or leave it out.",
        )
    if asked == AskedAround():
        return (method or AUTO) if error_nat is None else Adaptive(error_nat)
    if method != RECORDED:
        what = "refine=True" if asked.refine else "check_poses=False"
        raise InputError(
            f"{what} is given, but no recorded poses are asked for", remedy="Leave it out."
        )
    return Around(0, 0, asked.check, refine=asked.refine)


def search_done(name: str) -> Search:
    """The search that records name: what it asks of recorded poses has been checked."""
    around = Around.named(name)
    if around is not None:
        return replace(around, check=False)
    return Adaptive.named(name) or cast(SearchMethod, name)


def is_search(name: object) -> bool:
    """Whether it names a method of search."""
    return isinstance(name, str) and (
        name in get_args(SearchMethod)
        or Around.named(name) is not None
        or Adaptive.named(name) is not None
    )
