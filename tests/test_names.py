"""What each package says that it has."""

from __future__ import annotations

import importlib

import pytest


@pytest.mark.parametrize(
    "name", ["expert_placement", "expert_placement.distributed", "expert_placement_spec", "expert_placement.torch"]
)
def test_public_names_are_listed_whether_or_not_they_are_imported_yet(name: str) -> None:
    if name.partition(".")[2]:
        pytest.importorskip("torch", reason="tensors need torch")
    package = importlib.import_module(name)
    assert set(package.__all__) <= set(dir(package))
    assert all(hasattr(package, public) for public in package.__all__)
