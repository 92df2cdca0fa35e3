"""What the reference model answers, and what the laws ask of it, over a part of each domain, as digests of cases.

A specification changes when somebody means it to: a change of the model, of what the checkers derive from answers, of a
law's premises or of the cases shows here as lines of a diff, whether or not it breaks a law. By hand:

    python -m tests.spec.recording

writes `recorded.json` anew, and `recorded_cases.json`: a digest of all cases of the quick domain, of the first of each
block of the others, and of the cases of real sizes.
"""

from __future__ import annotations

import hashlib
import json
import random
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from expert_placement_spec import CHAPTERS
from expert_placement_spec.adapter import load_model
from expert_placement_spec.answers import Lookup
from expert_placement_spec.cases import Chapter, first_violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from expert_placement_spec.cases import Case

RECORD = Path(__file__).with_name("recorded.json")
CASES = Path(__file__).with_name("recorded_cases.json")
FIRST = 3
"""Of the larger domains so many cases of each block are looked at."""
EVERY = {"placement": 3, "balance": 11, "migration": 19, "routing": 3}
"""Of so many cases of the quick domain one is looked at."""


def some_of(chapter: str, every: int) -> list[Case]:
    """One of so many cases of a chapter's quick domain, in an order in which the first differ as much as the last."""
    domain = CHAPTERS[chapter].domains["quick"]
    everything = (case for block in domain.blocks() for case in domain.cases(block))
    cases = list(islice(everything, 0, None, every))
    random.Random(0).shuffle(cases)
    return cases


def written(value: Any) -> str | None:
    """A value as text, or None where it is no plain one, such as an implementation's own object."""
    if isinstance(value, Lookup):
        return written(value.array)
    if isinstance(value, np.ndarray):
        return f"{value.dtype.kind}{value.tolist()}"
    if isinstance(value, np.generic):
        return repr(value.item())
    if isinstance(value, (bool, int, float, str)) or value is None:
        return repr(value)
    if isinstance(value, (list, tuple)):
        parts = [written(one) for one in value]
        return None if None in parts else f"[{', '.join(map(str, parts))}]"
    return None


def digests(chapter: str) -> Iterator[tuple[Case, str]]:
    """Each case, and a digest of it, of each answer that the laws asked for, and of how many points each law has."""
    about, model = CHAPTERS[chapter], load_model(Chapter.reference)
    kept = {name for kind in about.view.__mro__ for name, one in vars(kind).items() if isinstance(one, cached_property)}
    for case in some_of(chapter, EVERY[chapter]):
        view = about.view(model, case)
        points = {name: first_violation(law, view) for name, law in about.laws.items()}
        answers = {name: written(vars(view)[name]) for name in sorted(kept & vars(view).keys())}
        seen = (case.size, case.values(), points, answers)
        yield case, digest_of(seen)


def digest_of(value: Any) -> str:
    """A short digest of a plain value."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:8]


def cases_of(chapter: str) -> dict[str, str]:
    """A digest of cases of each of a chapter's domains, with how many they are, and of each case of real sizes.

    Of the quick domain they are all, and of the others the first of each block.
    """
    about, found = CHAPTERS[chapter], {}
    for name, domain in about.domains.items():
        most = None if name == "quick" else FIRST
        cases = [(block, case.values()) for block in domain.blocks() for case in islice(domain.cases(block), most)]
        found[name] = f"{'all' if most is None else 'the first'} {len(cases)} cases, {digest_of(cases)}"
    return found | {name: digest_of(make().values()) for name, make in about.real.items()}


def main() -> None:
    """Writes the records."""
    answers = {chapter: [digest for _, digest in digests(chapter)] for chapter in CHAPTERS}
    for path, record in ((RECORD, answers), (CASES, {chapter: cases_of(chapter) for chapter in CHAPTERS})):
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
