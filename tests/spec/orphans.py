"""What of the specification stands alone: headings, predicates, checks, proofs and vectors without a counterpart."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """What there is, by name."""

    headings: list[str]
    """Of laws in SPEC.md."""
    predicates: list[str]
    checked: set[str]
    """The laws that a checker looks at, and that it was seen to find true."""
    rejecting: set[str]
    """The laws that reject a mutant or a broken implementation."""
    proofs: list[tuple[str, str]]
    """A tool and what it proves, for each proof that is of a law."""
    vectors: set[str]
    """The files of test vectors, without `.json`."""
    readers: dict[str, set[str]]
    """The files that each language's tests read."""


def orphans(known: Known) -> list[str]:
    """Everything that lacks its counterpart, one line each."""
    found = [f"heading `{name}` has no predicate" for name in known.headings if name not in known.predicates]
    found += [f"predicate `{name}` has no heading" for name in known.predicates if name not in known.headings]
    found += [f"predicate `{name}` is run by no checker" for name in known.predicates if name not in known.checked]
    found += [f"predicate `{name}` rejects nothing" for name in known.predicates if name not in known.rejecting]
    found += [
        f"{tool} proves `{name}`, which is no heading" for tool, name in known.proofs if name not in known.headings
    ]
    for name in sorted(known.rejecting - set(known.predicates)):
        found.append(f"something breaks `{name}`, which is no predicate")
    for language, files in known.readers.items():
        found += [f"vectors `{name}` have no reader in {language}" for name in sorted(known.vectors - files)]
        found += [f"{language} reads `{name}`, which is no file of vectors" for name in sorted(files - known.vectors)]
    return found
