"""The notebooks, executed from top to bottom, and shipped without outputs."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def test_there_are_six():
    assert len(NOTEBOOKS) == 6


def executed(path: Path, folder: Path) -> nbformat.NotebookNode:
    """A notebook, as it is after it was executed in a folder."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        timeout=240,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    ).execute()
    return notebook


@pytest.fixture(scope="module")
def executions(tmp_path_factory, request):
    """The notebooks whose tests are to come, executed two at a time: each spends half of its time
    starting processes, which one core does."""
    items = [item for item in request.session.items if is_of_here(item)]
    chosen = dict.fromkeys(item.callspec.params["path"] for item in items)
    with ThreadPoolExecutor(2) as pool:
        yield {
            path: pool.submit(executed, path, tmp_path_factory.mktemp(path.stem)) for path in chosen
        }


def is_of_here(item):
    return item.path == Path(__file__) and hasattr(item, "callspec")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_and_ends_in_a_figure(path, executions):
    shipped = nbformat.read(path, as_version=4)
    nbformat.validate(shipped)
    code = [cell for cell in shipped.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code), (
        "is shipped without outputs"
    )
    notebook = executions[path].result()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = [set(output.data) for output in code[-1].outputs if "data" in output]
    assert any("image/png" in kinds for kinds in shown), "the last cell shows a figure"
    said = [
        output.text for cell in code for output in cell.outputs if output.output_type == "stream"
    ]
    assert not any("Traceback" in text or "Warning" in text for text in said)


@pytest.mark.parametrize("path", NOTEBOOKS[5:], ids=lambda path: path.stem)
def test_the_shares_of_a_simulation_are_those_of_the_truth(path, executions):
    """As the README tells it."""
    code = [cell for cell in executions[path].result().cells if cell.cell_type == "code"]
    said = "".join(o.text for cell in code for o in cell.outputs if o.output_type == "stream")
    numbers = re.search(
        r"open: (\d+)% \+- (\d+)% by the particles, (\d+)% of the frames\nin truth (\d+)%", said
    )
    found, sd, simulated, true = map(int, numbers.groups())
    assert (simulated, true) == (36, 82)
    assert abs(found - 84) <= 2
    assert sd in (2, 3, 4)
