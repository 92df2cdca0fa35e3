"""What a line of the protocol holds, and what a program may say that it offers. PROTOCOL.md, "Line protocol"."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from expert_placement_spec.implementation import MAP_METHODS, SCALARS, TABLES
from expert_placement_spec.outcome import shown

if TYPE_CHECKING:
    from collections.abc import Callable

VERSION = 1
"""The version of the protocol; a program says which one it speaks, and another one is refused."""

LONGEST_LINE = 1 << 26
"""Bytes of an answer."""

ERRORS: dict[str, type[Exception]] = {"value": ValueError, "index": IndexError, "type": TypeError}
"""The kinds of refusals, and what they are in Python."""

NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""Numbers that JSON does not have, as texts."""

PARTITION = "partition"
PLACEMENT_METHODS = (
    "physical_to_logical",
    "logical_to_physical",
    "replica_counts",
    "slot_offsets",
    "expert_map",
    "expert_map_with_shared",
    "expert_map_with_sentinel",
    "expert_mask",
    "local_experts",
    "experts_to_load",
    "digest",
    "rank_loads",
    "balancedness",
    "report",
    "off_node",
    "replica_weights",
    "from_partition",
)
PLAN_FIELDS = ("write_batches", "num_staged", "is_interruption_safe", "senders", "receivers")
OPTIONS = {
    "rebalance": ("previous", "max_moves", "min_gain", "max_off_node", "num_threads"),
    "capacity_curve": ("max_off_node",),
    "least_slots": ("max_off_node",),
    "plan_migration": ("max_node_transfers", "max_staged"),
    "routing_tables": ("max_slots", "weights", "sender", "updates"),
}
"""Fields of calls that a program need not take."""

OFFERS = (
    *(f"{PARTITION}.{name}" for name in (*SCALARS, "experts", "local_experts", *TABLES, "offsets", "is_uniform")),
    *(f"{PARTITION}.{name}" for name in MAP_METHODS.values()),
    *(f"{PARTITION}.{name}" for name in ("min_redundant_experts", "legal_ranks")),
    "topology",
    "topology.node_of",
    "placement",
    *(f"placement.{name}" for name in PLACEMENT_METHODS),
    *OPTIONS,
    *(f"plan.{name}" for name in (*PLAN_FIELDS, "traffic", "apply")),
    "route",
    *(f"{call}({option})" for call, options in OPTIONS.items() for option in options),
)
"""Everything that a program may say that it offers."""


def encoded(request: dict[str, Any]) -> bytes:
    """A request as a line."""
    try:
        text = json.dumps(request, allow_nan=False, separators=(",", ":"), default=plain)
    except ValueError:
        text = json.dumps(finite(request), allow_nan=False, separators=(",", ":"), default=plain)
    return text.encode() + b"\n"


def plain(value: Any) -> Any:
    """An array or a number of numpy as lists and numbers of Python."""
    if not hasattr(value, "tolist"):
        raise TypeError(f"a {type(value).__name__} is nothing that a line can hold")
    return value.tolist()


def finite(value: Any) -> Any:
    """The same value with texts for the numbers that JSON does not have."""
    if isinstance(value, dict):
        return {name: finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(one) for one in value]
    if hasattr(value, "tolist"):
        return finite(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return next(text for text, number in NOT_FINITE.items() if str(number) == str(value))
    return value


def number(value: Any) -> Any:
    """An answer of numbers, or of lists and objects of them, with the numbers that JSON does not have."""
    if isinstance(value, list):
        return [number(one) for one in value]
    if isinstance(value, dict):
        return {name: number(one) for name, one in value.items()}
    return NOT_FINITE.get(value, value) if isinstance(value, str) else value


class NotOfTheProtocolError(Exception):
    """A line that is no answer; the message says why."""


def decoded(line: bytes, identifier: int) -> Callable[[], Any]:
    """What a line says to a request: a function that gives the answer, or raises what the program refused with.

    Raises:
        NotOfTheProtocolError: the line is no answer to this request.
    """
    try:
        content = json.loads(line.decode("utf-8"), parse_constant=refuse_constant, object_pairs_hook=without_repetition)
    except UnicodeDecodeError as error:
        raise NotOfTheProtocolError(f"its answer is no UTF-8 at byte {error.start}") from None
    except (ValueError, RecursionError):
        text = shown(line[:400].decode("utf-8", "replace"), 100)
        raise NotOfTheProtocolError(f"its answer `{text}` is no JSON") from None
    if not isinstance(content, dict) or set(content) not in ({"id", "answer"}, {"id", "error"}):
        text = shown(line[:400].decode(), 100)
        raise NotOfTheProtocolError(f"its answer `{text}` is no object of `id` and either `answer` or `error`")
    if type(content["id"]) is not int or content["id"] != identifier:
        raise NotOfTheProtocolError(f"its answer has id `{shown(str(content['id']), 40)}`, expected {identifier}")
    if "answer" in content:
        answer = content["answer"]
        return lambda: answer
    refusal = content["error"]
    if not isinstance(refusal, dict) or set(refusal) != {"kind", "message"}:
        raise NotOfTheProtocolError("its error is no object of `kind` and `message`")
    kind, message = refusal["kind"], refusal["message"]
    if not isinstance(kind, str) or kind not in ERRORS or not isinstance(message, str):
        kinds = ", ".join(ERRORS)
        raise NotOfTheProtocolError(f"its error has kind `{shown(str(kind), 40)}`, expected one of {kinds}, and a text")

    def refuse() -> Any:
        raise ERRORS[kind](message)

    return refuse


def without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, none of whose keys stands in it twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in an object")
    return found


def refuse_constant(name: str) -> Any:
    """Refuses NaN and infinities that are no texts, which Python's reader would take."""
    raise ValueError(f"{name} is no JSON")
