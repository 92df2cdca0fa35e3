"""Recorded loads: every container gives the same array, and everything that is no load is refused with its place."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from expert_placement.formats.loads import KEYS, read_loads, read_recorded_loads
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

torch = pytest.importorskip("torch", reason="`.pt` needs torch")

DATA = Path(__file__).parents[2] / "examples" / "data"
TRACES = [file for file in sorted(DATA.rglob("*.json")) if set(json.loads(file.read_text())) & set(KEYS)]


def write(path: Path, content: Any) -> Path:
    """A file of any kind, by its suffix."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".npy":
        np.save(path, content)
    elif path.suffix in (".pt", ".pth"):
        torch.save(content, path)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def refused(path: Path) -> str:
    """What is said of a file, after its name."""
    with pytest.raises(ValueError, match=re.escape(f"`{path}`: ")) as caught:
        read_loads(path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600 + len(str(path))
    return message.removeprefix(f"`{path}`: ")


shapes = st_numpy.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=4)
tables = st.one_of(
    st_numpy.arrays(np.int64, shapes, elements=st.integers(0, 2**63 - 1)),
    st_numpy.arrays(np.float64, shapes, elements=st.floats(0, 1e290)),
)


@settings(deadline=None)
@given(tables)
def test_every_container_gives_the_same_array(table: np.ndarray[Any, Any]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        contents: dict[str, Any] = {
            "table.json": table.tolist(),
            "object.json": {"logical_count": table.tolist(), "more": None},
            "array.npy": table,
            "fortran.npy": np.asfortranarray(table),
            "big_endian.npy": table.astype(table.dtype.newbyteorder(">")),
            "tensor.pt": torch.from_numpy(table),
            "dump.pt": {"rank": 0, "logical_count": torch.from_numpy(table), "average": None},
            "lists.pth": {"logical_count": table.tolist()},
        }
        for name, content in contents.items():
            loads = read_loads(write(Path(folder) / name, content))
            assert loads.dtype == table.dtype, name
            assert loads.flags.c_contiguous
            assert np.array_equal(loads, table), name


@pytest.mark.parametrize("key", KEYS)
def test_each_key_of_a_table_is_read(tmp_path: Path, key: str) -> None:
    loads = read_loads(write(tmp_path / "loads.json", {key: [[1, 2.5]], "samples": 3}))
    assert loads.tolist() == [[1.0, 2.5]]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "uint32", "uint64", "float16", "float32"])
def test_narrow_and_unsigned_numbers_are_widened(tmp_path: Path, dtype: str) -> None:
    table = np.arange(6).reshape(2, 3).astype(dtype)
    for name, content in (("loads.npy", table), ("loads.pt", torch.from_numpy(table.copy()))):
        loads = read_loads(write(tmp_path / name, content))
        assert loads.dtype == (np.float64 if "float" in dtype else np.int64)
        assert loads.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_floats_that_numpy_does_not_have_are_read(tmp_path: Path, dtype: Any) -> None:
    assert read_loads(write(tmp_path / "x.pt", torch.ones(2, 3).to(dtype))).tolist() == [[1.0] * 3] * 2


def test_a_tensor_of_no_numbers_is_refused(tmp_path: Path) -> None:
    message = refused(write(tmp_path / "x.pt", torch.ones(2, 2, dtype=torch.uint8).view(torch.bits8)))
    assert message == "the tensor is of torch.bits8, expected integers or floats"


def test_integers_beyond_int64_become_the_nearest_float(tmp_path: Path) -> None:
    table = [[2**63, 1], [2**53 + 1, 0]]
    for name, content in (("loads.json", table), ("loads.npy", np.array(table, dtype=np.uint64))):
        loads = read_loads(write(tmp_path / name, content))
        assert loads.dtype == np.float64
        assert loads.tolist() == [[2.0**63, 1.0], [2.0**53, 0.0]]


def test_what_the_recorder_of_sglang_writes_is_read_whole(tmp_path: Path) -> None:
    # `expert_distribution_recorder_*.pt` of the modes stat and stat_approx: a circular buffer of passes, filled up
    # with zeros, over all hidden layers, of which the dense ones are zero (sglang 0.5.23, expert_distribution.py).
    counts = torch.zeros(4, 3, 2, dtype=torch.int32)
    counts[:2, 1:] = torch.tensor([[5, 3], [4, 4]])
    dump = {"rank": 0, "logical_count": counts, "average_utilization_rate_over_window": None}
    loads = read_loads(write(tmp_path / "dump.pt", dump))
    assert loads.tolist() == counts.tolist()
    assert loads.dtype == np.int64


@pytest.mark.parametrize("file", TRACES, ids=lambda file: f"{file.parent.name}-{file.name}")
def test_the_traces_of_the_examples_are_read(file: Path) -> None:
    assert len(TRACES) >= 3
    root = json.loads(file.read_text())
    recorded = read_recorded_loads(file)
    assert recorded.loads.tolist() == next(root[key] for key in KEYS if key in root)
    assert recorded.layer_ids == (tuple(root["layers"]) if "layers" in root else None)


