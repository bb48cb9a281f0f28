"""PDB files by their columns: where models are, and the atoms of one."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator

import gemmi
import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputFileError
from cryolike_dask.structures.columns import Model, residues, without_alternates
from cryolike_dask.structures.elements import elements_by_name

Span = tuple[int, int]
"""First byte of a model in its file, and the byte after its last."""

ATOM = re.compile(rb"(?i)^(?:ATOM  |HETATM)", re.MULTILINE)
MODEL = re.compile(rb"(?i)^MODEL\b", re.MULTILINE)
END = re.compile(rb"(?i)^END(?:MDL)?[ \r]*$", re.MULTILINE)

WIDTH = 80
END_OF_POSITION = 54
"""Columns of a line, and the last one of its coordinates."""
AT_ONCE = 2**22
"""Bytes that are split into lines at once: their positions take eight times as much."""
HYBRID_36 = 10 * 36**3 - 10**4
"""Residue numbers that begin with a letter count on from 9999 in base 36."""


def model_spans(content: bytes | mmap.mmap) -> list[Span]:
    """Find the models that have atoms: they begin with MODEL, or end with END or ENDMDL where
    there is no MODEL."""
    starts = [match.start() for match in MODEL.finditer(content)]
    if starts and ATOM.search(content, 0, starts[0]):
        starts = [0, *starts]
    if not starts:
        starts = [0, *(match.end() for match in END.finditer(content))]
    spans = zip(starts, [*starts[1:], len(content)], strict=True)
    return [span for span in spans if ATOM.search(content, *span)]


def read_pdb_model(content: bytes, where: str) -> Model:
    """Read the atoms of one model, up to its end.

    Parameters
    ----------
    content : bytes
    where : str
        What messages call it.

    Raises
    ------
    InputFileError
        If there are no atoms, or one without a position, or whose coordinates overflowed into
        asterisks.
    """
    end = _end_of(content)
    rows, part = _rows(content, end)
    if not len(rows):
        raise InputFileError(
            "has no atoms", source=where, remedy="Give a PDB or mmCIF file with coordinates."
        )
    position, altloc = _positions(rows, where), rows[:, 16]
    of_part = np.hstack(
        [rows[:, 20:22], rows[:, 72:76], part.view(np.uint8).reshape(len(rows), -1)]
    )
    residue_name = _words(rows[:, 17:20])
    element, guessed = _elements(rows, residue_name)
    model = Model(
        name=_words(rows[:, 12:16]),
        residue_name=residue_name,
        chain=_words(rows[:, 20:22]),
        residue_number=_numbers(rows[:, 22:26]),
        element=element,
        residue=residues(
            _codes(np.hstack([of_part, rows[:, 22:27]])),
            _codes(rows[:, 12:16]),
            residue_name,
            altloc,
        ),
        part=_counted(_codes(of_part)),
        hetero=(rows[:, 0] | 32) == ord("h"),
        guessed=guessed,
        position_angstrom=position,
        b_factor=_b_factors(rows),
        notes=_what_is_odd(rows, ATOM.search(content, end) is not None),
    )
    return without_alternates(model, altloc, _occupancies(rows, altloc))


def _end_of(content: bytes) -> int:
    """Position of END or ENDMDL; words are found many times faster than patterns."""
    positions = [at for word in (b"\nEND", b"\nend") if (at := content.find(word)) >= 0]
    match = END.search(content, min(positions)) if positions else None
    return len(content) if match is None else match.start()


def _rows(content: bytes, end: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Lines of atoms, (atom, column), blanks where they are shorter, and how many ends of chains
    are above each."""
    rows, part, n_ends = [np.empty((0, WIDTH), np.uint8)], [np.empty(0, np.int32)], 0
    for lines in _pieces(content, end):
        letters = lines[:, :6] & ~np.uint8(32)  # upper case, and nothing for a blank
        is_atom = (letters[:, :4] == list(b"ATOM")).all(1) & (
            (lines[:, 4] == 32) | (lines[:, 4] < 58)
        )
        is_atom |= (letters == list(b"HETATM")).all(1)
        is_end = (letters[:, :3] == list(b"TER")).all(1) & (lines[:, 3] < 58)
        ends = n_ends + np.cumsum(is_end)
        rows.append(lines[is_atom])
        part.append(ends[is_atom].astype(np.int32))
        n_ends = int(ends[-1])
    return np.concatenate(rows), np.concatenate(part)


def _pieces(content: bytes, end: int) -> Iterator[NDArray[np.uint8]]:
    """Lines that may be of atoms or ends of chains, (line, column), some at a time."""
    start = 0
    while start < end:
        stop = content.rfind(b"\n", start, min(start + AT_ONCE, end)) + 1
        n = stop - start
        if stop <= start:  # the last line, or one so long that only its beginning can matter
            n = min(WIDTH, end - start)
            stop = content.find(b"\n", start, end) + 1 or end
        text = np.frombuffer(content, np.uint8, n, start)
        stops = np.flatnonzero(text == 10)
        stops = stops if len(stops) and stops[-1] == len(text) - 1 else np.append(stops, len(text))
        starts = np.append(0, stops[:-1] + 1)
        padded = np.append(text, np.full(WIDTH, 32, np.uint8))
        known = np.isin(padded[starts] | 32, list(b"aht"))
        starts, length = starts[known], (stops - starts)[known]
        lines = padded[starts[:, None] + np.arange(WIDTH)]
        lines[(np.arange(WIDTH) >= length[:, None]) | (lines < 32)] = 32
        lines[lines > 126] = ord("?")
        # a number that is cut short would be another
        lines[length < END_OF_POSITION, END_OF_POSITION - 8 : END_OF_POSITION] = 32
        if len(lines):
            yield lines
        start = stop


