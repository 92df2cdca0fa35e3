"""What the binding makes of capsules that no library hands out today, and of tables of functions that are wrong."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from expert_placement import Placement, Topology, _core

if TYPE_CHECKING:
    from collections.abc import Callable

torch = pytest.importorskip("torch", reason="tensors need torch")

SIZES = (2, 2, 1, False)
TABLE = _core._routing_tables(
    Placement.from_physical_to_logical([[0, 1]], num_experts=2, topology=Topology(1)), (0, 1), SIZES, None, None
).reshape(-1)

pointer_of: Any = ctypes.pythonapi.PyCapsule_GetPointer
pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


class Older:
    """An exporter that knows no `max_version`, whose structure is changed before it is handed out."""

    def __init__(self, array: Any, change: Callable[[int], object] = lambda _: None) -> None:
        self.array, self.change = array, change

    def __dlpack__(self) -> Any:
        capsule = self.array.__dlpack__()
        self.change(pointer_of(capsule, b"dltensor"))
        return capsule


def routed(topk_ids: Any, table: Any = TABLE) -> list[int]:
    (slots,) = _core._route(topk_ids, table, SIZES, 1, 0, 0, 3, 0, False, 1)
    found: list[int] = slots.tolist()
    return found


def test_a_capsule_of_the_first_kind_is_read_and_given_back() -> None:
    ids = np.array([1, 0, 1], dtype=np.int32)
    before = sys.getrefcount(ids)
    assert routed(Older(ids)) == [1, 0, 1]
    assert sys.getrefcount(ids) == before


def put(kind: Any, offset: int, value: int) -> Callable[[int], object]:
    """Writes a number into a structure."""
    return lambda address: ctypes.memmove(address + offset, ctypes.byref(kind(value)), ctypes.sizeof(kind))


IDS = np.array([1, 0, 1], dtype=np.int32)


@pytest.mark.parametrize(
    ("ids", "kind", "said"),
    [
        (IDS.astype(np.float32), TypeError, "topk_ids must have dtype int32 or int64"),
        (np.arange(6, dtype=np.int32)[::2], BufferError, "topk_ids must be contiguous"),
        (Older(IDS, put(ctypes.c_int32, 8, 2)), BufferError, "topk_ids must be on the CPU"),
        (Older(IDS, put(ctypes.c_uint64, 0, 0)), TypeError, "topk_ids has no memory that can be read, as a fake or "),
    ],
)
def test_a_capsule_that_can_not_be_read_is_refused(ids: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=f"^{said}"):
        routed(ids)


def test_a_table_of_wide_integers_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^table must have dtype int32$"):
        routed(IDS, TABLE.long())


TABLES = """
    import ctypes
    import torch
    from expert_placement import Partition

    class Header(ctypes.Structure):
        pass

    Header._fields_ = [("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("previous", ctypes.POINTER(Header)),
                       ("allocator", ctypes.c_void_p), ("from_object", ctypes.c_void_p), ("to_object", ctypes.c_void_p)]
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]

    # A function that sets an error and gives no tensor.
    fails = ctypes.cast(ctypes.pythonapi.PyErr_BadArgument, ctypes.c_void_p).value
    first = Header(9, 0, None, None, None, None)
    second = Header(8, 0, ctypes.pointer(first), None, None, None)
    failing = Header(1, 3, None, None, None, fails)
    newer = Header(2, 0, ctypes.pointer(failing), None, None, None)

    def handed_over_by(header):
        torch.Tensor.__dlpack_c_exchange_api__ = new(ctypes.addressof(header), b"dlpack_exchange_api", None)
        return Partition(3, 2).counts()
"""


def said_with(code: str) -> str:
    program = textwrap.dedent(TABLES) + textwrap.dedent(code)
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=240)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


def test_tables_of_other_versions_are_passed_over() -> None:
    assert said_with("print(handed_over_by(second).tolist())") == "[2, 1]\n"


def test_an_error_of_a_table_is_raised() -> None:
    code = """
        try:
            handed_over_by(newer)
        except TypeError as error:
            print(error)
    """
    assert said_with(code) == "bad argument type for built-in operation\n"


def test_an_error_of_a_tensor_type_is_raised() -> None:
    code = """
        class Odd:
            @property
            def __dlpack_c_exchange_api__(self):
                raise OSError("no such table")
        torch.Tensor = Odd()
        try:
            Partition(3, 2).counts()
        except OSError as error:
            print(error)
    """
    assert said_with(code) == "no such table\n"


def test_deleters_of_nothing_do_nothing() -> None:
    code = """
        del torch.Tensor.__dlpack_c_exchange_api__
        kept = []
        torch.from_dlpack = lambda exporter: kept.append(exporter) or exporter
        pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
        pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        for options, name, offset in (({}, b"dltensor", 56), ({"max_version": (1, 0)}, b"dltensor_versioned", 16)):
            Partition(3, 2).counts()
            capsule = kept.pop().__dlpack__(**options)
            address = ctypes.c_void_p.from_address(pointer_of(capsule, name) + offset).value
            ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)(None)
            print(name.decode())
    """
    assert said_with(code) == "dltensor\ndltensor_versioned\n"
