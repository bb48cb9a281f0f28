"""Kernels compiled for GPUs that are not here, by the way that a launch takes: what each needs of a
multiprocessor, and how often it is compiled.

    python -m tests.compiled_ahead ARCHITECTURE W COLUMN_STEP [TILES]

prints that of the kernel of pairs as JSON, for tiles of [[images, templates, displacements], ...].
In a process of its own, as Triton's interpreter cannot be left once a kernel was made for it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

REGISTERS = 65536
"""Of a multiprocessor, of each architecture here."""
SHARED_KB = {80: 163, 86: 99, 90: 227}
"""Shared memory that a program can have, by architecture."""


class Elsewhere:
    """In place of Triton's driver: a GPU of some architecture."""

    def __init__(self, architecture):
        self.architecture = architecture

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.architecture, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


class CompiledOnly:
    """In place of a kernel: launches compile it, and do no more."""

    def __init__(self, kernel):
        self.kernel = kernel

    def __getitem__(self, grid):
        return lambda **arguments: self.kernel.warmup(grid=grid, **arguments)

    def compiled(self):
        return list(self.kernel.device_caches[0][0].values())


def needs_of(compiled):
    """What the machine code of a kernel needs, by the tools that come with Triton."""
    import triton

    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(compiled.asm["cubin"])
        usage, code = (
            subprocess.run(
                [tools / name, option, file.name], capture_output=True, text=True, check=True
            ).stdout
            for name, option in (("cuobjdump", "-res-usage"), ("nvdisasm", "-c"))
        )
    names = re.findall(r"/\*[0-9a-f]{4,}\*/ +(?:@!?U?P\w+ +)?([A-Z0-9_.]+)", code)
    return {
        "registers": int(re.search(r"REG:(\d+)", usage)[1]),
        "stack": int(re.search(r"STACK:(\d+)", usage)[1]),
        "spills": sum(name.startswith(("LDL", "STL")) for name in names),
        "shared": compiled.metadata.shared,
        "warps": compiled.metadata.num_warps,
        # not all that say so: HFMA2.MMA is none
        "tensor_core_instructions": sum(name.startswith(("HMMA", "HGMMA")) for name in names),
        "instructions": len(names),
        # what is read of half precision after the first loop has begun: matrices are
        "matrices_in_loop": compiled.asm["ttgir"].split("scf.for", 1)[1].count("ptr<f16>"),
    }


def tile_terms(n_inplanes, n_displacements, n_images, n_templates, column_step):
    """Terms of a tile of any content, and a reference."""
    import torch

    from cryolike_dask.likelihoods.kernels.fused_cuda import TileTerms

    half, stride = n_inplanes // 2, -(-n_displacements // column_step) * column_step
    columns = -(-n_templates * stride // 16) * 16
    by_rows = torch.zeros(half, n_images, n_templates, dtype=torch.float64)
    return TileTerms(
        products=torch.zeros(half + 1, 2, n_images, columns),
        n_displacements=n_displacements,
        column_stride=stride,
        shift=torch.zeros(n_images, n_templates),
        norm=by_rows.float(),
        scale=by_rows,
        height=by_rows,
        exponents=torch.zeros(n_images, dtype=torch.float64),
    ), by_rows[0]


def compile_pairs(architecture, n_inplanes, column_step, tiles=((3, 2, 60),)):
    """Compile the kernel of pairs for tiles of (images, templates, displacements): all that comes
    of it."""
    from triton.runtime import driver

    from cryolike_dask.likelihoods.kernels import fused_cuda

    driver.set_active(Elsewhere(architecture))
    kernel = fused_cuda.summarise_pairs = CompiledOnly(fused_cuda.summarise_pairs)
    for n_images, n_templates, n_displacements in tiles:
        terms, reference = tile_terms(
            n_inplanes, n_displacements, n_images, n_templates, column_step
        )
        fused_cuda.summarise_fused(terms, reference, terms.shift[:, 0])
    return kernel.compiled()


if __name__ == "__main__":
    of_kernel = [json.loads(argument) for argument in sys.argv[1:]]
    print(json.dumps([needs_of(compiled) for compiled in compile_pairs(*of_kernel)]))
