"""Pickles, parsed without running them: names stay names, and calls are told, not made.

torch's and numpy's files hold pickles; those of plain tensors and arrays, and of None, need a few
of all operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from pickletools import genops
from typing import Any

RECONSTRUCT = tuple(f"numpy.{core}.multiarray._reconstruct" for core in ("_core", "core"))
"""Functions that a pickle of numpy's calls to make an array."""

MOST_OPERATIONS = 10_000
"""A tensor takes fifty."""

PUSHED = {
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "BINFLOAT",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINBYTES",
    "SHORT_BINBYTES",
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class Name:
    """A class or a function, by its module and name."""

    name: str


@dataclass(frozen=True)
class Reference:
    """A value that the program which reads the pickle is to look up."""

    to: Any


@dataclass(eq=False)
class Call:
    """A call of `name`, and the state that its result would be told to take."""

    name: str
    arguments: tuple[Any, ...]
    state: Any = None


def parse_pickle(content: bytes) -> Any:
    """Parse a pickle: give plain values, and `Name`, `Reference` and `Call` for the rest.

    Raises
    ------
    ValueError
        If it is damaged, or needs other operations or more of them than tensors, arrays and None
        do.
    """
    machine = _Machine()
    try:
        for count, (operation, argument, _) in enumerate(genops(content)):
            if operation.name == "STOP":
                return machine.stack.pop()
            if count == MOST_OPERATIONS:
                raise ValueError(f"it takes more than {MOST_OPERATIONS} operations")
            machine.do(operation.name, argument)
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise ValueError("its pickle is damaged") from error
    raise ValueError("its pickle has no end")


class _Machine:
    """The stack on which a pickle builds values, and those that it refers to again."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def do(self, operation: str, argument: Any) -> None:
        if operation in PUSHED:
            self.stack.append(argument)
        elif operation in CONSTANTS:
            self.stack.append(CONSTANTS[operation])
        elif operation in TUPLES:
            self.stack.append(tuple(self.popped(TUPLES[operation])))
        elif method := getattr(self, f"do_{operation.lower()}", None):
            method(argument)
        else:
            raise ValueError(f"its pickle uses {operation}, which no tensor needs")

    def popped(self, n: int) -> list[Any]:
        start = len(self.stack) - n
        values = self.stack[start:] if start >= 0 else []
        if len(values) != n:
            raise IndexError
        del self.stack[start:]
        return values

    def marked(self) -> list[Any]:
        return self.popped(len(self.stack) - self.marks.pop())

    def do_proto(self, _: int) -> None: ...

    def do_frame(self, _: int) -> None: ...

    def do_mark(self, _: None) -> None:
        self.marks.append(len(self.stack))

    def do_tuple(self, _: None) -> None:
        self.stack.append(tuple(self.marked()))

    def do_binput(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    do_long_binput = do_binput

    def do_memoize(self, _: None) -> None:
        self.do_binput(len(self.memo))

    def do_binget(self, key: int) -> None:
        self.stack.append(self.memo[key])

    do_long_binget = do_binget

    def do_empty_list(self, _: None) -> None:
        self.stack.append([])

    def do_append(self, _: None) -> None:
        (value,) = self.popped(1)
        self.stack[-1].append(value)

    def do_appends(self, _: None) -> None:
        values = self.marked()
        self.stack[-1].extend(values)

    def do_empty_dict(self, _: None) -> None:
        self.stack.append({})

    def do_setitem(self, _: None) -> None:
        key, value = self.popped(2)
        self.stack[-1][key] = value

    def do_setitems(self, _: None) -> None:
        values = self.marked()
        self.stack[-1].update(zip(values[::2], values[1::2], strict=True))

    def do_global(self, name: str) -> None:
        self.stack.append(Name(name.replace(" ", ".")))

    def do_stack_global(self, _: None) -> None:
        module, name = self.popped(2)
        self.stack.append(Name(f"{module}.{name}"))

    def do_binpersid(self, _: None) -> None:
        self.stack.append(Reference(*self.popped(1)))

    def do_reduce(self, _: None) -> None:
        called, arguments = self.popped(2)
        self.stack.append(Call(called.name, tuple(arguments)))

    do_newobj = do_reduce

    def do_build(self, _: None) -> None:
        (state,) = self.popped(1)
        if not isinstance(self.stack[-1], Call):
            raise TypeError
        self.stack[-1].state = state
