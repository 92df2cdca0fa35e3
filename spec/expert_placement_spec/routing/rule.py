"""Which replica of an expert serves a token. SPEC.md, "Choice of a replica" and "Weighted choice"."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

WORD = 2**32
"""Hashes are below this."""


def hashed(expert: int, token: int, seed: int) -> int:
    """The hash of an expert for a token: three numbers spread and added up, then mixed."""
    mixed = (token * 0x9E3779B1 + expert * 0x85EBCA77 + seed * 0xC2B2AE3D) % WORD
    mixed = (mixed ^ mixed >> 16) * 0x7FEB352D % WORD
    mixed = (mixed ^ mixed >> 15) * 0x846CA68B % WORD
    return mixed ^ mixed >> 16


def chosen(count: int, hash_value: int) -> int:
    """The replica of n that a hash names: the hash as a part of 2^32, scaled to n."""
    return hash_value * count // WORD


def chosen_by_weight(buckets: Sequence[tuple[int, int]], hash_value: int) -> int:
    """The replica of a weighted expert: that of the bucket, or the one that gets the rest of the bucket."""
    bucket, rest = divmod(hash_value * len(buckets), WORD)
    cutoff, alias = buckets[bucket]
    return bucket if rest < cutoff else alias


def buckets_of(weights: Sequence[float]) -> list[tuple[int, int]]:
    """For each replica how many of its bucket's 2^32 hashes it keeps, and which replica gets the others.

    Raises:
        ValueError: weights that are negative or not finite, or whose sum is 0 or not finite.
    """
    if not all(0 <= weight < float("inf") for weight in weights):
        raise ValueError(f"weights={list(weights)}, expected finite numbers of at least 0")
    total = 0.0
    # One after the other: newer Pythons make up for what `sum` loses.
    for weight in weights:
        total += weight
    if not 0 < total < float("inf"):
        raise ValueError(f"weights={list(weights)} add up to {total}, expected a finite number above 0")
    own = parts(weights, total)
    buckets = [(WORD - 1, replica) for replica in range(len(weights))]
    short = [replica for replica in reversed(range(len(own))) if own[replica] < WORD]
    while short:
        replica = short.pop()
        giver = next(other for other in range(len(own)) if own[other] > WORD)
        buckets[replica] = (own[replica], giver)
        own[giver] -= WORD - own[replica]
        own[replica] = WORD
        if own[giver] < WORD:
            short.append(giver)
    return buckets


def parts(weights: Sequence[float], total: float) -> list[int]:
    """Weights as whole numbers of hashes that add up to n * 2^32: differences of cumulative sums rounded down."""
    everything = len(weights) * WORD
    last = max(replica for replica, weight in enumerate(weights) if weight > 0)
    ends, until = [0], 0.0
    for replica, weight in enumerate(weights):
        until += weight
        ends.append(everything if replica >= last else min(int(until / total * everything), everything))
    return [end - begin for begin, end in itertools.pairwise(ends)]
