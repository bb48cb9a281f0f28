"""The shape of the package: which way imports go, what is imported when, how large files are,
what must not exist."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from numpydoc.docscrape import FunctionDoc

import cryolike_dask as cld

PACKAGE = Path(cld.__file__).parent
CONTRIBUTING = PACKAGE.parent / "CONTRIBUTING.md"
ARCHITECTURE = PACKAGE.parent / "docs" / "architecture.md"
ROOMS = {
    match[2]: (int(match[1]), match[3])
    for match in re.finditer(r"^\| (\d+) \| `(\w+)/?` \| (.+) \|$", CONTRIBUTING.read_text(), re.M)
}
"""Floor and description of each room: imports go to a lower floor, or stay inside a room."""


def floor_of(module: str) -> int:
    """The floor of the room that a module is in."""
    assert room_of(module) in ROOMS, f"{module} is in no room of {CONTRIBUTING.name}"
    return ROOMS[room_of(module)][0]


def room_of(module: str) -> str:
    """The folder or file in the root that a module, named relative to the package, belongs to."""
    return module.split(".")[0]


def imported_by(source: str) -> list[str]:
    """The modules of the package, relative to it, that a source imports anywhere; "" for the
    package itself."""
    found = []
    for node in ast.walk(ast.parse(source)):
        assert not getattr(node, "level", 0), "relative imports hide where they go"
        if (
            isinstance(node, ast.ImportFrom)
            and (node.module or "").split(".")[0] == "cryolike_dask"
        ):
            base = (node.module or "").removeprefix("cryolike_dask").lstrip(".")
            found += [base] if base else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names if a.name.split(".")[0] == "cryolike_dask"]
            found += [name.removeprefix("cryolike_dask").lstrip(".") for name in names]
    return found


def wrong_imports(module: str, source: str) -> list[str]:
    """The imports of a module that go the wrong way."""
    return [
        f"{module} imports {name}"
        for name in imported_by(source)
        if room_of(name) != room_of(module) and floor_of(name) >= floor_of(module)
    ]


def modules() -> dict[str, str]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        if name != "__init__":
            found[name] = path.read_text()
    return found


def test_imports_go_one_way():
    assert [
        line for name, source in modules().items() for line in wrong_imports(name, source)
    ] == []


def test_every_room_has_its_place_and_is_described_in_one_way():
    rooms = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    rooms |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms == set(ROOMS)
    for room, (_, description) in ROOMS.items():
        path = PACKAGE / room
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        documented = ast.get_docstring(ast.parse(source.read_text())) or ""
        assert " ".join(documented.partition("\n\n")[0].split()) == description, room


def test_the_tree_in_the_documentation_is_the_tree():
    """Every module stands there below its room, folders in a room as one."""
    tree = re.search(r"```text\n(.*?)```", ARCHITECTURE.read_text(), re.DOTALL)[1]
    drawn, room = [], ""
    for line in filter(str.strip, tree.splitlines()):
        names = re.split(r" {3,}", line.strip())[0].split()
        if line.startswith(" "):
            drawn += [f"{room}.{name}" for name in names]
        else:
            room = names[0].rstrip("/")
            drawn += names
    expected = [
        f"{name}/" if (PACKAGE / name.replace(".", "/")).is_dir() else name
        for name in modules()
        if name.count(".") < 2
    ]
    assert sorted(drawn) == sorted(n for n in expected if n != "__main__")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("geometry.optics", "from cryolike_dask.io.tensors import save_tensor"),
        ("io.tensors", "import cryolike_dask.stacks"),
        ("errors", "from cryolike_dask import labels"),
        ("particles.opening", "from cryolike_dask.likelihoods.graph import spread_templates"),
        ("compute.stream", "def f():\n    from cryolike_dask.likelihoods import tiles"),
        (
            "runs.run",
            "if TYPE_CHECKING:\n    from cryolike_dask.analysis.dataset import open_results",
        ),
    ],
)
def test_a_wrong_import_is_seen(module, source):
    assert wrong_imports(module, source)


@pytest.mark.parametrize(
    "source",
    [
        "import cryolike_dask",
        "from cryolike_dask import __version__",
        "from cryolike_dask import no_room",
    ],
)
def test_what_is_imported_from_no_room_is_seen(source):
    with pytest.raises(AssertionError, match="is in no room"):
        wrong_imports("cli.app", source)


def test_a_right_import_is_not_blamed():
    source = "from cryolike_dask.version import __version__\nimport cryolike_dask.io.layout"
    assert not wrong_imports("cli.app", source)
    assert not wrong_imports("io.stores", "from cryolike_dask.io import layout")


def test_what_the_scheduler_imports_does_not_import_torch():
    """One process imports one after the other, and names those after which torch is there."""
    names = [
        "cryolike_dask",
        "cryolike_dask.compute.remote",
        "cryolike_dask.io.results",
        "cryolike_dask.likelihoods.blocks",
    ]
    code = (
        "import importlib, sys\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules: print(name)"
    )
    command = [sys.executable, "-c", code, *names]
    assert not subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_functions_of_cryolike_are_where_they_are_there():
    from cryolike_dask import likelihoods

    for name in ("compute_optimal_pose", "compute_cross_correlation_complete"):
        assert getattr(likelihoods, name) is getattr(cld, name)
    assert set(likelihoods.__all__) <= set(cld.__all__)


def test_kernels_know_neither_dask_nor_files():
    strangers = ("dask", "distributed", "xarray", "cryolike_dask.io")
    wrong = [
        f"{name} imports {imported}"
        for name, text in modules().items()
        if name.startswith("likelihoods.kernels")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        for imported in [
            f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
        ]
        if any(
            imported == stranger or imported.startswith(f"{stranger}.") for stranger in strangers
        )
    ]
    assert not wrong


def test_public_names_exist_and_are_listed():
    assert all(getattr(cld, name) is not None for name in cld.__all__)
    assert set(cld.__all__) <= set(dir(cld))
    with pytest.raises(AttributeError, match="no_such_name"):
        cld.no_such_name  # noqa: B018


def test_files_hold_one_idea():
    too_long = {
        name: len(text.splitlines())
        for name, text in modules().items()
        if len(text.splitlines()) > 400
    }
    assert not too_long


def functions(source: str):
    """Every function of a source, and how many parameters it has besides self."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            yield node, len([a for a in arguments if a.arg not in ("self", "cls")])


