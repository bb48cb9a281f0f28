"""The documentation: it builds without a warning, and what it tells to run is run, or says why
not."""

from __future__ import annotations

import ast
import io
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import cryolike_dask as cld
from cryolike_dask import labels
from cryolike_dask.analysis.coordinates import REAL, TEXT, WHOLE
from cryolike_dask.analysis.stored import LOOKED_UP
from cryolike_dask.cli import app
from cryolike_dask.compute.block_reports import BLOCK_COLUMNS
from cryolike_dask.io import layout, parameters, stacks
from cryolike_dask.io.export_names import MATRICES
from cryolike_dask.particles import cryosparc, provenance, relion

DOCS = Path(__file__).parents[1] / "docs"
PAGES = {path.stem: path.read_text() for path in sorted(DOCS.glob("*.md"))}
FENCE = re.compile(
    r"^(?P<fence>`{3,})(?P<language>.*)\n(?P<code>(?:.*\n)*?)(?P=fence)$", re.MULTILINE
)
MARKER = re.compile(r"<!-- (not run: .+|prints|file: \S+) -->\n\Z")
COMMAND = "cryolike-dask"
OF_DASK = ("--nthreads", "--nworkers")
"""Options of `dask worker`, which the pages explain."""


@dataclass(frozen=True)
class Block:
    """A code block, and what the comment in front of it says: how it is to be treated; empty: it
    is run."""

    line: int
    language: str
    code: str
    marker: str

    @property
    def problem(self) -> str:
        """Why it cannot be held to what it says; empty if it can."""
        if self.marker.startswith("not run: ") or self.marker.startswith("file: "):
            return ""
        if self.marker == "prints":
            return "" if self.language == "text" else f"line {self.line}: what is printed is text"
        foreign = [] if self.language == "python" else [self.language or "code"]
        if self.language == "bash":
            foreign = [words[0] for words in commands(self.code) if words[0] != COMMAND]
        return f"line {self.line}: {foreign[0]} is neither run nor says why not" if foreign else ""


def blocks(page: str) -> list[Block]:
    """All code blocks of a page, directives left out."""
    found = []
    for match in (m for m in FENCE.finditer(page) if not m["language"].startswith("{")):
        marker = MARKER.search(page[: match.start()])
        line = page[: match.start()].count("\n") + 1
        found.append(Block(line, match["language"], match["code"], marker[1] if marker else ""))
    return found


def problems(page: str) -> list[str]:
    """What is neither run nor says why not, and code that is none of these blocks."""
    hidden = re.findall(r"^(?: {4,}\S| *(?:`{3,}|~{3,})).*", FENCE.sub("", page), re.MULTILINE)
    return [b.problem for b in blocks(page) if b.problem] + [
        f"is no plain code block: {text}" for text in hidden
    ]


def commands(code: str) -> list[list[str]]:
    """The words of each command line."""
    lines = (shlex.split(line, comments=True) for line in code.replace("\\\n", " ").splitlines())
    return [words for words in lines if words]


def run(page: str) -> None:
    """Run the blocks of a page in the current folder, one after the other, and compare what they
    print."""
    names, printed = {"__name__": "__main__"}, ""
    for block in blocks(page):
        if block.marker.startswith("file: "):
            Path(block.marker.removeprefix("file: ")).write_text(block.code)
        elif block.marker == "prints":
            assert alike(block.code, printed), f"line {block.line}: printed was\n{printed}"
        elif block.marker:
            continue
        elif block.language == "python":
            with redirect_stdout(io.StringIO()) as out:
                exec(compile("\n" * block.line + block.code, "page", "exec"), names)
            printed = out.getvalue()
        else:
            printed = "".join(invoke(words) for words in commands(block.code))


def invoke(words: list[str]) -> str:
    """Run a command in this process, and give what it prints."""
    handlers = logging.getLogger().handlers[:]
    done = CliRunner().invoke(app, words[1:])
    logging.getLogger().handlers[:] = handlers  # the command's own writes to what is closed by now
    assert done.exit_code == 0, (words, done.output)
    return done.stdout


