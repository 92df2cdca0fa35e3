"""Whether all ranks hold the same placement, asked in one small collective. SPEC.md, "Placement"."""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

from expert_placement import Placement
from expert_placement._arguments import is_a
from expert_placement.distributed._groups import (
    Deadline,
    Members,
    holds_words,
    rank_words,
    reason_of,
    seconds_argument,
)
from expert_placement.torch._arguments import expect_placement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from expert_placement.distributed._groups import Group

# Whether there is a placement; the version and the hash of its digest; L, E, P and R.
_MESSAGE = struct.Struct("<?33s4q")
# How much is told of each other thing that has to be the same: its text, or a hash of one that is longer.
_MOST_TEXT = 32
_SIZES = ("num_layers", "num_experts", "num_slots", "num_ranks")


class DisagreementError(ValueError):
    """Ranks hold different placements, or one of them holds none. Raised on every rank with the same text.

    Args:
        message: what is wrong.
        ranks_by_digest: the ranks that hold each placement.
        refused: the ranks whose argument was no placement.
    """

    ranks_by_digest: dict[str, tuple[int, ...]]
    """By digest the ranks that hold that placement, as the group counts them; of `migrate` by what it says differs."""
    refused: tuple[int, ...]
    """The ranks that were called with something else; they raise what is wrong with it themselves."""

    def __init__(self, message: str, ranks_by_digest: dict[str, tuple[int, ...]], refused: tuple[int, ...]) -> None:
        super().__init__(message)
        self.ranks_by_digest = ranks_by_digest
        self.refused = refused

    def __reduce__(self) -> tuple[type[DisagreementError], tuple[object, ...]]:
        return type(self), (str(self), self.ranks_by_digest, self.refused)


def agree(placement: Placement, group: Group = None, *, timeout: float = 60.0) -> None:
    """Returns on every rank if all ranks of a group hold the same placement, and raises on every rank otherwise.

    It is one all-gather of 66 bytes a rank, and every rank of the group has to call it. A rank whose `placement` is
    none takes part and raises its own error after, so that no other waits for it; with a group or a timeout that is
    wrong it cannot.

    Args:
        placement: what this rank holds. The digest says nothing of nodes, speeds and which ranks are active.
        group: the process group; torch's default group without other word. Gloo and NCCL are served.
        timeout: seconds to wait for the other ranks, more than 0 and at most 86400.

    Raises:
        DisagreementError: a `ValueError` that names which ranks hold which digest, and the sizes that differ.
        ValueError: no process group, one that this process is not in, or a timeout out of range.
        TypeError: an argument of another type.
        RuntimeError: another rank did not answer in time.
    """
    waiting = seconds_argument("timeout", timeout)
    agreed(placement, Members(group), waiting)


def agreed(placement: object, members: Members, seconds: float, others: Mapping[str, str] | None = None) -> Placement:
    """What all ranks hold; a rank that holds something else than a placement takes part as well.

    Args:
        placement: what this rank holds.
        members: the group.
        seconds: to wait for the others.
        others: what else has to be the same, by name; all ranks give the same names.

    Raises:
        DisagreementError: as for `agree`; or it names which of the others differs.
        TypeError: `placement` is none.
        RuntimeError: another rank did not answer in time.
    """
    message = _message(placement) if is_a(placement, Placement) else _MESSAGE.pack(False, b"", 0, 0, 0, 0)
    told = {name: _told(text) for name, text in (others or {}).items()}
    try:
        answers = members.exchange(message + b"".join(told.values()), Deadline(seconds))
    except RuntimeError as error:
        raise RuntimeError(f"agree: no answer from every rank within {seconds:g} s: {reason_of(error)}") from error
    held = expect_placement(placement)
    _compare([answer[: _MESSAGE.size] for answer in answers])
    for number, name in enumerate(told):
        at = _MESSAGE.size + number * _MOST_TEXT
        expect_same(name, [answer[at : at + _MOST_TEXT].rstrip(b"\0").decode() for answer in answers])
    return held


def expect_same(name: str, said: list[str]) -> None:
    """Raises the same error on every rank, unless all say the same.

    Raises:
        DisagreementError: it names which ranks say what.
    """
    ranks: dict[str, tuple[int, ...]] = {}
    for rank, each in enumerate(said):
        ranks[each] = (*ranks.get(each, ()), rank)
    if len(ranks) > 1:
        parts = "; ".join(f"{rank_words(those)} {holds_words(those)} {each}" for each, those in ranks.items())
        raise DisagreementError(f"{name} differs between the ranks of the group, expected one: {parts}", ranks, ())


def _told(text: str) -> bytes:
    short = text.encode()
    if len(short) > _MOST_TEXT:
        short = hashlib.sha256(short).hexdigest()[:16].encode()
    return short.ljust(_MOST_TEXT, b"\0")


def _message(placement: Placement) -> bytes:
    digest = bytes.fromhex(placement.digest())
    return _MESSAGE.pack(True, digest, *(getattr(placement, name) for name in _SIZES))


def _compare(answers: list[bytes]) -> None:
    """Raises the same error on every rank, unless all answers are one placement's."""
    ranks_by_digest: dict[str, tuple[int, ...]] = {}
    sizes_by_digest: dict[str, tuple[int, ...]] = {}
    refused: tuple[int, ...] = ()
    for rank, answer in enumerate(answers):
        is_placement, raw, *sizes = _MESSAGE.unpack(answer)
        if not is_placement:
            refused = (*refused, rank)
            continue
        digest = raw.hex()
        ranks_by_digest[digest] = (*ranks_by_digest.get(digest, ()), rank)
        sizes_by_digest[digest] = tuple(sizes)
    if len(ranks_by_digest) <= 1 and not refused:
        return
    parts = [f"{rank_words(ranks)} {holds_words(ranks)} {digest}" for digest, ranks in ranks_by_digest.items()]
    if refused:
        parts.append(f"{rank_words(refused)} {holds_words(refused)} no placement")
    differing = _differing_sizes(ranks_by_digest, sizes_by_digest)
    text = f"placement differs between the ranks of the group, expected one: {'; '.join(parts)}{differing}"
    raise DisagreementError(text, ranks_by_digest, refused)


def _differing_sizes(ranks: dict[str, tuple[int, ...]], sizes: dict[str, tuple[int, ...]]) -> str:
    if len(sizes) < 2:
        return ""
    parts = []
    for name, values in zip(_SIZES, zip(*sizes.values(), strict=True), strict=True):
        if len(set(values)) > 1:
            each = ", ".join(
                f"{value} on {rank_words(ranks[digest])}" for digest, value in zip(sizes, values, strict=True)
            )
            parts.append(f"{name} is {each}")
    return f"; {'; '.join(parts)}" if parts else "; their sizes are the same"
