"""Classes and functions that have no more than a program offers, so that what it lacks is seen like of any other."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

Member = TypeVar("Member")


def needs(*offers: str) -> Callable[[Member], Member]:
    """Says what a program has to offer for a method, a property or a function."""

    def add(member: Member) -> Member:
        function: Any = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        function.needs = offers
        return member

    return add


def needs_of(member: Any) -> tuple[str, ...]:
    """What a program has to offer for it."""
    function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
    return tuple(getattr(function, "needs", ()))


def offered_class(made: type, offers: Collection[str], /, **attributes: Any) -> Any:
    """The same class without the members that the program does not offer, and with these attributes."""
    members = {
        name: member
        for name, member in vars(made).items()
        if name not in ("__dict__", "__weakref__") and set(needs_of(member)) <= set(offers)
    }
    return type(made.__name__, made.__bases__, {**members, **attributes})


def with_offered_parameters(called: Any, call: str, options: Collection[str], offers: Collection[str]) -> Any:
    """The same function or class, which says that it has no parameters beside those that the program takes."""
    signature = inspect.signature(called)
    lacking = {option for option in options if f"{call}({option})" not in offers}
    kept = [one for one in signature.parameters.values() if one.name not in lacking]
    called.__signature__ = signature.replace(parameters=kept)
    return called