def test_shapes_without_experts_are_tables(tmp_path: Path) -> None:
    assert read_loads(write(tmp_path / "a.json", [[], []])).shape == (2, 0)
    assert read_loads(write(tmp_path / "b.json", [[[], []]])).shape == (1, 2, 0)
    assert read_loads(write(tmp_path / "c.npy", np.zeros((2, 0)))).shape == (2, 0)


NUMBER = "expected a number"
POSITIVE = "expected a finite number that is 0 or more"
BAD_JSON = [
    ([[[1, 2]], [[1, -2]]], f"window 1, layer 0, expert 1 is `-2`, {POSITIVE}"),
    ([[[1, 2]], [[1, True]]], f"window 1, layer 0, expert 1 is `true`, {NUMBER}"),
    ([[[1, 2]], [3]], "window 1, layer 0 is `3`, expected an array with a load for each expert"),
    ([[[1, 2]], 3], "window 1 is `3`, expected an array with a row for each layer"),
    ([[[1, 2]], [[1, 2], [1, 2]]], "window 1 has 2 layers, expected 1, as window 0 has"),
    ([[[1, 2]], [[1, 2, 3]]], "window 1 has 3 experts, expected 2, as window 0 has"),
    ([[[1, 2], [1]]], "window 0, layer 1 has 1 experts, expected 2, as window 0, layer 0 has"),
    (
        [[[1, [2]]]],
        f"window 0, layer 0, expert 1 is an array, {NUMBER}: the table has more than the three levels "
        "[windows][layers][experts]",
    ),
    ([[1, 10**400]], "layer 0, expert 1 is an integer of 401 digits, expected at most 1e+300"),
    ([[1, -(10**400)]], "layer 0, expert 1 is `-1"),
    ('{"counts": [[1]], "counts": [[1]]}', "line 1, column 19: duplicate key `counts`"),
    ("[[1, 2]", "line 1, column 8: broken JSON"),
    ("3", "the JSON is `3`, expected a table"),
    ({"counts": {}}, "`counts` is an object, expected a table"),
    ({"loads": [[1]]}, "the object has none of `counts`, "),
    ({"physical_to_logical_map": [[0, 1]]}, "the object has none of `counts`, "),
]


@pytest.mark.parametrize(("content", "message"), BAD_JSON, ids=[message for _, message in BAD_JSON])
def test_bad_json_is_refused_with_the_place(tmp_path: Path, content: Any, message: str) -> None:
    assert refused(write(tmp_path / "loads.json", content)).startswith(message)


NAN = float("nan")
BAD_ARRAYS = [
    ([[1, NAN]], f"layer 0, expert 1 is `NaN`, {POSITIVE}"),
    ([[[1, 2]], [[1, float("inf")]]], f"window 1, layer 0, expert 1 is `Infinity`, {POSITIVE}"),
    ([[1, -2]], f"layer 0, expert 1 is `-2`, {POSITIVE}"),
    ([[True, False]], "the array is of bool, expected integers or floats"),
    ([[1j]], "the array is of complex"),
    ([1, 2], "the array has 1 dimensions"),
    ([[[[1]]]], "the array has 4 dimensions"),
    (np.zeros((0, 2)), "there are no layers"),
    (np.zeros((0, 2, 2)), "there are no windows"),
    ([[1e300, 1e300]], "the loads sum to more than 1e+300"),
]


@pytest.mark.parametrize(("content", "message"), BAD_ARRAYS, ids=[message for _, message in BAD_ARRAYS])
def test_bad_arrays_and_tensors_are_refused_with_the_place(tmp_path: Path, content: Any, message: str) -> None:
    array = np.asarray(content)
    assert refused(write(tmp_path / "loads.npy", array)).startswith(message)
    assert refused(write(tmp_path / "loads.pt", {"logical_count": torch.from_numpy(array)})).startswith(message)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([0], "`layers` is an array of 1, expected an array with the layer of each of 2 rows"),
        (3, "`layers` is `3`, expected an array with the layer of each of 2 rows"),
        ([0, True], "`layers[1]` is `true`, expected the id of a layer, an integer of 0 or more"),
        ([-1, 0], "`layers[0]` is `-1`, expected the id of a layer, an integer of 0 or more"),
        ([4, 4], "`layers[1]` is 4, which stands earlier too, expected each layer once"),
    ],
)
def test_layers_that_are_no_ids_of_the_rows_are_refused(tmp_path: Path, layers: Any, message: str) -> None:
    assert refused(write(tmp_path / "loads.json", {"counts": [[1], [2]], "layers": layers})) == message


