"""Every case there is: what is fed to public names, and damaged files to the formats."""

from __future__ import annotations

from tests.hostile import files
from tests.hostile.running import Case
from tests.hostile.subjects import FED, subjects


def of_calls(step: str = "1", only: str = "") -> list[Case]:
    """A call for each hostile value of each parameter of everything public.

    Args:
        step: of all calls every so many.
        only: names that begin with this alone.
    """
    every = [
        Case(subject, parameter, value)
        for name, subject in subjects().items()
        if name.startswith(only)
        for parameter, each in FED[name].items()
        for value in each.values()
    ]
    return every[:: int(step)]


def of_files(step: str = "1") -> list[Case]:
    """A file of each kind, damaged in every way; of all its places every so many."""
    return [Case(subject, "content", value) for subject, values in files.all_fed(int(step)) for value in values]