def _positions(rows: NDArray[np.uint8], where: str) -> NDArray[np.float64]:
    """Coordinates; blank or overflowed ones are refused, which stand for nothing."""
    texts = np.ascontiguousarray(rows[:, 30:END_OF_POSITION]).view("S8")
    try:
        positions = texts.astype(np.float64)
    except ValueError:
        positions = np.array([[_number(text) for text in three] for three in texts.tolist()])
    bad = np.flatnonzero(~np.isfinite(positions).all(1))
    if len(bad):
        line = rows[bad[0], :54].tobytes().decode().rstrip()
        raise InputFileError(
            f"an atom has no position: {line!r}",
            source=where,
            remedy="Write the file again, the structure about 0.",
        )
    return positions


def _occupancies(rows: NDArray[np.uint8], altloc: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Occupancies of alternates; they are not looked at elsewhere."""
    occupancies = np.zeros(len(rows))
    atoms = np.flatnonzero(altloc != 32)
    texts = np.ascontiguousarray(rows[atoms, 54:60]).view("S6")[:, 0].tolist()
    occupancies[atoms] = np.nan_to_num([_number(text) for text in texts])
    return occupancies


def _b_factors(rows: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Columns 61 to 66; NaN where they are blank or no number."""
    texts, inverse = _distinct(rows[:, 60:66])
    return np.array([_number(text) for text in texts.tolist()])[inverse]


def _what_is_odd(rows: NDArray[np.uint8], has_more: bool) -> tuple[str, ...]:
    old = (
        ("columns 73-80 hold an identifier and line numbers, as until 1996",)
        if _is_old(rows)
        else ()
    )
    return (
        (*old, "atoms after the end of the model (END or ENDMDL) are left out") if has_more else old
    )


def _is_old(rows: NDArray[np.uint8]) -> bool:
    """Whether each line ends with the same identifier and a number of its own."""
    digits = (rows[:, 76:80] >= ord("0")) & (rows[:, 76:80] <= ord("9"))
    numbers = (digits | (rows[:, 76:80] == 32)).all(1) & digits[:, 3]
    identifier = rows[:, 72:76]
    return bool(
        numbers.all() and (identifier[0] != 32).all() and (identifier == identifier[0]).all()
    )


def _number(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def _numbers(columns: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Residue numbers."""
    texts, inverse = _distinct(columns)
    try:
        return texts.astype(np.int64)[inverse]
    except ValueError:
        return np.array(
            [_residue_number(text.decode().strip()) for text in texts.tolist()], np.int64
        )[inverse]


def _residue_number(text: str) -> int:
    if text[:1].isalpha():
        return int(text, 36) - HYBRID_36 if text.isalnum() else 0
    digits = re.match(r"[-+]?\d+", text)
    return 0 if digits is None else int(digits[0])


def _elements(
    rows: NDArray[np.uint8], residue_name: NDArray[np.str_]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Atomic numbers as columns 77 and 78 state them, else by the names; and which are guesses."""
    symbols, inverse = _distinct(rows[:, 76:78])
    stated = [symbol.decode().strip() for symbol in symbols.tolist()]
    element = np.array([gemmi.Element(symbol).atomic_number for symbol in stated], np.int64)[
        inverse
    ]
    guessed = np.zeros(len(rows), np.bool_)
    silent = np.flatnonzero(
        ~np.array([any(map(str.isalpha, symbol)) for symbol in stated])[inverse]
    )
    if len(silent):
        names = np.char.decode(_codes(rows[silent, 12:16]), "ascii")
        element[silent], guessed[silent] = elements_by_name(names, residue_name[silent])
    return element, guessed


def _codes(columns: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """Columns of text as one value for each line."""
    text = np.ascontiguousarray(columns)
    return text.view(f"S{text.shape[1]}")[:, 0]


def _distinct(columns: NDArray[np.uint8]) -> tuple[NDArray[np.bytes_], NDArray[np.int64]]:
    """The distinct texts of up to eight columns, and which of them each line has; as numbers,
    which sort faster."""
    eight = np.zeros((len(columns), 8), np.uint8)
    eight[:, : columns.shape[1]] = columns
    values, inverse = np.unique(eight.view(np.uint64)[:, 0], return_inverse=True)
    return values.view("S8"), inverse


def _words(columns: NDArray[np.uint8]) -> NDArray[np.str_]:
    """Columns of text without blanks around it."""
    texts, inverse = _distinct(columns)
    return np.array([text.decode().strip() for text in texts.tolist()], f"U{columns.shape[1]}")[
        inverse
    ]


def _counted(codes: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """Count distinct values, most of which are those of the line before."""
    new = np.append(True, codes[1:] != codes[:-1])
    _, inverse = np.unique(codes[new], return_inverse=True)
    counted: NDArray[np.int64] = inverse[np.cumsum(new) - 1]
    return counted
