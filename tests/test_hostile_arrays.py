"""Arrays that lie, or cannot be read: a Python error or the right answer, never a crash and never silence."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import warnings
from collections import deque
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


@pytest.mark.parametrize(
    ("ids", "place", "actual"),
    [
        ([1, True], "[1]", "bool"),
        ([[1, 2], [3, False]], "[1][1]", "bool"),
        ((0, np.True_), "[1]", "bool"),
        (deque([True, 2]), "[0]", "bool"),
        ([torch.tensor(True), 2], "[0]", "Tensor"),
        ([np.array([1, 2]), np.array([True, False])], "[1]", "ndarray"),
        ([np.ma.array([1, 2], mask=[True, False]), [3, 4]], "[0]", "MaskedArray"),
    ],
)
def test_what_numpy_would_take_for_integers_is_refused_with_its_place(ids: Any, place: str, actual: str) -> None:
    expected = "an int or an array without a mask" if actual == "MaskedArray" else "an int"
    with pytest.raises(TypeError) as caught:
        P.owner_of(ids)
    assert str(caught.value) == f"experts{place} must be {expected}, got `{actual}`"


class ItsOwnItem:
    """A sequence that holds itself, and says that it is an array."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.array([1, 2])

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Any:
        yield self


def test_what_holds_itself_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^experts(\[0\])+ is nested too deeply, expected an int$"):
        P.owner_of(ItsOwnItem())  # type: ignore[arg-type]


@pytest.mark.parametrize("empty", [[np.array([])], [torch.tensor([])], [np.array([], dtype="U3")]])
def test_nothing_of_another_dtype_is_refused(empty: Any) -> None:
    with pytest.raises(TypeError, match=r"^experts\[0\] must be an int or an array of them, got "):
        P.owner_of(empty)


def test_a_long_range_takes_no_list() -> None:
    assert P.owner_of(range(30)).tolist() == P.owners().tolist()
    assert P.owner_of(range(29, -1, -2)).tolist() == P.owners()[[*range(29, -1, -2)]].tolist()
    with pytest.raises(IndexError, match=r"^expert=30 is out of range, expected 0\.\.30 \(at position 30\)$"):
        P.owner_of(range(10**6))


def test_tensors_that_are_no_integer_are_refused_by_their_parameter() -> None:
    for wrong in (torch.tensor(3, device="meta"), torch.tensor([1, 2])):
        with pytest.raises(TypeError, match=r"^rank must be an int, got `Tensor`$"):
            P.count(wrong)
    with pytest.raises(TypeError, match=r"^experts must be a dense tensor of int32 or int64: "):
        P.owner_of(torch.tensor(3).expand(2**62))


class Wordy(int):
    """An int that says much."""

    def __repr__(self) -> str:
        return "x" * 10**6

    __str__ = __repr__


def test_an_int_of_many_words_is_shown_by_its_digits() -> None:
    for call in (lambda: P.owner(Wordy(2**70)), lambda: P.owner_of([Wordy(2**70)])):
        with pytest.raises(IndexError, match=rf"^expert={2**70} is out of range"):
            call()
    with pytest.raises(ValueError, match=r"^num_experts=10{119}\.\.\. is out of range, expected 0\.\.=2147483647$"):
        Partition(10**4000, 3)


def test_a_truth_value_is_no_entry_of_a_map() -> None:
    with pytest.raises(TypeError, match=r"^expert_map\[1\] must be an int, got `bool`$"):
        ExpertMap.from_index_map([-1, False], 2)


def test_integers_of_any_kind_within_a_sequence_are_integers() -> None:
    for ids in ([np.int64(3), 4], (np.int32(3), np.uint8(4)), range(3, 5), deque([3, 4]), [torch.tensor(3), 4]):
        assert P.owner_of(ids).tolist() == P.owner_of([3, 4]).tolist()


READ_WITHOUT_MEMORY = """
import resource
import numpy as np
from expert_placement import ExpertMap
experts = 1 << 25
entries = {entries}
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
# A copy of the entries fits, and the list of the experts that they own does not.
limit = held + 4 * experts + (3 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    ExpertMap.{read}(entries, experts)
except MemoryError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is set as Linux has it")
@pytest.mark.parametrize(
    ("read", "entries"),
    [
        ("from_index_map", "np.arange(experts, dtype=np.int32)"),
        ("from_index_map_with_sentinel", "np.append(np.arange(experts, dtype=np.int32), np.int32(-1))"),
        ("from_mask", "np.append(np.ones(experts, dtype=np.int32), np.int32(0))"),
        ("from_local_experts", "np.arange(experts, dtype=np.int32)"),
    ],
)
def test_a_map_whose_experts_no_memory_holds_is_a_memory_error(read: str, entries: str) -> None:
    code = READ_WITHOUT_MEMORY.format(read=read, entries=entries)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, f"cannot allocate a list of {1 << 25} elements\n"), ran.stderr
