"""The catalogue of hostile values, by the kind of parameter that they are fed to.

A kind is a function from an ordinary value to the hostile ones. What means the same as the ordinary value is said so,
and what can mean nothing too; of the rest either an answer or an error will do.
"""

from __future__ import annotations

import array
import decimal
import enum
import fractions
import itertools
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tests.hostile.judging import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEPTH = 10_000
"""How deep lists are nested: an interpreter's own limit is a tenth of that."""


class Unplugged(BaseException):
    """What no `except Exception` catches."""


class Index:
    """An object that is an integer by `__index__`."""

    def __init__(self, number: Any) -> None:
        self.number = number

    def __index__(self) -> Any:
        if isinstance(self.number, type):
            raise self.number("from __index__")
        return self.number


class Itself:
    """An object whose `__index__` never ends."""

    def __index__(self) -> int:
        return self.__index__()


class Liar(int):
    """An int that says of itself that it is everything."""

    def __repr__(self) -> str:
        return "x" * 10**6

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __lt__(self, other: object) -> bool:
        return True

    __le__ = __gt__ = __ge__ = __lt__


class Everything(str):
    """A text that is equal to every other."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("linear")


class Disguised:
    """An object that says it is of another class."""

    def __init__(self, as_what: type) -> None:
        self.as_what = as_what

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return self.as_what


class Sequence:
    """A sequence whose methods do what they are told to: an exception is raised, and anything else given back."""

    def __init__(self, length: Any = 0, items: Any = None, **others: Any) -> None:
        self.length, self.items, self.others = length, items, others

    def __len__(self) -> Any:
        return _told(self.length)

    def __getitem__(self, index: Any) -> Any:
        return _told(self.items)

    def __iter__(self) -> Iterator[Any]:
        yield _told(self.items)


class Exporter:
    """An array by one of its protocols, which raises or gives back something else."""

    def __init__(self, **told: Any) -> None:
        self.told = told
        if "interface" in told:
            self.__array_interface__ = told["interface"]

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return _told(self.told.get("array", TypeError))

    def __dlpack__(self, **options: Any) -> Any:
        return _told(self.told.get("dlpack", BufferError))

    def __dlpack_device__(self) -> Any:
        return _told(self.told.get("device", (1, 0)))

    def __len__(self) -> int:
        return 3


class Tensorlike(Exporter):
    """An exporter that goes through the door of tensors."""

    dtype = torch.int64
    shape = (3,)

    def detach(self) -> Any:
        return _told(self.told.get("detach", self))

    def cpu(self) -> Any:
        return self

    resolve_neg = resolve_conj = contiguous = cpu


class Subclass(torch.Tensor):
    """A tensor of another class, without anything of its own."""


def _told(told: Any) -> Any:
    if isinstance(told, type) and issubclass(told, BaseException):
        raise told("from a method of the value")
    return told


def giving(value: Any) -> Callable[[], Any]:
    """Gives the same value every time."""
    return lambda: value


def nested(inner: Any = 0, depth: int = DEPTH) -> list[Any]:
    """A list in a list in a list."""
    value = inner
    for _ in range(depth):
        value = [value]
    return value  # type: ignore[no-any-return]


def in_itself() -> list[Any]:
    """A list that holds itself."""
    value: list[Any] = []
    value.append(value)
    return value


def fake(tensor: Any) -> Any:
    """A tensor that has a shape and no memory."""
    from torch._subclasses import FakeTensorMode

    return FakeTensorMode().from_tensor(tensor)


def quantized(values: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(values.float(), 1.0, 0, torch.quint8)


def claiming(number: float, dtype: Any = np.int64) -> Any:
    """An array of 8 TB that is one number in memory."""
    return np.broadcast_to(np.array(number, dtype=dtype), (2**20, 2**20))


def _refused(**made: Callable[[], Any]) -> list[Value]:
    return [Value(name.strip("_").replace("_", " "), make, is_refused=True) for name, make in made.items()]


NOTHING = Value("None", lambda: None, is_refused=True)

OBJECTS = [
    *_refused(
        an_object=object,
        a_class=lambda: int,
        a_function=lambda: len,
        an_ellipsis=lambda: ...,
        a_dict=lambda: {0: 1},
        a_set=lambda: {0, 1},
        a_module=lambda: np,
        half_a_surrogate_pair=lambda: "\ud800",
        bytes_that_are_no_UTF_8=lambda: b"\xff\xfe",
        a_complex_number=lambda: 1 + 0j,
        a_nested_list=nested,
        a_list_that_holds_itself=in_itself,
    ),
]
"""What is of no use wherever numbers, tables or objects of ours are wanted."""


def integers(usual: int) -> list[Value]:
    """For a count or an id, of which everything outside 0..=2**31 - 1 is refused."""
    beyond = {
        "-1": -1,
        "-2**31": -(2**31),
        "-2**63": -(2**63),
        "-2**63 - 1": -(2**63) - 1,
        "2**31": 2**31,
        "2**32 and the usual": 2**32 + usual,
        "2**63": 2**63,
        "2**64": 2**64,
        "2**64 and the usual": 2**64 + usual,
        "-2**64 and the usual": -(2**64) + usual,
        "10**4000": 10**4000,
        "10**5000": 10**5000,
    }
    return [
        *wide_integers(usual),
        *(Value(name, lambda number=number: number, is_refused=True) for name, number in beyond.items()),  # type: ignore[misc]
        *(Value(f"a liar of {name}", lambda n=number: Liar(n), is_refused=True) for name, number in beyond.items()),  # type: ignore[misc]
        Value("2**31 - 1", lambda: 2**31 - 1),
        Value("2**20", lambda: 2**20),
        Value("2**28", lambda: 2**28),
        Value("0", lambda: 0),
    ]


def wide_integers(usual: int) -> list[Value]:
    """For an integer of which the range is another's to say."""
    number = enum.IntEnum("number", {"usual": usual})
    same: dict[str, Callable[[], Any]] = {
        "a liar": lambda: Liar(usual),
        "an int of an enumeration": lambda: number(usual),
        "an object with __index__": lambda: Index(usual),
        "an array of no dimensions": lambda: np.array(usual),
        "one in the other byte order": lambda: np.array(usual, dtype=">i8"),
        "a tensor of no dimensions": lambda: torch.tensor(usual),
        "a tensor of one": lambda: torch.tensor([usual]),
        "a sparse tensor of one": lambda: torch.tensor([usual]).to_sparse(),
        "a fake tensor of a number": lambda: fake(torch.tensor(usual)),
        **{f"a numpy {name}": giving(np.dtype(name).type(usual)) for name in ("int8", "uint8", "int64", "uint64")},
    }
    return [
        *OBJECTS,
        *_refused(
            a_bool=lambda: True,
            a_numpy_bool=lambda: np.True_,
            a_float_of_an_integer=lambda: float(usual),
            a_numpy_float=lambda: np.float64(usual),
            a_half=lambda: 1.5,
            not_a_number=lambda: float("nan"),
            infinity=lambda: float("inf"),
            a_decimal=lambda: decimal.Decimal(usual),
            a_fraction=lambda: fractions.Fraction(usual),
            a_text=lambda: str(usual),
            a_numpy_text=lambda: np.str_(usual),
            bytes_of_a_number=lambda: str(usual).encode(),
            an_empty_text=lambda: "",
            a_list_of_one=lambda: [usual],
            a_tuple_of_one=lambda: (usual,),
            an_array_of_one=lambda: np.array([usual]),
            a_matrix=lambda: np.matrix([[usual]]),
            a_masked_number=lambda: np.ma.masked,
            a_date=lambda: np.datetime64(usual, "s"),
            a_span_of_time=lambda: np.timedelta64(usual, "s"),
            void=lambda: np.void(b"\x03\x00\x00\x00"),
            an_array_of_a_bool=lambda: np.array(True),
            an_array_of_an_object=lambda: np.array(object(), dtype=object),
            a_generator=lambda: (usual for _ in range(1)),
            a_slice=lambda: slice(usual),
            a_range=lambda: range(usual),
            a_tensor_of_a_float=lambda: torch.tensor(float(usual)),
            a_tensor_of_a_bool=lambda: torch.tensor(True),
            a_tensor_of_a_complex_number=lambda: torch.tensor(1 + 0j),
            a_tensor_with_a_gradient=lambda: torch.tensor(float(usual), requires_grad=True),
            a_meta_tensor=lambda: torch.tensor(usual, device="meta"),
            a_quantized_tensor=lambda: quantized(torch.tensor([usual])),
            tensors_of_two_=lambda: torch.tensor([usual, usual]),
            an_index_that_is_a_text=lambda: Index("3"),
            an_index_that_is_a_float=lambda: Index(3.0),
            a_huge_index=lambda: Index(10**5000),
        ),
        Value("an index that raises", lambda: Index(KeyError), is_refused=True, raised=KeyError),
        Value("an index that raises a BaseException", lambda: Index(Unplugged), is_refused=True, raised=Unplugged),
        Value("an index that never ends", Itself, is_refused=True, raised=RecursionError),
        *(_same_or_refused(name, make, lambda: usual) for name, make in same.items()),
    ]


