"""Every case there is: what is fed to public names, and damaged files to the formats."""

from __future__ import annotations

import contextlib
import operator

import torch
from expert_placement import plot

from tests.hostile import files, paths, values
from tests.hostile import subjects as subjects_of
from tests.hostile.running import Case
from tests.hostile.subjects import FED, subjects


def of_calls(step: str = "1", only: str = "") -> list[Case]:
    """A call for each hostile value of each parameter of everything public.

    Args:
        step: of all calls every so many.
        only: names that begin with this alone.
    """
    _load_what_is_loaded_late()
    every = [
        Case(subject, parameter, value)
        for name, subject in subjects().items()
        if name.startswith(only)
        for parameter, each in FED[name].items()
        for value in each.values()
    ]
    return every[:: int(step)]


def of_names(*names: str) -> list[Case]:
    """The calls of these names alone, as reports call them."""
    every = of_calls(only=names[0].partition("(")[0]) if len(names) == 1 else of_calls()
    return [case for case in every if case.name in names]


def _load_what_is_loaded_late() -> None:
    """Has libraries load what they load when it is first needed, some 300 MiB of address space.

    Where memory is limited by then, it would be taken from the calls behind the first that needs it.
    """
    with contextlib.suppress(Exception):
        operator.index(values.fake(torch.tensor(3)))
    values.quantized(torch.tensor([3]))
    torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
    plot.plot_curves([subjects_of.CURVE], paths.new_file(".png"), title="", x_label="", y_label="")


def of_files(step: str = "1") -> list[Case]:
    """A file of each kind, damaged in every way; of all its places every so many."""
    return [Case(subject, "content", value) for subject, values in files.all_fed(int(step)) for value in values]
