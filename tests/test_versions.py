"""The versions of the package and of the specification are the same wherever they stand, and in the changelog."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import expert_placement
import expert_placement_spec

ROOT = Path(__file__).parents[1]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_package_says_what_its_manifest_says() -> None:
    manifest = (ROOT / "Cargo.toml").read_text(encoding="utf-8")
    versions = set(re.findall(r'^(?:expert-placement = \{ )?version = "([^"]+)"', manifest, flags=re.MULTILINE))
    assert versions == {expert_placement.__version__}
    # The same in Python's notation.
    assert metadata.version("expert-placement") == expert_placement.__version__.replace("-alpha.", "a")


def test_the_changelog_begins_with_the_version_that_is_being_made() -> None:
    first = re.search(r"^## ([0-9.]+), not released yet$|^## ([0-9.]+) - [0-9-]{10}$", CHANGELOG, flags=re.MULTILINE)
    assert first is not None
    release, _, unfinished = expert_placement.__version__.partition("-")
    assert (first[1] or first[2], bool(first[1])) == (release, bool(unfinished))


def test_the_specification_says_its_version_everywhere() -> None:
    version = expert_placement_spec.__version__
    assert f'\nversion = "{version}"\n' in (ROOT / "spec/pyproject.toml").read_text(encoding="utf-8")
    assert f"\nVersion {version}. " in (ROOT / "spec/SPEC.md").read_text(encoding="utf-8")
    assert f"The specification is at version {version}" in CHANGELOG
    assert metadata.version("expert-placement-spec") == version