def _same_or_refused(name: str, make: Callable[[], Any], plain: Callable[[], Any]) -> Value:
    return Value(name, make, plain)


def sizes(usual: int) -> list[Value]:
    """For a number of bytes of 64 bits, or one for each of two layers."""
    large = ("2**31", "2**32 and the usual", "a liar of 2**31", "a liar of 2**32 and the usual", "tensors of two")
    return [value for value in integers(usual) if value.name not in large]


def seeds(usual: int) -> list[Value]:
    """For an int, or a tensor of one, of which a wide range is taken."""
    return [
        *(value for value in wide_integers(usual) if value.name not in _TAKEN_IN_TENSORS),
        *_refused(
            tensors_of_two=lambda: torch.tensor([usual, usual]),
            no_tensors=lambda: torch.empty(0, dtype=torch.int64),
            a_tensor_of_int16=lambda: torch.tensor(usual, dtype=torch.int16),
            a_claim=lambda: torch.tensor(usual).expand(2**40),
        ),
        *(Value(str(number)[:9], lambda number=number: number) for number in (-1, 2**32, 2**63 - 1)),  # type: ignore[misc]
        *_refused(two_to_the_64=lambda: 2**64, ten_to_the_5000=lambda: 10**5000, minus_two_to_the_64=lambda: -(2**64)),
    ]


