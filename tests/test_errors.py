"""What the refusal of a number says is true of it."""

from __future__ import annotations

import numpy as np
import pytest

from cryolike_dask.errors import InputError, number


@pytest.mark.parametrize(
    ("value", "wanted", "fault"),
    [
        ("2", {}, "not a number"),
        (True, {}, "not a number"),
        (float("inf"), {}, "not a finite number"),
        (-1e300, {}, "too far from 0"),
        (2.5, {"whole": True}, "not a whole number"),
        (2.0, {"whole": True}, "not a whole number"),
        (float("nan"), {"whole": True}, "not a whole number"),
        ("2", {"whole": True}, "not a whole number"),
        (10**400, {"whole": True}, "too far from 0"),
        ("2", {"above": 0}, "not a number"),
        (0, {"above": 0}, "not positive"),
        (float("nan"), {"above": 0}, "not positive"),
        (float("inf"), {"above": 0}, "not a finite number"),
        (2, {"above": 2.5}, "not a number above 2.5"),
        (2.5, {"whole": True, "above": 0}, "not a whole number"),
        (0, {"whole": True, "above": 0}, "not positive"),
        (2, {"whole": True, "above": 2}, "not a whole number above 2"),
        (-0.5, {"at_least": 0}, "not a number, 0 or more"),
        (0.5, {"at_least": 1}, "not a number, 1 or more"),
        (0.5, {"whole": True, "at_least": 0}, "not a whole number"),
        (-1, {"whole": True, "at_least": 0}, "not a whole number, 0 or more"),
        (2.5, {"whole": True, "at_least": 1}, "not a whole number"),
        (0, {"whole": True, "at_least": 1}, "not a positive number"),
        (2, {"whole": True, "at_least": 3}, "not a whole number, 3 or more"),
        (2, {"above": 0, "at_least": 3}, "not a number, 3 or more"),
        (0, {"above": 0, "at_least": 3}, "not positive"),
    ],
)
def test_the_fault_of_a_number_is_named(value, wanted, fault):
    with pytest.raises(InputError) as refusal:
        number("n", value, **wanted)
    assert str(refusal.value) == f"n={value!r} is {fault}"


@pytest.mark.parametrize(
    ("value", "wanted", "given"),
    [
        (np.float32(2.5), {"above": 0}, 2.5),
        (np.array(2), {"whole": True, "at_least": 1}, 2),
        (3, {"at_least": 3}, 3.0),
        (0, {"whole": True, "at_least": 0}, 0),
    ],
)
def test_numbers_are_given_as_plain_ones(value, wanted, given):
    assert number("n", value, **wanted) == given
    assert type(number("n", value, **wanted)) is type(given)