def is_compiled(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a function is a loop for numba or triton, which take no objects."""
    decorators = " ".join(map(ast.unparse, function.decorator_list))
    return "njit" in decorators or "triton" in decorators


MOST_PARAMETERS = 8
HANDS_ON = ("run_likelihood", "likelihoods.interface", "cli.")
"""Rooms whose functions have the parameters that users give, as have all public functions."""


def test_functions_are_told_little():
    many = [
        f"{name}.{function.name}: {n}"
        for name, text in modules().items()
        if not name.startswith(HANDS_ON)
        for function, n in functions(text)
        if n > MOST_PARAMETERS and function.name not in cld.__all__ and not is_compiled(function)
    ]
    assert not many


def test_what_values_hold_is_said():
    """`dict[str, Any]` says nothing of its keys: it may only get fewer."""
    assert sum(text.count("dict[str, Any]") for text in modules().values()) <= 25


@pytest.mark.parametrize(
    "forbidden",
    [
        "allow_pickle=True",
        "weights_only=False",
        "set_default_dtype",
        "set_default_device",
        'os.environ.get("CRYO',
    ],
)
def test_forbidden_words(forbidden):
    assert [name for name, text in modules().items() if forbidden in text] == []


def words_in(source: str) -> set[str]:
    """The texts in a source that a program goes by: those without a blank, which messages have,
    apart from docstrings and from the defaults of signatures, which are a user's words."""
    tree = ast.parse(source)
    said = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    for node in ast.walk(tree):
        if isinstance(node, ast.arguments):
            said += [default for default in (*node.defaults, *node.kw_defaults) if default]
    left_out = {id(node) for part in said for node in ast.walk(part)}
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in left_out
        and not re.search(r"\s", node.value)
    }


FILE_NAME = re.compile(
    r"\.(pt|npz|zarr)\b|(particles|templates)_(fourier|phys)|template_file_list|^(fft|phys)$|/done/"
)


def test_only_layout_names_files():
    assert {
        name: words
        for name, source in modules().items()
        if name != "io.layout" and (words := set(filter(FILE_NAME.search, words_in(source))))
    } == {}


def test_only_conventions_are_called_by_their_names():
    """The methods of results have a name of theirs: `results.cryolike`."""
    assert [
        name
        for name, source in modules().items()
        if name not in ("conventions", "analysis.accessor")
        and words_in(source) & {"standard", "cryolike"}
    ] == []


def test_names_in_a_source_are_seen():
    source = """
def f(path: str = "a.pt", conventions="standard"):
    \'\'\'Write `b.pt`.\'\'\'
    raise ValueError(f"{path} is no .pt file")
    return f"{path}.npz", conventions == "cryolike"
"""
    assert words_in(source) == {".npz", "cryolike"}


def test_only_the_command_line_prints():
    printing = [
        name
        for name, text in modules().items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
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


@pytest.mark.parametrize(
    ("name", "function"), [pytest.param(n, f, id=n) for n, f in public_functions()]
)
def test_documented_parameters_are_the_parameters(name, function):
    """A docstring either names every parameter, or says whose parameters it shares."""
    assert function.__doc__
    shared = [
        n for n, _ in public_functions() if f"those of `{n}`" in " ".join(function.__doc__.split())
    ]
    documented = {
        part.strip().lstrip("*")
        for doc in [function, *(dict(public_functions())[n] for n in shared)]
        for parameter in FunctionDoc(doc)["Parameters"]
        for part in parameter.name.split(",")
    }
    actual = set(inspect.signature(function).parameters)
    assert actual <= documented
    assert documented <= actual or shared
