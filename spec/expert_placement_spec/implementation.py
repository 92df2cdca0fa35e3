"""An implementation under check, named `module:attribute`, or by the command of a program: `$ ./program --flag`.

The attribute is called with `(num_experts, num_ranks, strategy)` and gives a partition, whose methods are those of the
reference model's `Partition`; a method that it lacks is reported as not offered. Two attributes of the callable speed
up large domains:

    elementwise: an object whose functions `count`, `start`, `owner` and `local_index` take (num_experts, num_ranks, id,
        strategy) as arrays that broadcast; and, if it likes, `map_entry`, as the reference model's.
    arrays: `"numpy"` (the default) or `"torch"`: whose arrays `elementwise` takes, and the checker works on.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from expert_placement_spec.arrays import Arrays, NumpyArrays, arrays_of
from expert_placement_spec.lines.command import BrokenProgramError, command_of, is_command
from expert_placement_spec.outcome import in_words, shown

if TYPE_CHECKING:
    from collections.abc import Callable

REFERENCE = "expert_placement_spec.reference:Partition"

SCALARS = ("count", "start", "owner", "local_index")
TABLES = ("counts", "starts", "owners", "local_indices")
MAP_METHODS = {
    "index_map": "expert_map",
    "index_map_with_shared": "expert_map_with_shared",
    "index_map_with_sentinel": "expert_map_with_sentinel",
    "mask": "expert_mask",
}

WITH_SHARED = ("index_map_with_shared", "mask")
"""Representations whose methods take the number of shared experts as well."""

NEEDS: dict[str, tuple[str, ...]] = {
    "tables": TABLES,
    "scalars": (*SCALARS, "experts"),
    "lists": ("local_experts",),
    "offsets": ("offsets",),
    "maps": tuple(MAP_METHODS.values()),
    "arguments": ("count",),
    "shared": tuple(MAP_METHODS[name] for name in WITH_SHARED),
    "fresh": tuple(MAP_METHODS.values()),
    "defaults": ("expert_mask",),
    "uniform": ("legal_ranks", "min_redundant_experts"),
    "errors": (*SCALARS, "experts", "local_experts", *MAP_METHODS.values(), "is_uniform"),
}
"""What is asked of an implementation for the invariants of each subject. The others need no more than one of these, or
speak of faster ways to ask, which there need not be."""

OPTIONAL = ("elementwise", "stacked", "formulas")
"""Subjects that nothing has to offer: faster ways to ask, and formulas, which solvers read."""

STACKED = tuple(f"{method}s" for method in MAP_METHODS.values())
"""Methods that give the maps of all ranks at once; faster on large domains where an implementation has them."""


@dataclass
class Implementation:
    """What is checked, and how it may be asked."""

    name: str
    make: Callable[[int, int, str], Any]
    elementwise: Any = None
    arrays: Arrays = field(default_factory=NumpyArrays)
    device: str = "cpu"

    def offers(self, *methods: str) -> bool:
        """Whether its partitions have all of these methods."""
        return all(map(self._has, methods))

    def _has(self, method: str) -> bool:
        try:
            return hasattr(self._sample, method)
        except KeyboardInterrupt:
            raise
        except BaseException:
            # That a property raises breaks laws, and is not a matter of what is offered.
            return True

    def ask(self, function: str, *arguments: Any) -> Any:
        """What an elementwise function answers for arrays, and words such as the strategy, as an array.

        Raises:
            TypeError: an answer that holds no integers.
        """
        given = (one if isinstance(one, str) else self.arrays.given(one) for one in arguments)
        answers = getattr(self.elementwise, function)(*given)
        # By the name of the dtype, since it may be numpy's or torch's.
        if not str(answers.dtype).rpartition(".")[2].startswith(("int", "uint")):
            raise TypeError(f"{function} answers with dtype {answers.dtype}, expected an integer")
        return self.arrays.taken(answers)

    def offered_subjects(self) -> set[str]:
        """The subjects of invariants that can be observed."""
        subjects = {"answers", "rule"} | {subject for subject in NEEDS if not self.missing(subject)}
        if "tables" in subjects and self.elementwise is not None:
            subjects.add("elementwise")
        if "maps" in subjects and (hasattr(self.elementwise, "map_entry") or any(map(self.offers, STACKED))):
            subjects.add("stacked")
        return subjects

    def missing(self, subject: str) -> tuple[str, ...]:
        """The methods that invariants of a subject need and its partitions lack."""
        return tuple(method for method in NEEDS.get(subject, ()) if not self.offers(method))

    def __post_init__(self) -> None:
        try:
            with self.arrays.placed():
                self._sample = self.make(3, 2, "linear")
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raised = f"it raised {in_words(error)}"
            raise ValueError(f"implementation `{self.name}`: asked for 3 experts over 2 ranks, {raised}") from error


def load(name: str, device: str = "cpu") -> Implementation:
    """The implementation named `module:attribute`, or `$ ` and the command of a program.

    Raises:
        ValueError: the name has another form, there is no such module or attribute, or the program can not be asked.
    """
    if is_command(name):
        # The module needs names of this one.
        from expert_placement_spec.lines.partition import partitions_of

        try:
            partitions, elementwise = partitions_of(command_of(name))
        except BrokenProgramError as error:
            raise ValueError(str(error)) from None
        return usable(Implementation(name, partitions, elementwise, arrays_of("numpy", device), device))
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise ValueError(f"implementation `{name}` is not of the form `module:attribute`")
    try:
        made: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(f"implementation `{name}`: there is no module `{shown(str(error.name), 100)}`") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ValueError(f"implementation `{name}`: its import raised {in_words(error)}") from error
    missing = None
    try:
        for part in attribute.split("."):
            if not hasattr(made, part):
                missing = part
                break
            made = getattr(made, part)
        library, elementwise = getattr(made, "arrays", "numpy"), getattr(made, "elementwise", None)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ValueError(f"implementation `{name}`: a look at its attributes raised {in_words(error)}") from error
    if missing is not None:
        raise ValueError(f"implementation `{name}`: it has no attribute `{missing}`")
    if type(library) is not str or library not in ("numpy", "torch"):
        what = f"`{shown(library, 100)}`" if type(library) is str else "no str"
        raise ValueError(f"implementation `{name}`: arrays is {what}, expected `numpy` or `torch`")
    return usable(Implementation(name, made, elementwise, arrays_of(library, device), device))


def usable(implementation: Implementation) -> Implementation:
    """The same implementation, which offers enough to be checked.

    Raises:
        ValueError: it does not.
    """
    if implementation.elementwise is None and not (implementation.offers(*TABLES) or implementation.offers(*SCALARS)):
        neither = f"offers neither {', '.join(TABLES)} nor {', '.join(SCALARS)}"
        raise ValueError(f"implementation `{implementation.name}` {neither}")
    return implementation
