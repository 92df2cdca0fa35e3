"""What a file of a placement holds, before it is known whose it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from expert_placement.formats.files import path_argument, read_existing
from expert_placement.formats.json_object import decode, parse, printable
from expert_placement.formats.tensors import is_binary, parse_tensors

if TYPE_CHECKING:
    import os

    from expert_placement.placement import Placement

# 100 layers of 10,000 slots of six characters are 6 MB.
MOST_BYTES = 2**30


class Layers(NamedTuple):
    """A placement, and the layers of the model that it is of."""

    placement: Placement
    layer_ids: tuple[int, ...] | None
    """The model's layer of each layer of the placement, ascending; None where the file does not say."""


@dataclass(frozen=True, slots=True)
class Contents:
    """A file that was read and is yet to be understood.

    Attributes:
        name: what messages call it.
        suffix: of its name, in lower case.
        content: its bytes.
    """

    name: str
    suffix: str
    content: bytes

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Contents:
        """Reads a regular file of at most 1 GiB.

        Raises:
            OSError: the file cannot be read, or there is none.
            ValueError: no regular file, or one that is too large.
        """
        file = path_argument(path)
        name = f"`{printable(str(path))}`"
        return cls(name, file.suffix.lower(), read_existing(path, name, "a placement", MOST_BYTES))

    @property
    def is_binary(self) -> bool:
        """Whether arrays or tensors are in it, and not text."""
        return is_binary(self.content, self.suffix, self.name)

    def text(self, expected: str) -> str:
        """The text.

        Raises:
            ValueError: arrays or tensors, or no UTF-8.
        """
        self._expect_text(expected)
        return decode(self.name, self.content)

    def json(self, expected: str) -> object:
        """The JSON.

        Raises:
            ValueError: arrays or tensors, or the file is damaged.
        """
        self._expect_text(expected)
        return parse(self.name, self.content, expected)

    def _expect_text(self, expected: str) -> None:
        if self.is_binary:
            raise ValueError(f"{self.name}: the content is arrays or tensors, expected {expected}")

    def value(self, expected: str) -> object:
        """The JSON, the array, or what torch saved.

        Raises:
            ModuleNotFoundError: what torch saved, without torch.
            ValueError: the file is damaged.
        """
        if self.is_binary:
            return parse_tensors(self.name, self.content)
        return parse(self.name, self.content, expected)