@pytest.mark.parametrize(
    ("shape", "descr", "message"),
    [
        ("(True, 6)", "'<f8'", "the header of the array is damaged: the shape is (True, 6)"),
        (f"({2**70}, 0)", "'<f8'", f"the array has the shape ({2**70}, 0), more rows than the file has bytes"),
        (f"({2**40}, 0)", "'<i4'", f"the array has the shape ({2**40}, 0), more rows than the file has bytes"),
        (f"({'1, ' * 70})", "'<f8'", "the array can not be made: "),
        ("(1, 3)", "('<i4', (2,))", "the array holds ('<i4', (2,)), expected numbers"),
        ("(1, 1)", "[('a', '<f8')]", "the array holds [('a', '<f8')], expected numbers"),
        ("(1, 1)", "'<U2'", "the array holds <U2, expected numbers"),
    ],
)
def test_a_forged_header_is_refused_at_once(tmp_path: Path, shape: str, descr: str, message: str) -> None:
    file = tmp_path / "loads.npy"
    file.write_bytes(npy_header(shape, descr) + bytes(8))
    if shape.endswith("0)"):
        file.write_bytes(npy_header(shape, descr))
    assert refused(file).startswith(message)


def test_a_tensor_of_nothing_with_many_rows_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "loads.pt", torch.empty(2**30, 0))
    assert refused(file) == f"the tensor has the shape ({2**30}, 0), more rows than the file has bytes"


def npy_header(shape: str, descr: str = "'<f8'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def test_arrays_that_promise_more_than_the_file_holds_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "loads.npy"
    for shape, message in (
        (f"({2**40}, 8)", f"the array of shape ({2**40}, 8) needs {2**46} bytes, and the file has 16"),
        ("(1, 3)", "the array of shape (1, 3) needs 24 bytes, and the file has 16"),
        ("(1, 1)", "the array of shape (1, 1) needs 8 bytes, and the file has 16"),
        ("(-1, -2)", "the header of the array is damaged: the shape is (-1, -2)"),
        ("(", "the header of the array is damaged"),
    ):
        assert refused(write(file, npy_header(shape) + bytes(16))).startswith(message)
    assert "Python objects" in refused(write(file, npy_header("(1, 2)", "'|O'") + bytes(16)))
    for content in (b"\x93NUMPY", b"\x93NUMPY\x09\x00", b"\x93NUMPY\x01\x00\xff\xff{"):
        assert "header of the array is damaged" in refused(write(file, content))


class Hostile:
    def __reduce__(self) -> Any:
        return os.mkdir, ("touched",)


def repacked(path: Path, change: Any, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A `.pt` with its pickle replaced."""
    stream = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(stream, "w", compression) as new:
        for entry in old.namelist():
            content = old.read(entry)
            new.writestr(entry, change(content) if entry.endswith("data.pkl") else content)
    return stream.getvalue()


def test_a_hostile_file_of_tensors_runs_nothing_and_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good = write(tmp_path / "good.pt", torch.ones(2, 2))
    file = tmp_path / "loads.pt"
    attack = pickle.dumps(Hostile(), protocol=2)
    for content in (
        repacked(good, lambda _: attack),
        repacked(good, lambda content: content[: len(content) // 2]),
        repacked(good, lambda _: b""),
        good.read_bytes()[:200],
        b"PK\x03\x04",
    ):
        message = refused(write(file, content))
        assert "torch can not load this" in message or "the archive is damaged" in message
    assert "plain pickle" in refused(write(file, attack))
    assert "plain pickle" in refused(write(tmp_path / "loads.json", attack))
    bomb = write(tmp_path / "bomb.pt", torch.zeros(1 << 10, 1 << 10))
    assert "unpacks to" in refused(write(file, repacked(bomb, bytes, zipfile.ZIP_DEFLATED)))
    assert not (tmp_path / "touched").exists()


def test_tensors_that_promise_more_than_the_file_holds_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "loads.pt"
    assert "needs" in refused(write(file, torch.zeros(1).expand(1 << 20, 1 << 20)))
    assert "no dense tensor" in refused(write(file, torch.eye(3).to_sparse()))
    assert "no dense tensor" in refused(write(file, torch.empty(2, 2, device="meta")))
    for value in ([torch.zeros(2, 2)], {"counts": [[torch.tensor(1)]]}, None, 3, {"counts": None}, {1: 2}, "x"):
        refused(write(file, value))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".npy"])
def test_a_suffix_that_the_content_contradicts_is_refused(tmp_path: Path, suffix: str) -> None:
    assert f"as `{suffix}` says" in refused(write(tmp_path / f"loads{suffix}", b"[[1, 2]]"))
    assert read_loads(write(tmp_path / "saved", npy_header("(1, 2)") + bytes(16))).tolist() == [[0, 0]]


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path) == "this is a directory, expected a file of loads"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert refused(pipe) == "this is no regular file, expected a file of loads"
    with pytest.raises(FileNotFoundError):
        read_loads(tmp_path / "none")
    with pytest.raises(ValueError, match="null"):
        read_loads("a\0b")


def test_a_large_file_is_refused_by_its_size(tmp_path: Path) -> None:
    file = tmp_path / "loads.json"
    with file.open("wb") as stream:
        stream.write(b" ")
        stream.truncate(2**26 + 1)
    assert refused(file) == f"the file is larger than {2**26} bytes, expected a file of loads"
