"""Weights as bytes: one view of every expert of every tensor, so that all that is an expert's moves together."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch

from expert_placement import _core

if TYPE_CHECKING:
    from typing import Any, TypeAlias, TypeGuard

    Weight: TypeAlias = torch.Tensor | Sequence[torch.Tensor] | torch.nn.ParameterList
    Weights: TypeAlias = torch.Tensor | Mapping[str, Weight] | torch.nn.ParameterDict | Sequence[Weight]

_ALIGNMENT = 16


class Layer(NamedTuple):
    """One tensor's slots of one layer."""

    name: str
    """What messages call it."""
    slots: torch.Tensor
    """`[local slots, ...]`, detached from its history."""
    num_bytes: int
    """Of one expert."""


class LocalWeights:
    """A rank's own slots of every layer.

    Args:
        weights: as for `migrate`.
        num_layers: L.

    Raises:
        ValueError: tensors that do not have L layers, the same number of slots and one device, or whose experts are not
            contiguous.
        TypeError: something else than tensors, or tensors whose bytes cannot be seen.
    """

    __slots__ = ("device", "layers", "num_layers", "num_local_slots", "num_tensors")

    def __init__(self, weights: Weights, num_layers: int) -> None:
        named = _named(weights, num_layers)
        self.num_layers = num_layers
        self.num_tensors = len(named)
        columns = [_layers(name, weight, num_layers) for name, weight in named]
        self.layers: list[list[Layer]] = [list(row) for row in zip(*columns, strict=True)]
        every = [layer for row in self.layers for layer in row]
        if not every:
            raise ValueError("weights holds no tensor, expected at least one")
        self.num_local_slots = every[0].slots.shape[0]
        self.device = every[0].slots.device
        for layer in every:
            if layer.slots.shape[0] != self.num_local_slots:
                expected = f"{self.num_local_slots} as {every[0].name} has"
                raise ValueError(f"{layer.name} has {layer.slots.shape[0]} local slots, expected {expected}")
            if layer.slots.device != self.device:
                expected = f"`{self.device}` as {every[0].name} is"
                raise ValueError(f"{layer.name} is on `{layer.slots.device}`, expected {expected}")
        _expect_memory_of_their_own(every)

    def expert(self, layer: int, slot: int) -> list[torch.Tensor]:
        """The bytes of what a local slot holds, tensor by tensor: views, of those that have any."""
        return [_bytes(each.slots[slot]) for each in self.layers[layer] if each.num_bytes]

    def bytes_per_expert(self, layer: int) -> int:
        """The bytes of an expert of that layer."""
        return sum(each.num_bytes for each in self.layers[layer])

    def segments(self, layer: int) -> list[tuple[int, int]]:
        """Where the bytes of each tensor of an expert are staged: begin and length, and 16-byte aligned."""
        placed, begin = [], 0
        for each in self.layers[layer]:
            if each.num_bytes:
                placed.append((begin, each.num_bytes))
                begin += -(-each.num_bytes // _ALIGNMENT) * _ALIGNMENT
        return placed

    def staged_bytes(self, layer: int) -> int:
        """How long a staged expert of that layer is."""
        placed = self.segments(layer)
        return -(-sum(placed[-1]) // _ALIGNMENT) * _ALIGNMENT if placed else 0

    def signature(self) -> bytes:
        """A hash of all that has to be the same on every rank: names, dtypes, and shapes of an expert."""
        hashed = hashlib.sha256()
        for row in self.layers:
            for each in row:
                hashed.update(f"{each.name!r} {each.slots.dtype} {list(each.slots.shape[1:])}\n".encode())
        return hashed.digest()


def _expect_memory_of_their_own(layers: list[Layer]) -> None:
    """Refuses slots of different layers or tensors that share bytes; those of one are looked at by themselves."""
    held = [layer for layer in layers if layer.num_bytes and len(layer.slots)]
    whole = sorted(((*_span(layer), layer) for layer in held), key=lambda each: each[:2])
    if all(left[1] <= right[0] for left, right in pairwise(whole)):
        return
    # Spans may cross without a byte in common, as those of two columns of a larger tensor do.
    slots = sorted(
        (begin, begin + layer.num_bytes, number) for number, layer in enumerate(held) for begin in _begins(layer)
    )
    for left, right in pairwise(slots):
        if left[1] > right[0]:
            first, second = (held[number].name for number in sorted((left[2], right[2])))
            what = "has layers that share memory" if first == second else f"shares memory with {first}"
            raise ValueError(f"{second} {what}, expected memory of its own for each slot")


def _begins(layer: Layer) -> range:
    """The addresses of a layer's slots."""
    step = layer.slots.stride(0) * layer.slots.element_size()
    first, count = layer.slots.data_ptr(), len(layer.slots)
    return range(first, first + count * step, step) if count > 1 else range(first, first + 1)


def _span(layer: Layer) -> tuple[int, int]:
    """From a layer's first byte to behind its last."""
    begins = _begins(layer)
    return begins[0], begins[-1] + layer.num_bytes


def _named(weights: Weights, num_layers: int) -> list[tuple[str, Weight]]:
    if isinstance(weights, torch.Tensor):
        return [("weights", weights)]
    if isinstance(weights, (Mapping, torch.nn.ParameterDict)):
        for name in weights:
            if not isinstance(name, str):
                raise TypeError(f"weights has a name of the type `{type(name).__name__}`, expected `str`")
        return [(f"weights[{name!r}]", weight) for name, weight in weights.items()]
    if _is_sequence(weights):
        _expect_one_reading(weights, num_layers)
        return [(f"weights[{index}]", weight) for index, weight in enumerate(weights)]
    expected = "a torch.Tensor, or a sequence or a mapping of them"
    raise TypeError(f"weights must be {expected}, got `{type(weights).__name__}`")


def _is_sequence(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, (Sequence, torch.nn.ParameterList)) and not isinstance(value, (str, bytes))


def _expect_one_reading(weights: Sequence[Weight], num_layers: int) -> None:
    """Refuses lists of lists that could as well be those of layers as those of tensors."""
    is_square = num_layers > 1 and len(weights) == num_layers
    if is_square and all(_is_sequence(each) and len(each) == num_layers for each in weights):
        raise ValueError(
            f"weights is a list of {num_layers} lists of {num_layers}, which may be by tensor or by layer, expected a "
            "mapping from each tensor's name to the list of its layers"
        )


def _layers(name: str, weight: Weight, num_layers: int) -> list[Layer]:
    """One tensor, layer by layer."""
    if isinstance(weight, torch.Tensor):
        _expect_bytes(name, weight)
        if weight.ndim < 2 or weight.shape[0] != num_layers:
            expected = f"[{num_layers}, local slots, ...]"
            raise ValueError(f"{name} has the shape {list(weight.shape)}, expected {expected}")
        return [_layer(name, weight.detach()[layer]) for layer in range(num_layers)]
    if not _is_sequence(weight):
        expected = f"a torch.Tensor or a sequence of {num_layers} of them"
        raise TypeError(f"{name} must be {expected}, got `{type(weight).__name__}`")
    if len(weight) != num_layers:
        raise ValueError(f"{name} is a sequence of {len(weight)}, expected {num_layers} tensors, one a layer")
    made = []
    for layer, slots in enumerate(weight):
        of_layer = f"{name}[{layer}]"
        if not isinstance(slots, torch.Tensor):
            raise TypeError(f"{of_layer} must be a torch.Tensor, got `{type(slots).__name__}`")
        _expect_bytes(of_layer, slots)
        if slots.ndim < 1:
            raise ValueError(f"{of_layer} has no dimensions, expected [local slots, ...]")
        made.append(_layer(of_layer, slots.detach()))
    return made


def _layer(name: str, slots: torch.Tensor) -> Layer:
    num_elements = math.prod(slots.shape[1:])
    if slots.numel():
        if not slots[0].is_contiguous():
            raise ValueError(
                f"{name} has experts with the strides {list(slots.stride()[1:])}, expected contiguous ones"
            )
        if slots.shape[0] > 1 and abs(slots.stride(0)) < num_elements:
            raise ValueError(f"{name} has slots that overlap, expected memory of its own for each")
    return Layer(name, slots, num_elements * slots.element_size())


def _expect_bytes(name: str, tensor: torch.Tensor) -> None:
    """Refuses tensors whose memory is not what they hold."""
    _core._expect_dense(name, tensor)
    if tensor.is_quantized:
        raise TypeError(f"{name} must not be quantized, expected the integers and the scales, each by themselves")
    if tensor.is_conj() or tensor.is_neg():
        raise ValueError(f"{name} is a conjugate or negative view, expected its own memory")
    try:
        torch.empty(1, dtype=tensor.dtype).view(torch.uint8)
    except (RuntimeError, TypeError, NotImplementedError):
        raise TypeError(f"{name} has the dtype {tensor.dtype}, expected one that has whole bytes") from None


def _bytes(expert: torch.Tensor) -> torch.Tensor:
    """An expert's bytes, as a view of one dimension."""
    return expert.view(-1).view(torch.uint8)


def checksum(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """64 bits of bytes, int64[1], the same on every device; whatever changes one word of 8 bytes changes it.

    Words are added up after each was mixed with its place by a bijection; sums wrap.

    Args:
        parts: uint8 of one dimension each.
    """
    total = torch.zeros(1, dtype=torch.int64, device=parts[0].device) if parts else torch.zeros(1, dtype=torch.int64)
    place = 1
    for part in parts:
        for piece in torch.split(part, _PIECE):
            words = torch.nn.functional.pad(piece, (0, -len(piece) % 8)).view(torch.int64)
            places = torch.arange(place, place + len(words), dtype=torch.int64, device=words.device)
            total += _mixed(words + places * _GOLDEN).sum()
            place += len(words)
    return total


# Pieces bound the memory that a checksum takes, to a few times 16 MiB; they have whole words.
_PIECE = 2**24
# Odd constants of SplitMix64, as signed integers of 64 bits.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64


def _mixed(words: torch.Tensor) -> torch.Tensor:
    """The finalizer of SplitMix64; shifts are made logical by a mask."""
    words = (words ^ (words >> 30 & (2**34 - 1))) * _FIRST
    words = (words ^ (words >> 27 & (2**37 - 1))) * _SECOND
    return words ^ (words >> 31 & (2**33 - 1))
