"""The specification of expert placement, made executable: reference model, named invariants, checkers and proofs.

This distribution stands by itself: it needs neither the crate nor the wheel that it is about.
"""

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