# Ids in tensors are read on the device, and a tensor of one is an id there.
_TAKEN_IN_TENSORS = frozenset(
    {"a meta tensor", "a fake tensor of a number", "a tensor of one", "a sparse tensor of one", "tensors of two"}
)


def ids_in_tensors(usual: int) -> list[Value]:
    """For an id or an integer tensor of ids, whose values nobody looks at: out of range they have a stated answer."""
    several = torch.tensor([usual, 0, 1])
    return [
        *(value for value in integers(usual) if value.name not in _TAKEN_IN_TENSORS),
        *(value for value in torch_layouts(several) if "fake" not in value.name and "meta" not in value.name),
    ]


def floats(usual: float) -> list[Value]:
    """For a finite float of 0 or more."""
    return [
        *OBJECTS,
        *_refused(
            a_bool=lambda: True,
            not_a_number=lambda: float("nan"),
            infinity=lambda: float("inf"),
            minus_infinity=lambda: float("-inf"),
            minus_one=lambda: -1.0,
            minus_a_huge_integer=lambda: -(10**400),
            a_huge_integer=lambda: 10**400,
            a_text=lambda: str(usual),
            an_empty_list=list,
            a_list_of_one=lambda: [usual],
            two_numbers=lambda: np.array([usual, usual]),
            a_meta_tensor=lambda: torch.tensor(usual, device="meta"),
            a_fake_tensor=lambda: fake(torch.tensor(usual)),
            tensors_of_two=lambda: torch.tensor([usual, usual]),
            a_tensor_of_a_complex_number=lambda: torch.tensor(1 + 0j),
            a_date=lambda: np.datetime64(1, "s"),
        ),
        _same_or_refused("a numpy float64", lambda: np.float64(usual), lambda: usual),
        Value("a fraction", lambda: fractions.Fraction(1, 2)),
        Value("a tensor", lambda: torch.tensor(usual)),
        Value("1e308", lambda: 1e308),
        Value("the least float", lambda: 5e-324),
        Value("minus zero", lambda: -0.0),
    ]


def seconds(usual: float) -> list[Value]:
    """For a time to wait, more than 0."""
    # Whether anybody answers within the least time that there is depends on the clock.
    short = Value("a short time", lambda: 2.0)
    given = [short if value.name == "the least float" else value for value in floats(usual)]
    return [*given, *_refused(no_time=lambda: 0.0, a_year=lambda: 3.2e7)]


def bools(usual: bool) -> list[Value]:
    """For a truth value."""
    return [
        *OBJECTS,
        *_refused(
            one=lambda: 1,
            zero=lambda: 0,
            a_text=lambda: "yes",
            an_empty_text=lambda: "",
            an_empty_list=list,
            not_a_number=lambda: float("nan"),
            two_bools=lambda: np.array([True, False]),
            a_meta_tensor=lambda: torch.tensor(True, device="meta"),
        ),
        _same_or_refused("a numpy bool", lambda: np.bool_(usual), lambda: usual),
        _same_or_refused("a tensor", lambda: torch.tensor(usual), lambda: usual),
    ]


