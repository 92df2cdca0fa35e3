"""Damaged files: whatever bytes stand in them, a reader gives an answer or one line that begins with the file."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from expert_placement import Placement, Topology, formats
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="`.pt` needs torch")
pytest.importorskip("yaml", reason="TensorRT-LLM's files are YAML")

TABLE = [[0, 1, 2, 0], [2, 1, 0, 1]]


def samples() -> dict[str, list[bytes]]:
    """Sound files of each format, and of loads."""
    p = Placement.from_physical_to_logical(TABLE, 3, Topology(2))
    files: dict[str, list[bytes]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, suffixes in (
            ("native", (".json",)),
            ("sglang", (".json", ".pt")),
            ("deepseek", (".json", ".pt", ".npy")),
            ("vllm_ascend", (".json",)),
            ("tensorrt_llm", (".yaml",)),
        ):
            for suffix in suffixes:
                path = Path(folder) / f"p{suffix}"
                formats.write(p, path, name)
                files.setdefault(name, []).append(path.read_bytes())
    array, tensor = io.BytesIO(), io.BytesIO()
    np.save(array, np.arange(12.0).reshape(2, 2, 3))
    torch.save({"rank": 0, "logical_count": torch.arange(12).reshape(2, 2, 3)}, tensor)
    files["loads"] = [json.dumps({"counts": [[1, 2.5], [0, 3]]}).encode(), array.getvalue(), tensor.getvalue()]
    return files


SAMPLES = samples()


@st.composite
def damaged(draw: st.DrawFn, name: str) -> bytes:
    """A sound file with bytes changed, left out, put in twice, or cut off."""
    content = bytearray(draw(st.sampled_from(SAMPLES[name])))
    for _ in range(draw(st.integers(1, 4))):
        if not content:
            break
        at = draw(st.integers(0, len(content) - 1))
        until = min(len(content), at + draw(st.integers(1, 8)))
        kind = draw(st.sampled_from(("change", "leave out", "repeat", "cut", "insert")))
        if kind == "change":
            content[at] = draw(st.integers(0, 255))
        elif kind == "leave out":
            del content[at:until]
        elif kind == "repeat":
            content[at:at] = content[at:until]
        elif kind == "cut":
            del content[at:]
        else:
            content[at:at] = draw(
                st.sampled_from((b"[", b"{", b'"', b"-1", b"9" * 30, b",", b"null", b"1e9", b"\n", b"&a "))
            )
    return bytes(content)


def answers(read: Any, content: bytes, suffix: str) -> bool:
    """Whether the file is read; otherwise it is refused by one line with its name in front."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"p{suffix}"
        path.write_bytes(content)
        try:
            read(path)
        except ValueError as error:
            text = str(error)
            assert text.startswith(f"`{path}`: "), text
            assert text.isprintable(), text
            return False
        return True


@settings(max_examples=150, deadline=None)
@given(st.data())
@pytest.mark.parametrize("name", formats.FORMATS)
def test_a_damaged_placement_is_read_or_refused(name: str, data: st.DataObject) -> None:
    content = data.draw(damaged(name))
    topology = None if name == "native" else Topology(2)
    answers(lambda path: formats.read(path, name, topology=topology), content, "")
    answers(lambda path: formats.read(path, topology=topology), content, "")


@settings(max_examples=300, deadline=None)
@given(damaged("loads"))
def test_damaged_loads_are_read_or_refused(content: bytes) -> None:
    answers(formats.read_loads, content, "")


@settings(deadline=None)
@given(st.binary(max_size=40), st.sampled_from(("", ".json", ".pt", ".npy", ".yaml")))
def test_arbitrary_bytes_are_refused(content: bytes, suffix: str) -> None:
    for prefix in (b"", b"\x93NUMPY\x01\x00", b"PK\x03\x04", b"\x80\x02", b"initial_global_assignments: "):
        for read in (formats.read_loads, formats.recognise, lambda path: formats.read(path, topology=Topology(1))):
            answers(read, prefix + content, suffix)


def test_what_is_not_damaged_is_read() -> None:
    for name, contents in SAMPLES.items():
        for content in contents:
            topology = None if name == "native" else Topology(2)
            read = formats.read_loads if name == "loads" else lambda path, t=topology: formats.read(path, topology=t)
            assert answers(read, content, "")
