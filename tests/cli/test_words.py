"""What commands say: options instead of arguments, warnings once more at the end."""

from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console
from rich.file_proxy import FileProxy
from typer.main import get_command

from cryolike_dask.cli import app
from cryolike_dask.cli.console import ConsoleLog, words_of_command
from cryolike_dask.cli.words import Words
from cryolike_dask.errors import InputError, number

COMMANDS = get_command(app).commands
SAID = [
    (
        "optimal-pose",
        "Pass overwrite=True (--overwrite) to replace them.",
        "Pass --overwrite to replace them.",
    ),
    ("particles", "the names start from (folder=, --folder).", "the names start from (--folder)."),
    ("optimal-pose", "(folder=, --folder).", "(`particles --folder`)."),
    ("run", "(folder=, --folder).", "(particles.folder)."),
    ("optimal-pose", "recenter=True (--recenter) moves them", "`particles --recenter` moves them"),
    ("particles", "recenter=True (--recenter) moves them", "--recenter moves them"),
    ("run", "recenter=True (--recenter) moves them", "particles.recenter: true moves them"),
    ("config", "pass overwrite=True (--overwrite).", "pass machine.overwrite: true."),
    (
        "report",
        "wider, max_displacement_pixels (--max-displacement-pixels)",
        "wider, `optimal-pose --max-displacement-pixels`",
    ),
    ("optimal-pose", 'models="all" (--models) takes', "`templates --models all` takes"),
    ("templates", "use_protein_residue_model=False (--atoms) takes", "`parameters --atoms` takes"),
    (
        "particles",
        "Use n_pixels=60 (--n-pixels), or fewer",
        "Use `parameters --n-pixels 60`, or fewer",
    ),
    ("run", "Use n_pixels=60 (--n-pixels).", "Use parameters.n_pixels: 60."),
    ("export", "Use export_star (--star).", "Use --star."),
    (
        "optimal-pose",
        "n_stacks=0 is not a positive number",
        "--n-stacks 0 is not a positive number",
    ),
    ("optimal-pose", "i_template=[0, 7] is not", "--i-template 0 --i-template 7 is not"),
    ("parameters", "atom_selection='chain A and': 'and'", "--atom-selection 'chain A and': 'and'"),
    ("parameters", "Set use_protein_residue_model=False.", "Set --atoms."),
    ("optimal-pose", "performance_report needs workers", "--performance-report needs workers"),
    (
        "optimal-pose",
        "TLS needs tls_ca_file, tls_cert and tls_key.",
        "TLS needs --tls-ca-file, --tls-cert and --tls-key.",
    ),
    ("report", "n_stacks=0 is not", "n_stacks=0 is not"),
    ("run", "machine.workers=2, but", "machine.workers=2, but"),
    ("optimal-pose", "/data/n_stacks/a_n_stacks.pt", "/data/n_stacks/a_n_stacks.pt"),
    ("optimal-pose", "run again with skip_exist=True (--skip-exist).", "run again."),
    ("verify", "Run again with skip_exist=True, which", "Run again, which"),
    ("optimal-pose", "kept; skip_exist=False computes them", "kept; --recompute computes them"),
    (
        "particles",
        "folder, pass skip_exist=True to go on, or",
        "folder, leave --recompute out to go on, or",
    ),
    (
        "optimal-pose",
        "skip_exist=True keeps complete ones",
        "leaving --recompute out keeps complete ones",
    ),
    ("optimal-pose", "(fewer workers, --memory-limit)", "(fewer workers, --memory-limit)"),
    (
        "run",
        "voxel_size_angstrom (--voxel-size-angstrom) says",
        "structures.voxel_size_angstrom says",
    ),
    (
        "optimal-pose",
        "voxel_size_angstrom (--voxel-size-angstrom) says",
        "`templates --voxel-size-angstrom` says",
    ),
    (None, "n_stacks=0 (--not-ours)", "n_stacks=0 (--not-ours)"),
]


@pytest.mark.parametrize(("command", "python", "said"), SAID)
def test_arguments_are_options_of_the_command_or_of_the_one_that_has_them(command, python, said):
    assert Words.of(command, COMMANDS).say(python) == said