def choices(usual: str) -> list[Value]:
    """For one of a few names."""
    return [
        *OBJECTS,
        *_refused(
            an_empty_text=lambda: "",
            capitals=lambda: usual.upper(),
            a_blank_behind=lambda: f"{usual} ",
            a_null_behind=lambda: f"{usual}\0",
            full_width=lambda: "".join(chr(ord(letter) + 0xFEE0) for letter in usual),
            a_million_letters=lambda: "x" * 10**6,
            escapes=lambda: "\x1b[2J\r\n",
            bytes_of_it=lambda: usual.encode(),
            a_number=lambda: 3,
            a_list_of_it=lambda: [usual],
        ),
        Value("a text that says it is equal to everything", lambda: Everything("nonsense")),
        _same_or_refused("a numpy text", lambda: np.str_(usual), lambda: usual),
        _same_or_refused("a subclass", lambda: type("Text", (str,), {})(usual), lambda: usual),
    ]


def devices(usual: str) -> list[Value]:
    """For a device."""
    return [
        *OBJECTS,
        *_refused(
            an_empty_text=lambda: "",
            unknown=lambda: "nonsense",
            a_GPU_that_is_not_there=lambda: "cuda:99",
            a_number_that_is_not_there=lambda: 99,
            a_negative_number=lambda: -5,
            a_huge_number=lambda: 10**30,
            a_number_of_5000_digits=lambda: 10**5000,
            a_float=lambda: 1.5,
            a_million_letters=lambda: "x" * 10**6,
            escapes=lambda: "\x1b[2J",
            a_tuple=lambda: ("cpu", 0),
            an_array=lambda: np.array(["cpu"]),
        ),
        _same_or_refused("a torch.device", lambda: torch.device(usual), lambda: usual),
        _same_or_refused("its number", lambda: f"{usual}:0", lambda: usual),
        Value("meta", lambda: "meta"),
    ]


def objects(usual: Any) -> list[Value]:
    """For an object of a class of ours."""
    cls = type(usual)
    return [
        *OBJECTS,
        *_refused(
            a_number=lambda: 3,
            a_text=lambda: "p",
            a_list=lambda: [usual],
            its_class=lambda: cls,
            its_text=lambda: repr(usual),
            disguised_as_one=lambda: Disguised(cls),
            an_array_of_it=lambda: np.array(usual, dtype=object),
            a_tensor=lambda: torch.tensor([1]),
        ),
    ]


def callables(usual: Any) -> list[Value]:
    """For a function."""
    return [value for value in OBJECTS if value.name not in ("a class", "a function")]


def groups(usual: Any) -> list[Value]:
    """For a process group."""
    return [*OBJECTS, *_refused(a_number=lambda: 3, minus_one=lambda: -100, a_text=lambda: "gloo", a_list=lambda: [0])]


def dtypes(usual: Any) -> list[Value]:
    """For a dtype of torch."""
    return [
        *OBJECTS,
        *_refused(
            a_text=lambda: "int32",
            of_numpy=lambda: np.dtype("int32"),
            a_number=lambda: 3,
            quantized=lambda: torch.quint8,
        ),
    ]


