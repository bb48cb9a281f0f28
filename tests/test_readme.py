"""What the README says, and the two pages that go on from it, is what happens."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from cryolike_dask.config.reading import read_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [README, *((ROOT / "docs" / page).read_text() for page in ("steps.md", "python.md"))]


def block(name: str) -> str:
    """The code block behind a marker."""
    marker = rf"<!-- (?:not run: run by tests/test_readme.py as )?{name} -->"
    return re.search(rf"{marker}\n```\w+\n(.*?)\n```", "\n".join(PAGES), re.DOTALL)[1]


def test_the_readme_is_short_and_asks_what_a_reader_does():
    assert README.count("\n") <= 120
    headings = re.findall(r"^## (.+)$", README, re.MULTILINE)
    assert [heading for heading in headings if not heading.endswith("?")] == []
    contents = re.findall(r"^- \[(.+)\]\(#(.+)\)$", README, re.MULTILINE)
    assert [text for text, _ in contents] == headings
    for text, anchor in contents:
        assert anchor == re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def test_links_of_the_readme_lead_somewhere():
    for path, anchor in re.findall(r"\]\((?!#)([^)#\s]+)(?:#([^)]+))?\)", README):
        assert (ROOT / path).exists(), path
        headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(), re.M) if anchor else []
        named = [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings]
        assert anchor == "" or anchor in named, f"{path}#{anchor}"


@pytest.mark.parametrize("name", ["demo", "test"])
def test_commands_install_tested_versions_into_a_new_environment(name):
    command = block(name)
    assert command.startswith("python3 -m venv .venv && .venv/bin/pip install -c constraints.txt ")
    assert "\n" not in command


def test_continuous_integration_runs_the_test_command():
    script = (ROOT / ".ci/run").read_text()
    extract = re.search(r"^command=\$\((.*)\)$", script, re.MULTILINE)[1]
    found = subprocess.run(
        ["bash", "-c", extract], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert found.strip() == block("test")


def in_the_shell(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in a folder, with this Python and its commands."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-euc", script],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "PATH": path, "COLUMNS": "200"},
    )


@pytest.fixture(scope="module")
def blocks_run(tmp_path_factory, demo):
    """Every block that is run beside what the demo leaves: its folder, and what came of it.

    Two at a time: each spends half of its time starting processes, which one core does.
    """
    scripts = {
        "commands": "{}",
        "run": "{}",
        "python": "cat > example.py <<'END'\n{}\nEND\npython example.py",
    }
    folders = {}
    for name in scripts:
        folder = folders[name] = tmp_path_factory.mktemp(f"{name} of the README")
        inside = folder if name == "python" else folder / "cryolike-dask-demo"
        for part in ("structures", "relion"):
            shutil.copytree(demo / part, inside / part)
    with ThreadPoolExecutor(2) as pool:
        done = {
            name: pool.submit(in_the_shell, script.format(block(name)), folders[name])
            for name, script in scripts.items()
        }
        return {name: (folders[name], done[name].result()) for name in scripts}


def test_commands_run(blocks_run):
    folder, done = blocks_run["commands"]
    folder = folder / "cryolike-dask-demo"
    assert done.returncode == 0, done.stderr
    assert "128 images" in done.stdout
    assert len(list(folder.glob("my-likelihood/template?/done/stack_*.json"))) == 4
    pictures = {str(path.relative_to(folder)) for path in folder.rglob("*.png")}
    assert pictures == {"my-particles/particles.png"}
    done = subprocess.run(
        [sys.executable, "-c", block("results")],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d\d% of 128 images prefer the open structure", done.stdout)
    assert (folder / "results.zarr").is_dir()


@pytest.fixture(scope="module")
def one_run(blocks_run):
    """What the commands of one run in one file say, and the folder that they leave."""
    folder, done = blocks_run["run"]
    assert done.returncode == 0, done.stderr
    return done.stdout, folder / "cryolike-dask-demo"


def test_one_run_in_one_file(one_run):
    said, folder = one_run
    assert "cryolike-dask config check cryolike-dask-demo/run.yaml" in said
    assert "nothing is wrong" in said
    assert "128 images, 1024 at a time" in said
    assert "48 pixels of 2.5 angstrom, 250 views, 96 rotations, 169 displacements" in said
    assert f"128 images: results are in {folder / 'results'}" in said
    shares = pd.read_csv(folder / "results/populations/populations.csv", index_col="structure")
    for name, share in shares.population.items():
        assert re.search(rf"^{name} +{share:.2%} ", said, re.MULTILINE)
    assert f"The report is {folder / 'results/report.html'}" in said
    assert (folder / "results/report.html").is_file()
    assert len(list(folder.glob("*/template?/done/stack_*.json"))) == 2
    assert read_config(folder / "results/run.yaml").output == folder / "results"


def test_results_of_one_run_are_exported(one_run):
    _, folder = one_run
    command = ["-m", "cryolike_dask", "export", "results", "--star", "relion/assigned.star"]
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "128 particles: relion/assigned.star" in done.stdout


def test_python_example_runs(blocks_run):
    folder, done = blocks_run["python"]
    assert done.returncode == 0, done.stderr
    assert "http://127.0.0.1" in done.stdout
    # both stacks
    assert len(list((folder / "likelihood-from-python").glob("template?/done/*.json"))) == 4
