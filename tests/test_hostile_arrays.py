"""Arrays that lie, or cannot be read: a Python error or the right answer, never a crash and never silence."""

from __future__ import annotations

import ctypes
import warnings
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="tensors need torch")

from expert_placement import ExpertMap, Partition  # noqa: E402 - torch may be missing

P = Partition(30, 8)


def test_a_tensor_without_memory_is_refused() -> None:
    from torch._subclasses import FakeTensorMode

    fake = FakeTensorMode().from_tensor(torch.tensor([1, 2, 29]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for read in (P.owner_of, lambda given: ExpertMap.from_index_map(given, 3)):
            with pytest.raises((BufferError, RuntimeError, TypeError)):
                read(fake)


@pytest.mark.parametrize("offset", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_unaligned_ids_are_read_as_what_they_are(offset: int, dtype: Any) -> None:
    ids = torch.tensor([0, 7, 29], dtype=dtype)
    raw = bytearray(offset) + bytearray(ids.numpy().tobytes())
    expected = P.owner_of(ids).tolist()
    assert P.owner_of(torch.frombuffer(raw, dtype=dtype, offset=offset)).tolist() == expected
    assert P.owner_of(np.frombuffer(raw, dtype=ids.numpy().dtype, offset=offset)).tolist() == expected


@pytest.mark.parametrize("shape", [(0, 2**40, 2**40), (0, 2**62, 4)])
def test_an_empty_tensor_of_a_huge_shape_has_no_answers(shape: tuple[int, ...]) -> None:
    ids = torch.empty(0, dtype=torch.int64).as_strided(shape, (1,) * len(shape))
    assert P.owner_of(ids).shape == shape


def test_lazy_negation_is_resolved() -> None:
    assert P.owner_of(torch._neg_view(-torch.tensor([1, 2, 29]))).tolist() == [0, 0, 7]


def test_a_masked_array_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^experts must not be a masked array$"):
        P.owner_of(np.ma.array([1, 2, 9], mask=[False, False, True]))


class FromTheFuture:
    """An exporter whose structure says that its major version is 2; torch's own door, `detach`, lets it in."""

    dtype = "int64"

    def __init__(self) -> None:
        self.array = np.arange(3)

    def detach(self) -> FromTheFuture:
        return self

    cpu = resolve_neg = contiguous = detach

    def __dlpack__(self, **options: Any) -> Any:
        capsule = self.array.__dlpack__(**options)
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        # The version stands first in the structure.
        ctypes.c_uint32.from_address(pointer(capsule, b"dltensor_versioned")).value = 2
        return capsule


def test_an_unknown_dlpack_version_is_refused() -> None:
    with pytest.raises(BufferError, match=r"^the array is of DLPack version 2, expected 1$"):
        ExpertMap.from_index_map(FromTheFuture(), 3)  # type: ignore[arg-type]


def test_a_list_that_no_memory_holds_is_a_memory_error() -> None:
    with pytest.raises(MemoryError, match=r"^cannot list 2147483647 rank counts"):
        Partition.legal_ranks(0, 2**31 - 1)
    with pytest.raises(ValueError, match=r"^max_ranks is needed where num_experts=0: every rank count is legal$"):
        Partition.legal_ranks(0)
    assert Partition.legal_ranks(0, 4) == [1, 2, 3, 4]