def _arrays_of_nonsense(usual: np.ndarray[Any, Any]) -> list[Value]:
    """Arrays and sequences that hold no numbers, or cannot be read."""
    return [
        *OBJECTS,
        *_refused(
            a_text=lambda: "0 1 2",
            bytes_of_numbers=lambda: b"\x00\x01\x02",
            an_empty_text=lambda: "",
            a_list_of_texts=lambda: [["0", "1"]],
            a_list_of_None=lambda: [[None]],
            a_generator=lambda: (row for row in usual.tolist()),
            a_generator_that_never_ends=lambda: (0 for _ in iter(int, 1)),
            complex_numbers=lambda: usual.astype(np.complex64),
            texts=lambda: usual.astype("U4"),
            byte_strings=lambda: usual.astype("S4"),
            dates=lambda: usual.astype("int64").astype("datetime64[s]"),
            spans_of_time=lambda: usual.astype("int64").astype("timedelta64[s]"),
            void=lambda: np.ascontiguousarray(usual, dtype=np.int32).view("V4"),
            a_structure=lambda: np.zeros(usual.shape, dtype=[("a", "i4"), ("b", "f8")]),
            bools=lambda: usual.astype(bool),
            objects=lambda: np.full(usual.shape, object(), dtype=object),
            arrays_in_an_object=lambda: np.array([np.arange(3), np.arange(2)], dtype=object),
            ragged=lambda: [usual.tolist(), usual.tolist()[:-1]],
            masked=lambda: np.ma.array(usual, mask=np.ones(usual.shape, dtype=bool)),
            partly_masked=lambda: np.ma.array(usual, mask=np.arange(usual.size).reshape(usual.shape) == 1),
            eight_terabytes_of_one_number=lambda: claiming(-7),
            an_exabyte_of_one_number=lambda: torch.tensor(-7).expand(2**31, 2**28),
            items_that_are_itself=lambda: _itself_as_item(),
            an_array_that_is_a_text=lambda: Exporter(array="text"),
            an_array_that_cannot_be_had=lambda: Exporter(array=ValueError),
            a_capsule_that_is_a_number=lambda: Tensorlike(dlpack=3),
            a_tensor_whose_detach_is_a_text=lambda: Tensorlike(detach="text"),
            a_buffer_at_no_address=lambda: Exporter(
                interface={"shape": (2**40,), "typestr": "<i8", "data": (0, True), "version": 3}
            ),
            a_sparse_tensor=lambda: torch.as_tensor(np.ascontiguousarray(usual)).to_sparse(),
            a_compressed_tensor=lambda: torch.as_tensor(np.ascontiguousarray(np.atleast_2d(usual))).to_sparse_csr(),
            a_nested_tensor=lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
            a_quantized_tensor=lambda: quantized(torch.as_tensor(np.ascontiguousarray(usual))),
            a_meta_tensor=lambda: torch.empty(usual.shape, dtype=torch.int64, device="meta"),
            a_fake_tensor=lambda: fake(torch.as_tensor(np.ascontiguousarray(usual))),
            a_complex_tensor=lambda: torch.as_tensor(np.ascontiguousarray(usual)).to(torch.complex64),
            a_conjugate_tensor=lambda: torch.as_tensor(np.ascontiguousarray(usual)).to(torch.complex64).conj(),
            a_tensor_of_bools=lambda: torch.as_tensor(np.ascontiguousarray(usual)).bool(),
            a_tensor_of_more_than_its_memory=lambda: _beyond_its_memory(usual.shape),
        ),
        Value("another device", lambda: Tensorlike(device=(2, 0)), is_refused=True, raised=BufferError),
        Value("a device that is a text", lambda: Tensorlike(device="cpu"), is_refused=True, raised=BufferError),
        *(
            Value(f"{name} that raises {error.__name__}", make, is_refused=True, raised=error)
            for error in (KeyError, Unplugged)
            for name, make in {
                "a length": lambda e=error: Sequence(e, 0),
                "an item": lambda e=error: Sequence(3, e),
                "an __array__": lambda e=error: Exporter(array=e),
                "a length of 2 to the 62": lambda e=error: Sequence(2**62, e),
                "a __dlpack__": lambda e=error: Tensorlike(dlpack=e),
                "a detach": lambda e=error: Tensorlike(detach=e),
            }.items()
        ),
    ]


def _itself_as_item() -> Sequence:
    sequence = Sequence(1)
    sequence.items = sequence
    return sequence


def _beyond_its_memory(shape: tuple[int, ...]) -> Any:
    """A tensor whose storage was given away after it was made."""
    tensor = torch.zeros(shape, dtype=torch.int64)
    tensor.untyped_storage().resize_(8)
    return tensor


