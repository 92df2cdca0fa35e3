"""Words of others in our messages: the one rule for what they look like there.

The compiled core has the same rule, so that its messages and those of the Python layer look alike.
"""

from __future__ import annotations

# How many bytes of a name messages show.
_MOST_OF_A_NAME = 40
# How many digits of an integer messages show.
_MOST_DIGITS = 120


def printable(text: str) -> str:
    """The text on one line, with escapes for what no terminal can show."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def excerpt(text: str, most: int = _MOST_OF_A_NAME) -> str:
    """The beginning of a text, printable.

    Args:
        text: any text; half a surrogate pair counts as its escape.
        most: the most bytes, as UTF-8, that are shown of it.
    """
    encoded = text.encode("utf-8", "backslashreplace")
    return printable(encoded[:most].decode("utf-8", "ignore")) + ("..." if len(encoded) > most else "")


def text_of(value: object) -> str:
    """What a value says that it is, or its type where it has no words for it."""
    if type(value) is int:
        return digits(value)
    try:
        return str(value)
    except Exception:
        # Lists that hold themselves, integers of thousands of digits, and whatever a method raises.
        return f"a value of the type {type(value).__name__}"


def digits(value: int) -> str:
    """An integer as text; of one that has more digits than anyone reads, the beginning."""
    try:
        # That of a subclass may say anything.
        text = int.__repr__(value)
    except ValueError:
        return "a huge integer"
    return text if len(text) <= _MOST_DIGITS else f"{text[:_MOST_DIGITS]}..."
