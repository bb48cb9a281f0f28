"""What groups of images say of each other, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cryolike_dask.analysis.group_shares import Grouped
from cryolike_dask.analysis.summaries import first_names
from cryolike_dask.errors import joined_by_and

MOST_NAMED = 5
PLURAL = {
    "half-set": "half-sets",
    "optics group": "optics groups",
    "micrograph": "micrographs",
    "defocus": "ranges of defocus",
}
SMALLEST_SAID = 1e-12
"""A p-value: below it, how small it is says nothing."""


def title_of(kinds: Sequence[str]) -> str:
    """What a section is about."""
    names = ["defocus" if kind == "defocus" else PLURAL[kind] for kind in kinds]
    listed = joined_by_and(names)
    return listed[0].upper() + listed[1:]


def about_shares(grouped: Grouped) -> str:
    """Whether groups differ in what they show."""
    several = PLURAL[grouped.kind]
    if np.isnan(grouped.p_value).all():
        return f"Of {several} there are too few images to compare their shares."
    if grouped.n_groups == 2:
        both = f"{_first(grouped.called(0))} and {grouped.called(1)}"
        p = p_in_words(float(np.nanmin(grouped.p_value)), grouped.least_p)
        if not len(grouped.odd):
            return f"{both} differ in their shares by no more than chance (p {p})."
        return (
            f"{both} differ in their shares by more than chance (p {p}): shares alone cannot say "
            "which of the two is odd."
        )
    if not len(grouped.odd):
        return f"Shares of the {grouped.n_groups:,} {several} differ by no more than chance."
    return (
        f"Of {grouped.n_groups:,} {several} the shares differ by more than chance in "
        f"{_named(grouped, grouped.odd)}."
    )


def about_fit(grouped: Grouped) -> str:
    """Whether the images of some groups fit worse, and what follows for shares that differ."""
    if np.isnan(grouped.p_of_fit).all():
        return "How well they fit cannot be compared."
    differ = bool(len(grouped.odd))
    if grouped.n_groups == 2:
        first, second = grouped.correlation
        p = p_in_words(float(np.nanmin(grouped.p_of_fit)))
        if len(grouped.worse):
            worse = int(grouped.worse[0])
            than = (
                f"{_first(grouped.called(worse))} fits worse (median correlation "
                f"{grouped.correlation[worse]:.3f}, that of {grouped.called(1 - worse)} "
                f"{grouped.correlation[1 - worse]:.3f}; p {p})"
            )
            return f"{than}: look there first." if differ else f"{than}."
        alike = f"Their fit is alike (median correlation {first:.3f} and {second:.3f}, p {p})"
        return (
            f"{alike}: they differ in what they show, not in how well it fits."
            if differ
            else f"{alike}."
        )
    if not len(grouped.worse):
        return "None fits worse than the others by more than chance."
    both = np.intersect1d(grouped.odd, grouped.worse)
    said = (
        f"The images of {_named(grouped, grouped.worse)} fit worse than those of the others by "
        "more than chance"
    )
    if not differ:
        return f"{said}."
    return f"{said}: look there first." if len(both) else f"{said}; none of these has odd shares."


def p_in_words(p: float, least: float = np.nan) -> str:
    """A p-value, "too few" where there is none."""
    if np.isnan(p):
        return "too few"
    if p <= least:
        return f"{p:.2g} or less"
    return f"{p:.2g}" if p >= SMALLEST_SAID else f"below {SMALLEST_SAID:g}"


def _named(grouped: Grouped, groups: np.ndarray) -> str:
    """Some groups, by name."""
    return first_names([grouped.called(int(group)) for group in groups], MOST_NAMED)


def _first(text: str) -> str:
    """A group at the head of a sentence; the name of a micrograph stays as it is."""
    known = any(text.startswith(f"{kind} ") for kind in PLURAL)
    return text[0].upper() + text[1:] if known else text
