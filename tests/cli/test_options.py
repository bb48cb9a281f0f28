"""Options that commands take as one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer
from typer.main import get_command
from typer.testing import CliRunner

from cryolike_dask.cli import app
from cryolike_dask.cli.likelihood import NOT_OF_A_PLAN
from cryolike_dask.cli.options import takes_options

COMMANDS = get_command(app).commands


@dataclass(frozen=True, kw_only=True)
class Meal:
    """Options of a command that exists here alone."""

    dish: Annotated[str, typer.Option(help="Needed.")]
    salt: Annotated[bool, typer.Option()] = False
    guests: int = 1


def test_a_command_gets_its_options_as_one_value():
    kitchen, served = typer.Typer(), []

    @kitchen.command()
    @takes_options(left_out=("guests",))
    def serve(*, meal: Meal, hour: int = 12) -> None:
        served.append((meal, hour))

    assert CliRunner().invoke(kitchen, ["--dish", "soup", "--salt", "--hour", "18"]).exit_code == 0
    assert served == [(Meal(dish="soup", salt=True), 18)]
    assert CliRunner().invoke(kitchen, ["--salt"]).exit_code == 2
    assert CliRunner().invoke(kitchen, ["--dish", "soup", "--guests", "2"]).exit_code == 2


def test_a_plan_takes_the_options_of_a_run_that_change_its_costs():
    run, full, plan = (
        {parameter.name for parameter in COMMANDS[name].params}
        for name in ("optimal-pose", "full-cross-correlation", "plan")
    )
    assert run == full
    assert run - plan == set(NOT_OF_A_PLAN)
    assert plan - run == {"gpu", "kind", "measure"}
