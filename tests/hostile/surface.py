"""What is public, by looking at the package: a new name without a hostile case is found by it."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

import expert_placement.integrations

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

MODULES = (
    "expert_placement",
    "expert_placement.torch",
    "expert_placement.distributed",
    "expert_placement.formats",
    "expert_placement.model_config",
    "expert_placement.plot",
    "expert_placement.cli",
)
"""Where public names are, beside every module of `expert_placement.integrations`."""

HOLDS_WHAT_IT_IS_GIVEN = {
    "expert_placement.Capacity": "an answer",
    "expert_placement.LayerReport": "an answer",
    "expert_placement.Traffic": "an answer",
    "expert_placement.torch.Routed": "an answer",
    "expert_placement.distributed.BalanceError": "an error",
    "expert_placement.distributed.BalancerState": "an answer",
    "expert_placement.distributed.DisagreementError": "an error",
    "expert_placement.distributed.MigrationError": "an error",
    "expert_placement.distributed.Moved": "an answer",
    "expert_placement.formats.Layers": "an answer",
    "expert_placement.model_config.ModelConfig": "an answer",
    "expert_placement.plot.Panel": "looked at by `plot_ranks`",
    "expert_placement.plot.Curve": "looked at by `plot_curves`",
}
"""Classes that are made by us, or whose content another call looks at: nothing is fed to them."""


def modules() -> Iterator[ModuleType]:
    """The modules with public names."""
    import pkgutil

    yield from map(importlib.import_module, MODULES)
    for found in pkgutil.iter_modules(expert_placement.integrations.__path__):
        yield importlib.import_module(f"expert_placement.integrations.{found.name}")


def surface() -> dict[str, tuple[str, ...]]:
    """The parameters of everything public that takes something, by its full name."""
    found: dict[str, tuple[str, ...]] = {}
    for module in modules():
        for name in module.__all__:
            value = getattr(module, name)
            full = f"{module.__name__}.{name}"
            if full in HOLDS_WHAT_IT_IS_GIVEN:
                continue
            if inspect.isclass(value):
                found.update(_of_class(full, value))
            elif inspect.isroutine(value):
                found[full] = _parameters(value)
    return {name: parameters for name, parameters in found.items() if parameters}


def attributes() -> dict[str, tuple[str, ...]]:
    """The public attributes of every class that is no mere answer, by its full name."""
    return {
        f"{module.__name__}.{name}": tuple(
            attribute
            for attribute, found in _members(getattr(module, name))
            if not inspect.isroutine(found) and not isinstance(found, (classmethod, staticmethod))
        )
        for module in modules()
        for name in module.__all__
        if inspect.isclass(getattr(module, name)) and f"{module.__name__}.{name}" not in HOLDS_WHAT_IT_IS_GIVEN
    }


def _of_class(full: str, cls: type) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield full, _parameters(cls)
    for name, found in _members(cls):
        if inspect.isroutine(found) or isinstance(found, (classmethod, staticmethod)):
            yield f"{full}.{name}", _parameters(getattr(cls, name))


def _members(cls: type) -> Iterator[tuple[str, Any]]:
    """What a class of ours and those of ours that it is made of have in public, each name once."""
    seen = set()
    for each in cls.__mro__:
        if each.__module__.startswith("expert_placement") or (each.__module__ == "builtins" and each.__name__ in _CORE):
            for name, found in vars(each).items():
                if (not name.startswith("_") or name == "__call__") and name not in seen:
                    seen.add(name)
                    yield name, found


# Classes of the compiled core that say they are built in.
_CORE = frozenset({"ExpertMap", "Migration", "Partition", "Placement", "Topology"})


def _parameters(value: Any) -> tuple[str, ...]:
    return tuple(name for name in inspect.signature(value).parameters if name not in ("self", "cls"))