def alike(told: str, printed: str) -> bool:
    """Whether two texts are the same but for percentages, which may differ by 3: processors
    round differently."""
    texts = [re.sub(r"\d+%", "%", text.rstrip()) for text in (told, printed)]
    shares = [[int(share) for share in re.findall(r"(\d+)%", text)] for text in (told, printed)]
    return texts[0] == texts[1] and all(abs(a - b) <= 3 for a, b in zip(*shares, strict=True))


@pytest.mark.parametrize("name", PAGES)
def test_every_code_block_is_run_or_says_why_not(name):
    assert problems(PAGES[name]) == []


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        ("Text.\n\n```bash\nmake install\n```\n", "line 3: make is neither run nor says why not"),
        ("```bash\ncryolike-dask demo\nopenssl req\n```\n", "openssl is neither run"),
        ("```yaml\na: 1\n```\n", "yaml is neither run"),
        ("```\ncode\n```\n", "code is neither run"),
        ("<!-- not run: -->\n```bash\nmake\n```\n", "make is neither run"),
        ("<!-- not run: takes long -->\n\n```bash\nmake\n```\n", "make is neither run"),
        ("<!-- prints -->\n```bash\nmake\n```\n", "what is printed is text"),
        ("Text.\n\n    make install\n", "no plain code block:     make install"),
        ("- item\n\n  ```python\n  x = 1\n  ```\n", "no plain code block:   ```python"),
        ("~~~bash\nmake\n~~~\n", "no plain code block: ~~~bash"),
    ],
)
def test_a_block_that_is_neither_is_seen(page, problem):
    assert any(problem in found for found in problems(page))


def test_a_block_that_is_either_is_not_blamed():
    assert not problems(
        "```{toctree}\nfiles\n```\n\n```python\n1\n```\n\n<!-- prints -->\n```text\n1\n```\n\n<!-- "
        "not run: needs a GPU -->\n```bash\nmake\n```\n\n<!-- file: a.yaml -->\n```yaml\na: "
        "1\n```\n\n```bash\ncryolike-dask demo \\\n    --seed 1  # a comment\n```\n"
    )


@pytest.mark.parametrize(
    "page",
    [
        "```python\n1 / 0\n```\n",
        "```python\nprint(1)\n```\n\n<!-- prints -->\n```text\n2\n```\n",
        "```python\nprint('90%')\n```\n\n<!-- prints -->\n```text\n99%\n```\n",
        "```bash\ncryolike-dask no-such-command\n```\n",
    ],
)
def test_a_block_that_fails_is_seen(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ZeroDivisionError, AssertionError)):
        run(page)


