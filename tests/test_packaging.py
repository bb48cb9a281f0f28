"""What is built, installed and cited says the same as pyproject.toml, and names what is there.

Nothing is built here: .ci/release builds, installs and runs the wheel and the source distribution.
"""

from __future__ import annotations

import re
import tomllib
from datetime import date
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCKERFILE = (ROOT / "packaging/Dockerfile").read_text()
APPTAINER = (ROOT / "packaging/apptainer.def").read_text()
RECIPE = yaml.safe_load((ROOT / "packaging/conda/recipe.yaml").read_text())
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())

IN_CONDA = {
    "dask[array,distributed]": "dask",
    "lazy_loader": "lazy-loader",
    "matplotlib": "matplotlib-base",
    "torch": "pytorch",
}
"""Packages that have another name there."""

OF_CITATIONS = """
abstract authors cff-version commit contact date-released doi identifiers keywords license
license-url message preferred-citation references repository repository-artifact
repository-code title type url version
"""
"""The keys that the format 1.2.0 has."""

INSTRUCTIONS = {"FROM", "ARG", "LABEL", "RUN", "WORKDIR", "COPY", "ENV", "ENTRYPOINT", "CMD"}
SECTIONS = {"arguments", "labels", "files", "post", "runscript", "test"}


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile: name, and what follows it."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = lines.replace("\\\n", " ").splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined) if name]


def sections(text: str) -> dict[str, list[str]]:
    """The sections of a definition of Apptainer, without comments and empty lines."""
    found: dict[str, list[str]] = {"": []}
    name = ""
    for line in (line.strip() for line in text.splitlines()):
        if line.startswith("%"):
            name = line[1:]
            found[name] = []
        elif line and not line.startswith("#"):
            found[name].append(line)
    return found


COPIES = [rest.split()[:-1] for name, rest in instructions(DOCKERFILE) if name == "COPY"]
COPIED = {
    "Dockerfile": [path for paths in COPIES for path in paths],
    "apptainer.def": [line.split()[0] for line in sections(APPTAINER)["files"]],
}
"""What containers are built from, by file."""


def test_versions_agree():
    changes = (ROOT / "CHANGELOG.md").read_text()
    newest, day = re.search(r"^## (\S+) \((\S+)\)$", changes, re.MULTILINE).groups()
    assert str(CITATION["date-released"]) == day
    labels = re.findall(r"image\.version[= ]\"?([\d.]+)", DOCKERFILE + APPTAINER)
    told = [newest, *labels, str(CITATION["version"]), RECIPE["context"]["version"]]
    assert told == [PROJECT["version"]] * 5


def test_the_citation_is_of_its_format():
    assert set(CITATION) <= set(OF_CITATIONS.split())
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["type"] == "software"
    assert CITATION["license"] == PROJECT["license"]
    assert isinstance(CITATION["date-released"], date)
    assert all(isinstance(CITATION[key], str) for key in ("message", "title", "abstract"))
    assert CITATION["authors"] == PROJECT["authors"]
    assert len(set(CITATION["keywords"])) == len(CITATION["keywords"])


def test_the_recipe_of_conda_needs_what_the_package_needs():
    split = (re.fullmatch(r"([\w\[\],.-]+?)(>=.+)", line) for line in PROJECT["dependencies"])
    needed = {f"{IN_CONDA.get(match[1], match[1])} {match[2]}" for match in split}
    assert set(RECIPE["requirements"]["run"]) - {"python >=${{ python_min }}"} == needed
    assert PROJECT["requires-python"] == f">={RECIPE['context']['python_min']}"
    scripts = [f"{name} = {where}" for name, where in PROJECT["scripts"].items()]
    assert RECIPE["build"]["python"]["entry_points"] == scripts
    folder = ROOT / "packaging/conda" / RECIPE["source"]["path"]
    assert (folder / RECIPE["about"]["license_file"]).is_file()
    assert folder.resolve() == ROOT


@pytest.mark.parametrize("name", COPIED)
def test_containers_are_built_from_what_is_there_and_suffices(name):
    assert all((ROOT / path).exists() for path in COPIED[name])
    wanted = {"pyproject.toml", "cryolike_dask", "constraints.txt", PROJECT["readme"]}
    assert set(COPIED[name]) == wanted | set(PROJECT["license-files"])
    sent = (ROOT / "packaging/Dockerfile.dockerignore").read_text().splitlines()
    assert {line[1:] for line in sent if line.startswith("!")} == set(COPIED[name])


@pytest.mark.parametrize("text", [DOCKERFILE, APPTAINER], ids=["Dockerfile", "apptainer.def"])
def test_containers_offer_extras_that_exist(text):
    offered = set(re.findall(r"\bcuda\d+", text))
    assert offered == {name for name in PROJECT["optional-dependencies"] if "cuda" in name}
    python = re.search(r"python:(\d\.\d+)-slim", text)[1]
    assert f"Programming Language :: Python :: {python}" in PROJECT["classifiers"]


def test_containers_start_the_command():
    names = [name for name, _ in instructions(DOCKERFILE)]
    assert set(names) == INSTRUCTIONS
    assert names[0] == "FROM"
    assert dict(instructions(DOCKERFILE))["ENTRYPOINT"] == '["cryolike-dask"]'
    found = sections(APPTAINER)
    assert set(found) == SECTIONS | {""}
    assert found[""] == ["Bootstrap: docker", "From: python:3.12-slim"]
    assert found["runscript"] == ['exec cryolike-dask "$@"']
    assert "cryolike-dask" in PROJECT["scripts"]


def test_extras_of_the_tests_build_the_pages():
    extras = PROJECT["optional-dependencies"]
    assert set(extras["docs"]) <= set(extras["test"])


def test_every_named_version_of_python_is_allowed():
    told = [line.split(" :: ")[-1] for line in PROJECT["classifiers"] if ":: 3." in line]
    assert told[0] == PROJECT["requires-python"].removeprefix(">=")
