"""Cases of test vectors that say something else than the model: every reader has to reject them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

OFTEN = 3
"""In how many cases each field is changed."""


def spoilt(value: Any) -> Any:
    """The value with the last number, text or flag in it changed; None where there is none."""
    if isinstance(value, (list, dict)):
        other = copy.copy(value)
        for key in reversed(value if isinstance(value, dict) else range(len(value))):
            inner = spoilt(value[key])
            if inner is not None:
                other[key] = inner
                return other
        return None
    if value is None:
        return 0
    if isinstance(value, bool):
        return not value
    return value + "0" if isinstance(value, str) else value + (1 if isinstance(value, int) else 1e-9 * (value or 1))


def changed(case: dict[str, Any], field: str) -> dict[str, Any] | None:
    """The case with the last number of a field changed."""
    other = spoilt(case["expected"][field])
    return None if other is None else {**case, "expected": {**case["expected"], field: other}}


def changes(file: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is changed, and the case with it: every field in some cases, every error, and some results.

    Raises:
        AssertionError: a field has nothing to change in any case.
    """
    times: dict[str, int] = {}
    for case in file["cases"]:
        for field in case.get("expected", ()):
            other = changed(case, field) if times.get(field, 0) < OFTEN else None
            if other is not None:
                times[field] = times.get(field, 0) + 1
                yield field, other
    valid = [case for case in file["cases"] if case["result"] == "valid"]
    for case in valid[:OFTEN]:
        yield "a field more", {**case, "expected": {**case["expected"], "unheard_of": 1}}
        yield "refused", {**case, "result": "refused", "error": "wrong_value"}
        yield "nonsense", {**case, "result": "nonsense"}
    kinds = {"no_such_id": "wrong_value", "wrong_value": "no_such_id"}
    for case in file["cases"]:
        if case["result"] == "refused":
            yield "another error", {**case, "error": kinds[case["error"]]}
    assert set(times) == {field for case in valid for field in case["expected"]}