@pytest.mark.parametrize(
    "name", [name for name, text in PAGES.items() if any(not b.marker for b in blocks(text))]
)
def test_code_blocks_run(name, demo, tmp_path, monkeypatch):
    shutil.copytree(demo, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    run(PAGES[name])


def options_of(words: list[str]) -> set[str]:
    """The options of the command that the words begin with."""
    command = typer.main.get_command(app)
    for word in words[1:]:
        command = getattr(command, "commands", {}).get(word, command)
    assert not hasattr(command, "commands") or words[-1] == "config", (
        f"{' '.join(words)}: there is no such command"
    )
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    names = {name for parameter in shown for name in (*parameter.opts, *parameter.secondary_opts)}
    return {name for name in names if name.startswith("--")} - {"--help"}


@pytest.mark.parametrize("name", PAGES)
def test_commands_and_names_in_passing_exist(name):
    inline = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", PAGES[name])
    shown = [
        line
        for block in blocks(PAGES[name])
        if block.language == "bash"
        for line in commands(block.code)
    ]
    spoken = [text.split() for text in inline if text.startswith(f"{COMMAND} ")]
    for words in [
        words for words in shown + spoken if words[0] == COMMAND and "COMMAND" not in words
    ]:
        given = {word.partition("=")[0] for word in words if word.startswith("--")} - {
            "--help",
            "--version",
        }
        assert given <= options_of(words), words
    alone = {
        word.partition("=")[0] for text in inline for word in text.split() if word.startswith("--")
    }
    every = set().union(
        *(options_of([COMMAND, name]) for name in typer.main.get_command(app).commands)
    )
    assert alone - every <= {"--help", *OF_DASK}
    named = {found for text in inline for found in re.findall(r"\bcld\.(\w+)", text)}
    assert named <= set(cld.__all__)


def test_files_are_named_as_they_are():
    """The page about files names every file, variable, coordinate, column and entry that is read
    or written."""
    names = {
        *(
            v + layout.STEM_SUFFIX.get(v, "")
            for v in (*layout.POSE_FILES, *layout.FULL_CORRELATION_FILES)
        ),
        *(
            *layout.POSE_FILES,
            *LOOKED_UP,
            *TEXT,
            *WHOLE,
            *REAL,
        ),
        *(
            layout.TEMPLATE_LIST,
            layout.PARAMETERS,
            layout.STRUCTURE_FILE,
            *MATRICES.values(),
            *BLOCK_COLUMNS,
        ),
        *(
            labels.STACK,
            labels.IMAGE_IN_STACK,
            *parameters.REQUIRED,
            *parameters.OPTIONAL,
            *stacks.SIDECAR_KEYS,
        ),
        *(
            *stacks.STACK_OPTIONAL,
            *stacks.OPTICS_KEYS,
            *stacks.ENVELOPE_KEYS,
            *provenance.PER_IMAGE,
        ),
        *(
            *relion.LABELS.values(),
            *relion.ALREADY_CORRECTED,
            *cryosparc.LABELS.values(),
            *cryosparc.BLOB,
        ),
    }
    assert sorted(name for name in names if name not in PAGES["files"]) == []


def said_by(text: str, path: Path) -> list[str]:
    """All texts in a file of Python, with "..." where values are put in."""
    if '"' not in text:
        return []
    found = []
    for node in ast.walk(ast.parse(text, path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(re.sub(r"%[-+.\d]*[sdgf]", "...", node.value).replace("%%", "%"))
        elif isinstance(node, ast.JoinedStr):
            found.append(
                "".join(
                    getattr(part, "value", "...") if isinstance(part, ast.Constant) else "..."
                    for part in node.values
                )
            )
    return found


def test_messages_of_symptoms_are_those_of_the_package():
    quoted = re.findall(r"^\| `([^`]+)` \|", PAGES["symptoms"], re.MULTILINE)
    assert len(quoted) > 20
    package = sorted(DOCS.parent.glob("cryolike_dask/**/*.py"))
    texts = "\n".join(text for path in package for text in said_by(path.read_text(), path))
    parts = {
        message: [part for part in map(str.strip, message.split("...")) if part]
        for message in quoted
    }
    assert [message for message in quoted if not parts[message]] == []
    assert [part for message in quoted for part in parts[message] if part not in texts] == []


@pytest.mark.skipif(
    find_spec("sphinx") is None or find_spec("myst_nb") is None or find_spec("furo") is None,
    reason="sphinx, myst-nb and furo are not installed: pip install 'cryolike_dask[docs]'",
)
def test_it_builds_without_a_warning_and_tells_all(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", "-d", tmp_path / "trees"]
    command += ["-D", "nb_execution_mode=off"]  # test_notebooks.py executes them
    done = subprocess.run(
        [*command, DOCS, tmp_path / "html"],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stderr
    api, command_line = (
        (tmp_path / "html" / f"{page}.html").read_text() for page in ("api", "command-line")
    )
    assert [
        n for n in cld.__all__ if n != "__version__" and f'id="cryolike_dask.{n}"' not in api
    ] == []
    for name in typer.main.get_command(app).commands:
        assert f"<h3>{COMMAND} {name}" in command_line
        told = re.findall(rf'id="cmdoption-{COMMAND}-{name}(-[^"]+)"', command_line)
        assert [option for option in options_of([COMMAND, name]) if option[1:] not in told] == []
