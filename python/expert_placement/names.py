"""The names that strategies and policies go by, as types; `STRATEGIES` and `POLICIES` list them at run time."""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["Policy", "Strategy"]

Strategy: TypeAlias = Literal["linear", "round_robin", "proportional"]
"""By which rule experts are dealt to ranks. SPEC.md, "Partition"."""

Policy: TypeAlias = Literal["balanced", "deepseek"]
"""By which rule replicas are planned. SPEC.md, "Balance"."""
