"""An implementation of placements under check, named `module` or `module:attribute`, or by a program's command.

The module, or the object, has the public names of the design, whatever they are made of:

    Topology(num_ranks, num_nodes, slots_per_rank, speeds, active)
    Placement.from_physical_to_logical(table, num_experts=E, topology=t), and its methods
    Partition, Placement.from_partition(partition, num_layers)
    rebalance(loads, num_slots, topology, policy, num_groups, previous, max_moves, min_gain, max_off_node,
        num_threads)
    plan_migration(old, new, max_node_transfers, max_staged), and the attributes of what it gives
    RoutingTables(placement or partition, rank, max_slots, weights), .for_sender(placement, rank), and update(placement,
        weights)
    route(topk_ids, tables, layer, token_offset, seed, valid_tokens, load, want, exact)
    capacity_curve(loads, num_slots, topology, policy, num_groups), least_slots(loads, balancedness, topology, ...)

What is missing is reported as not offered. Tables may be lists, numpy arrays or torch tensors on the CPU. Ids to be
routed are numpy arrays, and so is `load`, which is added to in place.
"""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from expert_placement_spec.lines.command import BrokenProgramError, command_of, is_command
from expert_placement_spec.lines.model import model_of
from expert_placement_spec.outcome import in_words


@dataclass(frozen=True)
class Model:
    """What is checked, and what it offers."""

    name: str
    names: Any
    """The module or object that has the public names."""

    @cached_property
    def _plan(self) -> Any:
        """A plan to look at."""
        topology = self.names.Topology(2)
        made = self.names.Placement.from_physical_to_logical
        rows = ([[0, 1]], [[1, 0]])
        return self.names.plan_migration(*(made(row, num_experts=2, topology=topology) for row in rows))

    def _plan_has(self, name: str) -> bool:
        try:
            return hasattr(self._plan, name)
        except KeyboardInterrupt:
            raise
        except BaseException:
            # That no plan can be had breaks the laws about plans, and is not a matter of what is offered.
            return True

    def _placement_has(self, name: str) -> bool:
        """Whether a placement has it, where its class does not say so."""
        try:
            made = self.names.Placement.from_physical_to_logical
            return hasattr(made([[0]], num_experts=1, topology=self.names.Topology(1)), name)
        except KeyboardInterrupt:
            raise
        except BaseException:
            return False

    def offers(self, need: str) -> bool:
        """Whether there is a `name`, `Class.name` or `plan.name`, or a function's parameter, `name(parameter)`."""
        name, bracket, parameter = need.rstrip(")").partition("(")
        if bracket:
            if not self.offers(name):
                return False
            try:
                parameters = inspect.signature(getattr(self.names, name)).parameters
            except (TypeError, ValueError):
                # What is compiled may not say what it takes; then it is asked, and has to answer.
                return True
            # Who takes any keyword takes this one.
            return parameter in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())
        first, _, rest = name.partition(".")
        if first == "plan":
            return self.offers("plan_migration") and self._plan_has(rest)
        found = hasattr(self.names, first)
        if not found or not rest or hasattr(getattr(self.names, first), rest):
            return found
        return first == "Placement" and self._placement_has(rest)


class NoAttributeError(ValueError):
    """An implementation's name leads nowhere."""


def load_model(name: str) -> Model:
    """The implementation named `module` or `module:attribute`, or `$ ` and the command of a program.

    Raises:
        ValueError: there is no such module or attribute, it has neither `Topology` nor `Placement`, or the program can
            not be asked.
    """
    if is_command(name):
        try:
            return Model(name, model_of(command_of(name)))
        except BrokenProgramError as error:
            raise ValueError(str(error)) from None
    module_name, _, attribute = name.partition(":")
    try:
        made: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(f"implementation `{name}`: there is no module `{error.name}`") from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"implementation `{name}` is not of the form `module` or `module:attribute`") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ValueError(f"implementation `{name}`: its import raised {in_words(error)}") from error
    missing, at = [], module_name
    try:
        for part in filter(None, attribute.split(".")):
            if not hasattr(made, part):
                raise NoAttributeError(f"implementation `{name}`: `{at}` has no attribute `{part}`")
            made, at = getattr(made, part), f"{at}.{part}"
        missing = [needed for needed in ("Topology", "Placement") if not hasattr(made, needed)]
    except (NoAttributeError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise ValueError(f"implementation `{name}`: a look at its attributes raised {in_words(error)}") from error
    if missing:
        raise ValueError(f"implementation `{name}` offers no {' and no '.join(missing)}")
    return Model(name, made)