def numpy_layouts(usual: np.ndarray[Any, Any]) -> list[Value]:
    """The usual numbers, in arrays and sequences of every kind that hold them as they are."""

    def strided() -> Any:
        wide = np.full((*usual.shape[:-1], usual.shape[-1] * 3), 77, dtype=usual.dtype)
        wide[..., ::3] = usual
        return wide[..., ::3]

    def unaligned() -> Any:
        raw = bytearray(1) + bytearray(usual.tobytes())
        return np.frombuffer(raw, dtype=usual.dtype, offset=1).reshape(usual.shape)

    def read_only() -> Any:
        copy = usual.copy()
        copy.flags.writeable = False
        return copy

    def in_a_structure() -> Any:
        rows = np.zeros(usual.shape, dtype=[("a", "i1"), ("b", usual.dtype)])
        rows["b"] = usual
        return rows["b"]

    made: dict[str, Callable[[], Any]] = {
        "negative strides": lambda: np.flip(np.flip(usual).copy()),
        "a stride of three": strided,
        "columns first": lambda: np.asfortranarray(usual),
        "not aligned": unaligned,
        "read-only": read_only,
        "a field of a structure": in_a_structure,
        "the other byte order": lambda: usual.astype(usual.dtype.newbyteorder("S")),
        "the other byte order, backwards": lambda: np.flip(np.flip(usual).astype(usual.dtype.newbyteorder("S"))),
        "nested lists": usual.tolist,
        "nested tuples": lambda: _tuples(usual.tolist()),
        "rows of arrays": lambda: list(usual),
        "an array of objects": lambda: usual.astype(object),
        "a subclass": lambda: usual.copy().view(type("Array", (np.ndarray,), {})),
        "a masked array without a mask": lambda: np.ma.array(usual),
    }
    if usual.ndim == 1:
        made["a buffer"] = lambda: array.array("d" if usual.dtype.kind == "f" else "q", usual.tolist())
        made["a memoryview"] = lambda: memoryview(usual.copy())
        made["a memoryview backwards"] = lambda: memoryview(np.flip(usual).copy())[::-1]
    if usual.ndim == 2:
        made["a matrix"] = lambda: np.matrix(usual)
    return [_same_or_refused(name, make, lambda: usual) for name, make in made.items()]


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def torch_layouts(usual: Any) -> list[Value]:
    """The usual tensor in every layout that holds its values, and kinds of tensors that hold none."""

    def strided() -> Any:
        wide = torch.full((*usual.shape[:-1], usual.shape[-1] * 3), 77, dtype=usual.dtype)
        wide[..., ::3] = usual
        return wide[..., ::3]

    def shifted() -> Any:
        raw = bytearray(3) + bytearray(usual.contiguous().numpy().tobytes())
        return torch.frombuffer(raw, dtype=usual.dtype, offset=3).reshape(usual.shape)

    def of_inference() -> Any:
        with torch.inference_mode():
            return usual.clone()

    made: dict[str, Callable[[], Any]] = {
        "a tensor": usual.clone,
        "a tensor of stride three": strided,
        "a transposed tensor": lambda: usual.mT.contiguous().mT if usual.ndim > 1 else usual.clone(),
        "a tensor that is not aligned": shifted,
        "a lazily negated tensor": lambda: torch._neg_view(-usual),
        "a tensor of inference mode": of_inference,
        "a tensor of a subclass": lambda: usual.clone().as_subclass(Subclass),
        "a view of a larger tensor": lambda: torch.cat([usual, usual])[: usual.shape[0]],
    }
    if usual.is_floating_point():
        made["a tensor with a gradient"] = lambda: usual.clone().requires_grad_()
        made["a parameter"] = lambda: torch.nn.Parameter(usual.clone())
        made["a lazily conjugated real part"] = lambda: usual.to(torch.complex128).conj().real.to(usual.dtype)
        made["the part of a conjugate"] = lambda: (
            torch.complex(usual.double(), -usual.double()).conj().imag.to(usual.dtype)
        )
    return [
        # Some calls write to what they are given, and what is made of it after that would be another's.
        *(_same_or_refused(name, make, usual.clone) for name, make in made.items()),
        *_refused(
            a_sparse_tensor=lambda: usual.to_sparse(),
            a_meta_tensor=lambda: usual.to("meta"),
            a_fake_tensor=lambda: fake(usual),
            a_nested_tensor=lambda: torch.nested.nested_tensor([usual, usual]),
            a_quantized_tensor=lambda: quantized(usual),
            a_tensor_of_bools=usual.bool,
            a_complex_tensor=lambda: usual.to(torch.complex64),
            a_conjugate_tensor=lambda: usual.to(torch.complex64).conj(),
        ),
    ]


def tables(usual: Any) -> list[Value]:
    """For ids of one or more dimensions: a tensor, an array or sequences of integers."""
    ids = np.asarray(usual, dtype=np.int64)
    of = {f"dtype {name}": name for name in ("int8", "int16", "int32", "uint8", "uint16", "uint32", "uint64")}
    narrow = {f"a tensor of {name}": name for name in ("int8", "int16", "int32", "uint8", "uint16", "uint32", "uint64")}
    wrong = {"-7": -7, "2**31 - 1": 2**31 - 1, "2**31": 2**31, "2**63 - 1": 2**63 - 1, "-2**63": -(2**63)}
    wrong = {**wrong, "2**32 and an id": 2**32 + int(ids.flat[0]), "2**33 below an id": int(ids.flat[0]) - 2**33}
    return [
        *_arrays_of_nonsense(ids),
        *numpy_layouts(ids),
        *numpy_layouts(ids.astype(np.int32)),
        *torch_layouts(torch.from_numpy(ids.copy())),
        *(_same_or_refused(name, lambda kind=kind: ids.astype(kind), lambda: ids) for name, kind in of.items()),  # type: ignore[misc]
        *(
            _same_or_refused(name, lambda kind=kind: torch.from_numpy(ids.copy()).to(getattr(torch, kind)), lambda: ids)  # type: ignore[misc]
            for name, kind in narrow.items()
        ),
        *(
            Value(f"{name} in it, as {form}", lambda n=number, as_=as_: as_(_with(ids, n)), is_refused=True)  # type: ignore[misc]
            for name, number in wrong.items()
            for form, as_ in {"an array": np.asarray, "a tensor": torch.from_numpy, "lists": _lists}.items()
        ),
        *_refused(
            floats=lambda: ids.astype(np.float64),
            halves=lambda: ids.astype(np.float16),
            floats_in_lists=lambda: ids.astype(np.float64).tolist(),
            a_tensor_of_floats=lambda: torch.from_numpy(ids.copy()).float(),
            a_tensor_with_a_gradient=lambda: torch.from_numpy(ids.copy()).double().requires_grad_(),
            a_tensor_of_bfloat16=lambda: torch.from_numpy(ids.copy()).bfloat16(),
            a_tensor_of_float8=lambda: torch.from_numpy(ids.copy()).float().to(torch.float8_e4m3fn),
            a_huge_integer_in_lists=lambda: _with_object(ids, 10**30).tolist(),
            ten_to_the_5000_in_lists=lambda: _with_object(ids, 10**5000).tolist(),
            two_to_the_64_less_one=lambda: np.full(ids.shape, 2**64 - 1, dtype=np.uint64),
            not_a_number_in_lists=lambda: _with_object(ids, float("nan")).tolist(),
            a_bool_in_lists=lambda: _with_object(ids, True).tolist(),
            a_liar_out_of_range=lambda: _with_object(ids, Liar(2**40)).tolist(),
        ),
        Value("nothing of a huge shape", lambda: torch.empty(0, dtype=torch.int64).as_strided((0, 2**40), (1, 1))),
        Value("nothing of a huge shape, as an array", lambda: np.empty((0, 2**40), dtype=np.int64)),
        Value("nothing of another huge shape", lambda: np.empty((2**40, 0), dtype=np.int64)),
        Value("an empty list", list),
        Value("one number", lambda: 3),
        Value("an array of no dimensions", lambda: np.array(3)),
    ]


