"""The notebooks, executed from top to bottom, and shipped without outputs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def test_there_are_five():
    assert len(NOTEBOOKS) == 5


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_and_ends_in_a_figure(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code), (
        "is shipped without outputs"
    )
    NotebookClient(
        notebook,
        timeout=240,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    shown = [set(output.data) for output in code[-1].outputs if "data" in output]
    assert any("image/png" in kinds for kinds in shown), "the last cell shows a figure"
    said = [
        output.text for cell in code for output in cell.outputs if output.output_type == "stream"
    ]
    assert not any("Traceback" in text or "Warning" in text for text in said)
