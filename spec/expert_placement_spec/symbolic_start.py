"""What a process for one contract starts with: CrossHair, and the mutants of the formulas."""

from __future__ import annotations

import crosshair.core_and_libs  # noqa: F401

from expert_placement_spec import symbolic_run  # noqa: F401
from expert_placement_spec.formula_mutants import formula_mutants

MODELS = [mutant.model for mutant in formula_mutants()]