def counters(usual: Any) -> list[Value]:
    """For an integer tensor that counts, or is written to: nothing but a tensor will do."""
    known = {
        "a text": "ids",
        "a list": [1, 2],
        "an array": np.zeros((2, 2), dtype=np.int64),
        "a number": 3,
        "a float": 1.5,
    }
    return [
        *OBJECTS,
        *(Value(name, lambda given=given: given, is_refused=True) for name, given in known.items()),  # type: ignore[misc]
        *torch_layouts(usual),
        *_refused(
            floats=usual.double,
            a_tensor_with_a_gradient=lambda: usual.double().requires_grad_(),
            halves=usual.bfloat16,
            eighths=lambda: usual.float().to(torch.float8_e4m3fn),
            one_number=lambda: torch.tensor(3),
            a_claim=lambda: torch.tensor(1).expand(2**31, 2**20),
            a_huge_shape=lambda: torch.empty(0, dtype=torch.int64).as_strided((0, 2**40), (1, 1)),
        ),
        Value("disguised as a tensor", lambda: Disguised(torch.Tensor), is_refused=True, raised=AttributeError),
    ]


def any_tensors(usual: Any) -> list[Value]:
    """For weights, a float tensor of any dtype."""
    known = {"a text": "w", "a list of numbers": [1.0, 2.0], "a number": 3, "a float": 1.5, "bytes": b"\x00" * 8}
    return [
        *OBJECTS,
        *(Value(name, lambda given=given: given, is_refused=True) for name, given in known.items()),  # type: ignore[misc]
        *(value for value in torch_layouts(usual) if value.name not in _HAS_BYTES),
        *_refused(
            one_number=lambda: torch.tensor(3.0),
            a_claim=lambda: torch.tensor(1.0).expand(2**31, 2**20, 2),
            a_tensor_of_more_than_its_memory=lambda: _beyond_its_memory(tuple(usual.shape)),
        ),
        Value("disguised as a tensor", lambda: Disguised(torch.Tensor), is_refused=True, raised=AttributeError),
        Value("a huge shape of nothing", lambda: torch.empty(0).as_strided((*usual.shape[:2], 0, 2**40), (1,) * 4)),
    ]


# Weights are bytes to whoever moves them, and bools and complex numbers have bytes too.
_HAS_BYTES = frozenset({"a tensor of bools", "a complex tensor", "a conjugate tensor"})


