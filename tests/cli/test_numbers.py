"""What is no number, where an option takes one, is refused with parameter, value and range."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("typer", reason="the command line needs typer")

import typer
from expert_placement.cli import convert, main, migrate, plan, plot, show, simulate
from expert_placement.cli.app import app
from expert_placement.cli.numbers import EXPECTED, numbers_read

from tests.cli.running import OLMOE

if TYPE_CHECKING:
    from tests.cli.running import Shell

COMMANDS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "show": (show, ("--ranks", "8")),
    "plan": (plan, ("--loads", str(OLMOE))),
    "simulate": (simulate, ("--loads", str(OLMOE))),
    "migrate": (migrate, ("old.json", "new.json")),
    "convert": (convert, ("old.json", "new.json")),
    "plot": (plot, ("ranks", "--loads", str(OLMOE), "--output", "x.png")),
}


def numbers(module: Any) -> dict[str, str]:
    """The options of a command that take integers or floats, by the names of their parameters."""
    found = {}
    for name, parameter in inspect.signature(module.command).parameters.items():
        if "int" in parameter.annotation or "float" in parameter.annotation:
            found[name] = parameter.default.param_decls[0]
    return found


CASES = [
    (command, name, option) for command, (module, _) in COMMANDS.items() for name, option in numbers(module).items()
]


@pytest.mark.parametrize(("command", "name", "option"), CASES)
def test_what_is_no_number_is_refused_by_name_value_and_range(
    shell: Shell, command: str, name: str, option: str
) -> None:
    """Domain: every option of every command that takes a number."""
    message = shell.refused(command, *COMMANDS[command][1], option, "abc")
    assert message == f"{name}=`abc` is out of range, expected {EXPECTED[name]}"


def test_every_row_is_an_option_and_says_of_which_kind() -> None:
    assert {name for _, name, _ in CASES} == set(EXPECTED)
    assert len(CASES) > 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--experts abc --ranks 2", "experts=`abc` is out of range, expected an integer of 0 or more"),
        ("--experts 3 --ranks 1.5", "ranks=`1.5` is out of range, expected an integer of 1 or more"),
        ("--experts= --ranks 2", "experts=`` is out of range, expected an integer of 0 or more"),
        ("--experts 3_0 --ranks 2", "experts=`3_0` is out of range, expected an integer of 0 or more"),
        (
            "--experts \uff13\uff10 --ranks 2",
            "experts=`\uff13\uff10` is out of range, expected an integer of 0 or more",
        ),
        ("--experts=\t30 --ranks 2", "experts=`\\t30` is out of range, expected an integer of 0 or more"),
        ("--experts \x1b[1m --ranks 2", "experts=`\\x1b[1m` is out of range, expected an integer of 0 or more"),
        (
            f"--experts {'9' * 5000} --ranks 2",
            f"experts=`{'9' * 100}...` is out of range, expected an integer of 0 or more, and fewer digits",
        ),
    ],
)
def test_the_whole_message_is_one_line(shell: Shell, arguments: str, message: str) -> None:
    assert shell.refused("show", *arguments.split(" ")) == message


def test_one_of_several_numbers_is_refused_alone(shell: Shell) -> None:
    message = shell.refused("simulate", "--loads", OLMOE, "--max-moves", 3, "--max-moves", "few")
    assert message == "max_moves=`few` is out of range, expected an integer of 0 or more"


def test_a_number_without_a_range_cannot_be_declared() -> None:
    def command(unheard_of: int = typer.Option(1, "--unheard-of")) -> None:
        """An option that has no row."""

    with pytest.raises(KeyError, match="unheard_of"):
        numbers_read(command)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_the_help_says_nothing_of_types_of_flags(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert main([*filter(None, (command,)), "--help"]) == 0
    text = capsys.readouterr().out
    assert "--help" in text
    assert "<bool>" not in text
    assert "BOOLEAN" not in text


def test_every_command_reads_its_numbers_here() -> None:
    names = {command.name for command in app.registered_commands}
    assert names == {*COMMANDS, "check"}
