"""The shape of the package: which way imports go, what is imported when, how large files are, what must not exist."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from numpydoc.docscrape import FunctionDoc

import cryolike_dask as cld

PACKAGE = Path(cld.__file__).parent
ORDER = [
    ["errors"],
    ["conventions"],
    ["labels"],
    ["geometry"],
    ["likelihoods.kernels"],
    ["io"],
    ["stacks"],
    ["structures", "particles"],
    ["figures"],
    ["plots"],
    ["likelihoods"],
    ["addresses", "closing", "dashboard", "worker_setup"],
    ["plans", "cluster", "connecting"],
    ["watching"],
    ["execution"],
    ["counting", "origins", "claiming"],
    ["running"],
    ["structures.making", "particles.converting", "run_likelihood", "verifying"],
    ["trials"],
    ["costs"],
    ["simulate"],
    ["analysis"],
    ["demo"],
    ["config"],
    ["cli"],
    ["__main__"],
]
"""Imports go only towards the start of this list, or stay inside an entry."""


def layer_of(module: str) -> tuple[int, str]:
    """The position in `ORDER` of a module named relative to the package, and the entry that it belongs to."""
    matches = [
        (len(entry), position, entry)
        for position, entries in enumerate(ORDER)
        for entry in entries
        if module == entry or module.startswith(entry + ".")
    ]
    assert matches, f"{module} has no place in ORDER"
    _, position, entry = max(matches)
    return position, entry


def wrong_imports(module: str, source: str) -> list[str]:
    """The imports of a module that go the wrong way."""
    position, own = layer_of(module)
    wrong = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "cryolike_dask":
            base = (node.module or "").removeprefix("cryolike_dask").lstrip(".")
            imported = [base] if base else [a.name for a in node.names if a.name != "__version__"]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names if a.name.startswith("cryolike_dask.")]
            imported = [n.removeprefix("cryolike_dask.") for n in names]
        else:
            continue
        for name in imported:
            there, entry = layer_of(name)
            if there > position or (there == position and entry != own):
                wrong.append(f"{module} imports {name}")
    return wrong


def modules() -> dict[str, str]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        if name != "__init__":
            found[name] = path.read_text()
    return found


def test_imports_go_one_way():
    assert [line for name, source in modules().items() for line in wrong_imports(name, source)] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("geometry.optics", "from cryolike_dask.io.tensors import save_tensor"),
        ("io.tensors", "import cryolike_dask.stacks"),
        ("conventions", "from cryolike_dask import labels"),
        ("plans", "def f():\n    from cryolike_dask.cluster import local_cluster"),
    ],
)
def test_a_wrong_import_is_seen(module, source):
    assert wrong_imports(module, source)


def test_a_right_import_is_not_blamed():
    assert not wrong_imports("cli", "from cryolike_dask import __version__, labels\nimport cryolike_dask.io.layout")


@pytest.mark.parametrize(
    "module",
    ["cryolike_dask", "cryolike_dask.likelihoods.blocks", "cryolike_dask.io.results", "cryolike_dask.connecting"],
)
def test_what_the_scheduler_imports_does_not_import_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_public_names_exist_and_are_listed():
    assert all(getattr(cld, name) is not None for name in cld.__all__)
    assert set(cld.__all__) <= set(dir(cld))
    with pytest.raises(AttributeError, match="no_such_name"):
        cld.no_such_name  # noqa: B018


def test_files_hold_one_idea():
    too_long = {name: len(text.splitlines()) for name, text in modules().items() if len(text.splitlines()) > 400}
    assert not too_long


@pytest.mark.parametrize(
    "forbidden",
    ["allow_pickle=True", "weights_only=False", "set_default_dtype", "set_default_device", 'os.environ.get("CRYO'],
)
def test_forbidden_words(forbidden):
    assert [name for name, text in modules().items() if forbidden in text] == []


def test_only_the_command_line_prints():
    printing = [
        name
        for name, text in modules().items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not printing


def public_functions():
    for name in cld.__all__:
        value = getattr(cld, name)
        if inspect.isfunction(value):
            yield name, value
    from cryolike_dask.likelihoods import kernels

    for name in kernels.__all__:
        yield name, getattr(kernels, name)


@pytest.mark.parametrize(("name", "function"), [pytest.param(n, f, id=n) for n, f in public_functions()])
def test_documented_parameters_are_the_parameters(name, function):
    """A docstring either names every parameter, or says whose parameters it shares."""
    assert function.__doc__
    shared = [n for n, _ in public_functions() if f"those of `{n}`" in " ".join(function.__doc__.split())]
    documented = {
        part.strip().lstrip("*")
        for doc in [function, *(dict(public_functions())[n] for n in shared)]
        for parameter in FunctionDoc(doc)["Parameters"]
        for part in parameter.name.split(",")
    }
    actual = set(inspect.signature(function).parameters)
    assert actual <= documented
    assert documented <= actual or shared
