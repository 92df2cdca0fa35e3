"""Numbers for the cases that are too large to be written by hand: the same on every machine and Python."""

from __future__ import annotations

from typing import TypeVar

WORD = 2**64

Item = TypeVar("Item")


class Numbers:
    """A sequence of numbers that follows from its seed: the generator splitmix64."""

    def __init__(self, seed: int) -> None:
        self.state = seed

    def below(self, bound: int) -> int:
        """A number of 0 .. bound."""
        self.state = (self.state + 0x9E3779B97F4A7C15) % WORD
        mixed = (self.state ^ self.state >> 30) * 0xBF58476D1CE4E5B9 % WORD
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB % WORD
        return (mixed ^ mixed >> 31) * bound // WORD

    def shuffled(self, items: list[Item]) -> list[Item]:
        """The items in another order."""
        rest, order = list(items), []
        while rest:
            order.append(rest.pop(self.below(len(rest))))
        return order

    def row(self, num_experts: int, num_slots: int) -> list[int]:
        """What each slot holds where every expert has one and the others hold anything or nothing."""
        others = [self.below(num_experts + 1) - 1 for _ in range(num_slots - num_experts)]
        return self.shuffled([*range(num_experts), *others])