def loads(usual: Any) -> list[Value]:
    """For measured loads: finite numbers of 0 or more in two or three dimensions."""
    numbers = np.asarray(usual, dtype=np.float64)
    of = ("int8", "int32", "int64", "uint8", "uint64", "float16", "float32", "longdouble", ">i4", ">f4", ">f8", ">u8")
    wrong = {"not a number": np.nan, "infinity": np.inf, "minus infinity": -np.inf, "minus one": -1.0}
    return [
        *_arrays_of_nonsense(numbers),
        *numpy_layouts(numbers),
        *torch_layouts(torch.from_numpy(numbers.copy())),
        *(_same_or_refused(f"dtype {kind}", lambda kind=kind: numbers.astype(kind), lambda: numbers) for kind in of),  # type: ignore[misc]
        *(
            _same_or_refused(
                f"a tensor of {kind}",
                lambda kind=kind: torch.from_numpy(numbers.copy()).to(getattr(torch, kind)),  # type: ignore[misc]
                lambda: numbers,
            )
            for kind in ("int8", "int64", "uint8", "uint64", "float16", "bfloat16", "float32", "float8_e5m2")
        ),
        *(
            Value(f"{name} in it, as {form}", lambda n=number, as_=as_: as_(_with(numbers, n)), is_refused=True)  # type: ignore[misc]
            for name, number in wrong.items()
            for form, as_ in {"an array": np.asarray, "a tensor": torch.from_numpy, "lists": _lists}.items()
        ),
        *_refused(
            a_bool_in_lists=lambda: _with_object(numbers, True).tolist(),
            a_text_in_lists=lambda: _with_object(numbers, "1").tolist(),
            a_huge_integer_in_lists=lambda: _with_object(numbers, 10**400).tolist(),
            one_number=lambda: 3.0,
            an_empty_list=list,
            four_dimensions=lambda: numbers.reshape(1, 1, *numbers.shape),
            nothing_of_a_huge_shape=lambda: np.empty((0, 2**40)),
            nothing_of_another_huge_shape=lambda: np.empty((2**40, 0)),
            windows_of_nothing=lambda: np.empty((2**40, 0, numbers.shape[-1])),
            eight_terabytes_of_zeros=lambda: claiming(0, np.float64),
            windows_of_zeros=lambda: np.broadcast_to(np.zeros(numbers.shape), (2**40, *numbers.shape)),
            windows_of_zeros_in_a_tensor=lambda: torch.zeros(numbers.shape).expand(2**40, *numbers.shape),
        ),
        Value("the largest floats", lambda: np.full(numbers.shape, 1.7e308)),
        Value("the least floats", lambda: np.full(numbers.shape, 5e-324)),
        Value("minus zeros", lambda: np.full(numbers.shape, -0.0)),
        Value("no windows", lambda: np.empty((0, *numbers.shape))),
    ]


def _with(numbers: np.ndarray[Any, Any], number: Any) -> Any:
    copy = numbers.copy()
    copy.flat[-1] = number
    return copy


def _with_object(numbers: np.ndarray[Any, Any], thing: Any) -> Any:
    copy = numbers.astype(object)
    copy.flat[-1] = thing
    return copy


def _lists(numbers: Any) -> Any:
    return numbers.tolist()


def sequences(usual: Any) -> list[Value]:
    """For an iterable of numbers, bools or names."""
    return [
        *(value for value in OBJECTS if value.name not in ("a dict", "a set")),
        *_refused(
            a_dict=lambda: _keyed(usual),
            a_text=lambda: "abc",
            a_number_of_its_own=lambda: 1.5,
            a_list_of_None=lambda: [None] * len(usual),
            a_list_of_objects=lambda: [object()] * len(usual),
            a_list_of_lists=lambda: [[each] for each in usual],
            one_more=lambda: [*usual, object()],
            not_a_number=lambda: [float("nan")] * len(usual),
            surrogates=lambda: ["\ud800"] * len(usual),
            bytes_in_it=lambda: [b"\xff"] * len(usual),
            texts_of_a_million_letters=lambda: ["x" * 10**6] * len(usual),
            numbers_of_5000_digits=lambda: [10**5000] * len(usual),
            one_that_never_ends=lambda: itertools.repeat(usual[0]),
        ),
        Value("an item that raises", lambda: Sequence(len(usual), KeyError), is_refused=True, raised=KeyError),
        Value("an item that raises a BaseException", lambda: Sequence(3, Unplugged), is_refused=True, raised=Unplugged),
        _same_or_refused("a tuple", lambda: tuple(usual), lambda: list(usual)),
        _same_or_refused("a generator", lambda: (each for each in usual), lambda: list(usual)),
        _same_or_refused("an array", lambda: np.array(usual), lambda: list(usual)),
        _same_or_refused("an array backwards", lambda: np.array(list(usual)[::-1])[::-1], lambda: list(usual)),
        Value("an empty list", list),
    ]


def _keyed(usual: Any) -> dict[Any, Any]:
    """A mapping from the values, or to them where they cannot be keys."""
    try:
        return dict.fromkeys(usual, 1)
    except TypeError:
        return dict(enumerate(usual))


def texts(usual: str) -> list[Value]:
    """For a text that is drawn, whatever it says."""
    return [
        *(value for value in OBJECTS if value.name != "half a surrogate pair"),
        *_refused(a_number=lambda: 3, bytes_of_it=lambda: usual.encode()),
        Value("half a surrogate pair", lambda: "\ud800"),
        Value("half a formula", lambda: "$\\frac{"),
        Value("a thousand letters", lambda: "x" * 1000),
        Value("an empty text", lambda: ""),
    ]
