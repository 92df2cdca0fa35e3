"""The specification of expert placement, made executable: reference model, named invariants, checkers and proofs.

This distribution stands by itself: it needs neither the crate nor the wheel that it is about. Importing it loads
nothing else; each name loads what it needs when it is first asked for, so that pytest finds a plugin here at no cost.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from expert_placement_spec.case_check import evaluate_case
    from expert_placement_spec.chapters import CHAPTERS
    from expert_placement_spec.evaluation import evaluate
    from expert_placement_spec.exhaustive import Counterexample, Domain, Outcome, check
    from expert_placement_spec.invariants import INVARIANTS, Invariant
    from expert_placement_spec.processes import Workers
    from expert_placement_spec.reference import Partition

__version__ = "0.3.0"

__all__ = [
    "CHAPTERS",
    "INVARIANTS",
    "Counterexample",
    "Domain",
    "Invariant",
    "Outcome",
    "Partition",
    "Workers",
    "check",
    "evaluate",
    "evaluate_case",
]

_HOMES = {
    "CHAPTERS": "chapters",
    "INVARIANTS": "invariants",
    "Counterexample": "exhaustive",
    "Domain": "exhaustive",
    "Invariant": "invariants",
    "Outcome": "exhaustive",
    "Partition": "reference",
    "Workers": "processes",
    "check": "exhaustive",
    "evaluate": "evaluation",
    "evaluate_case": "case_check",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value: object = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
