"""The fused kernel as it is compiled for GPUs that are not here: no register is left in memory, it
fits, tensor cores are used, matrices stay where they are, and no tile compiles it anew."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.compiled_ahead import REGISTERS, SHARED_KB

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="compiled by triton")

WIDE, NARROW = 8, 1
"""Columns that those of templates are a multiple of."""
PROGRAMS = {(80, 256): 2, (90, 256): 2}
"""Programs that are to be on a multiprocessor, where more than one, by architecture and W."""
KEPT_UP_TO = 256
FEW_WORDS = 8
"""That may be left in memory where what is read is masked: displacements are few, and there is less
to read; or W is no power of two (3 words at 200 on sm_86, of 5832 instructions)."""


def compiled(*of_kernel, cache):
    """What kernels need, compiled in a process of its own."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(cache), "PYTHONWARNINGS": "error"}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-m", "tests.compiled_ahead", *map(json.dumps, of_kernel)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check(*of_kernel, cache):
    """One kernel is all that comes of it, and needs no more than there is."""
    (needs,) = compiled(*of_kernel, cache=cache)
    print(*of_kernel, needs)  # the table, with -s
    architecture, n_inplanes, column_step, *_ = of_kernel
    is_masked = column_step != WIDE or n_inplanes & (n_inplanes - 1)
    assert needs["spills"] <= (FEW_WORDS if is_masked else 0)
    assert needs["stack"] <= 4 * needs["spills"]
    assert needs["tensor_core_instructions"] > 0
    programs = PROGRAMS.get((architecture, n_inplanes), 1)
    # registers are given by eights to each thread
    registers = -(-needs["registers"] // 8) * 8 * 32 * needs["warps"]
    assert programs * registers <= REGISTERS
    assert programs * (needs["shared"] + 1024) <= (SHARED_KB[architecture] + 1) * 1024
    if n_inplanes <= KEPT_UP_TO:
        assert needs["matrices_in_loop"] == 0


def test_fits_and_leaves_nothing_in_memory(tmp_path):
    check(90, 256, WIDE, cache=tmp_path)


def test_is_compiled_once_for_all_tiles(tmp_path):
    tiles = [(1, 1, 33), (16, 16, 48), (3, 1, 257), (1, 32, 128), (7, 3, 64)]
    check(86, 64, WIDE, tiles, cache=tmp_path)


@pytest.mark.release
@pytest.mark.parametrize("column_step", [WIDE, NARROW])
@pytest.mark.parametrize("n_inplanes", [64, 128, 200, 202, 256, 360, 512, 1024])
@pytest.mark.parametrize("architecture", [80, 86, 90])
def test_fits_everywhere(architecture, n_inplanes, column_step, tmp_path):
    check(architecture, n_inplanes, column_step, cache=tmp_path)


@pytest.mark.release
@pytest.mark.parametrize("architecture", [80, 90])
def test_is_compiled_once_for_narrow_tiles_too(architecture, tmp_path):
    tiles = [(1, 1, 1), (16, 16, 16), (3, 1, 7), (1, 32, 31)]
    check(architecture, 64, NARROW, tiles, cache=tmp_path)
