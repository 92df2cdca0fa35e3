"""How immutable values are copied, and subclasses of them with attributes of their own."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class ItselfAsCopy:
    """`__copy__` or `__deepcopy__` of a class whose instances are their own copies.

    Subclasses do not inherit it: they are copied as any other object is, by their `__reduce__`, which they may define.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._owner = owner
        self._name = name

    def __get__(self, value: Any, cls: type) -> Callable[..., Any]:
        if cls is not self._owner:
            raise AttributeError(f"type object {cls.__name__!r} has no attribute {self._name!r}")
        # Asked for on the class the value is still to be given, and a deep copy brings its memo.
        return (lambda value, *_: value) if value is None else (lambda *_: value)


def attributes(value: object, base: type) -> dict[str, object] | None:
    """What subclasses of `base` added to a value, by name, whether in `__dict__` or in slots; None without any."""
    slots = {name: getattr(value, name) for name in _slots(type(value), base) if hasattr(value, name)}
    return getattr(value, "__dict__", {}) | slots or None


def set_attributes(value: Any, base: type, named: dict[str, object]) -> None:
    """Gives a value that has just been made the attributes of another."""
    slots = _slots(type(value), base)
    for name, attribute in named.items():
        if name in slots:
            object.__setattr__(value, name, attribute)
        else:
            value.__dict__[name] = attribute


def _slots(subclass: type, base: type) -> set[str]:
    """The names of the slots that a subclass of `base` and the classes between them declare."""
    from types import MemberDescriptorType

    between = (cls for cls in subclass.__mro__ if not issubclass(base, cls))
    return {name for cls in between for name, slot in vars(cls).items() if isinstance(slot, MemberDescriptorType)}
