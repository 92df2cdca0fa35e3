"""A command as the name of an implementation, and the error for a program that does not keep to the protocol."""

from __future__ import annotations

PREFIX = "$ "
"""What the name of an implementation begins with where the rest of it is a command."""


class BrokenProgramError(RuntimeError):
    """A program that did not keep to the protocol. It is no `ValueError`, which would be taken for a refusal."""


def is_command(name: str) -> bool:
    """Whether an implementation is named by a command."""
    return name.startswith(PREFIX)


def command_of(name: str) -> str:
    """The command by which an implementation is named."""
    return name[len(PREFIX) :]


def named(command: str) -> str:
    """A command as the name of an implementation."""
    return PREFIX + command