def test_entries_of_files_are_no_options():
    words = Words.of("optimal-pose", COMMANDS)
    assert (
        words.say("x.npz: n_stacks=0 is no number", arguments=False)
        == "x.npz: n_stacks=0 is no number"
    )
    assert (
        words.say("x.npz: pass overwrite=True (--overwrite).", arguments=False)
        == "x.npz: pass --overwrite."
    )


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "config"])
def test_numbers_that_are_refused_are_told_by_their_options(command):
    """Whatever the command, and whatever its parameters are called."""
    words = Words.of(command, COMMANDS)
    options = {p.name: p.opts[0] for p in COMMANDS[command].params if p.opts[0].startswith("--")}
    assert options
    for name, option in options.items():
        with pytest.raises(InputError) as refused:
            number(name, -1, at_least=0)
        assert words.say(str(refused.value)).startswith(f"{option} -1 is not")


@pytest.fixture
def console():
    """Where it is told, as in a pipe."""
    return Console(file=io.StringIO(), soft_wrap=True, emoji=False)


@pytest.fixture
def logger(console):
    """A logger of the package, as a command sets it up."""
    told = ConsoleLog(console, Words.of("matrix", COMMANDS))
    logger = logging.getLogger("cryolike_dask.somewhere")
    before = logging.getLogger().handlers[:]
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[told], force=True)
    logger.setLevel(logging.INFO)
    yield logger
    told.repeat_warnings()
    logging.getLogger().handlers[:] = before


def test_warnings_come_once_more_at_the_end_and_each_thing_is_said_once(logger, console):
    for message in ("odd: 3 of [12]", "very odd", "very odd"):
        logger.warning(message)
        logger.info("a note")
    logging.getLogger("another.package").warning("memory")
    logging.getLogger().handlers[0].repeat_warnings()
    assert console.file.getvalue() == (
        "warning: odd: 3 of [12]\na note\nwarning: very odd\nwarning: memory\n"
        "2 warnings:\n  odd: 3 of [12]\n  very odd\n"
    )


def test_one_warning_is_one(logger, console):
    logger.warning("in lines\nof two :fire:")
    logging.getLogger().handlers[0].repeat_warnings()
    assert (
        console.file.getvalue()
        == "warning: in lines\nof two :fire:\n1 warning:\n  in lines\n  of two :fire:\n"
    )


def test_what_is_logged_names_options(logger, console):
    logger.error("%s failed: folder=%r; run again with skip_exist=True", "x", "a b")
    assert console.file.getvalue() == "error: x failed: --folder 'a b'; run again\n"
    assert words_of_command().say("folder=3") == "--folder 3"


class Full(io.StringIO):
    """A disk without room, or a pipe that nobody reads."""

    def write(self, _):
        raise self.error


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), BrokenPipeError(32, "Broken pipe")]
)
def test_what_cannot_be_told_ends_nothing(error):
    file = Full()
    file.error = error
    told = ConsoleLog(Console(file=file), Words())
    told.handle(
        logging.makeLogRecord({"name": "cryolike_dask", "msg": "odd", "levelno": logging.WARNING})
    )
    assert told.warnings == ["odd"]
    told.repeat_warnings()


def test_what_is_told_stands_above_a_bar(monkeypatch):
    """A bar stands in for sys.stderr while it is drawn, and rich's own consoles write past it."""
    monkeypatch.setattr("sys.stderr", bar := io.StringIO())
    told = ConsoleLog(Console(stderr=True), Words())
    monkeypatch.setattr("sys.stderr", FileProxy(Console(file=bar), above := io.StringIO()))
    told.handle(logging.makeLogRecord({"msg": "note", "levelno": logging.INFO}))
    assert (bar.getvalue(), above.getvalue()) == ("note\n", "")


def test_without_a_command_nothing_is_put_into_other_words(monkeypatch):
    # commands of other tests have left theirs
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    assert words_of_command() == Words()
    assert Words().say("n_stacks=0 (folder=, --folder)") == "n_stacks=0 (folder=, --folder)"
