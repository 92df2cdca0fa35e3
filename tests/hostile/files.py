"""Damaged and hostile files of every format, and what must hold where one is read.

A file is read or refused by an error that begins with its name. What is cut off is refused, unless nothing but a line's
end is missing, and a file of ours is read as what was saved or not at all, whichever byte is another.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from expert_placement import Topology, formats
from expert_placement.model_config import read_model_config

from tests.hostile import paths, subjects
from tests.hostile.judging import Subject, Value
from tests.hostile.values import DEPTH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FORMATS = (
    ("native", ".json"),
    ("sglang", ".json"),
    ("sglang", ".pt"),
    ("deepseek", ".json"),
    ("deepseek", ".pt"),
    ("deepseek", ".npy"),
    ("vllm_ascend", ".json"),
    ("tensorrt_llm", ".yaml"),
)


def sound() -> dict[str, bytes]:
    """A sound file of each format, by its name and suffix."""
    files = {}
    for name, suffix in FORMATS:
        path = paths.new_file(suffix)
        formats.write(subjects.placement(), path, name)
        files[f"{name}{suffix}"] = path.read_bytes()
    array, tensor = io.BytesIO(), io.BytesIO()
    np.save(array, np.arange(12.0).reshape(2, 2, 3))
    torch.save({"rank": 0, "logical_count": torch.arange(12).reshape(2, 2, 3)}, tensor)
    files["loads.json"] = json.dumps({"counts": [[1, 2.5], [0, 3]], "layers": [3, 4]}).encode()
    files["loads.npy"], files["loads.pt"] = array.getvalue(), tensor.getvalue()
    files["config.json"] = json.dumps(paths.CONFIG).encode()
    return files


def reading(kind: str) -> Callable[..., Any]:
    """The reader of a kind of file, as a function of its content."""
    name, _, suffix = kind.partition(".")

    def read(content: bytes) -> Any:
        path = paths.new_file(f".{suffix}")
        path.write_bytes(content)
        if name == "loads":
            return formats.read_loads(path)
        if name == "config":
            return read_model_config(path)
        topology = None if name == "native" else Topology(2)
        return formats.read(path, name, topology=topology)

    return read


def fed(kind: str, content: bytes, step: int) -> list[Value]:
    """What is fed in place of a sound file.

    Args:
        kind: its name and suffix.
        content: what it holds.
        step: of all places in it every so many is damaged.
    """
    # Of our own file any other answer than what was saved is wrong.
    plain = (lambda: content) if kind.startswith("native") else None
    whole = len(content.rstrip())
    binary = kind.endswith((".npy", ".pt"))
    cut = [
        Value(f"cut at {at}", lambda at=at: content[:at], is_refused=binary or at < whole)  # type: ignore[misc]
        for at in range(0, len(content) - 1, step)
        if kind != "tensorrt_llm.yaml" or at < _last_line(content)
    ]
    flipped = [
        Value(f"bit {bit} of byte {at} flipped", lambda at=at, bit=bit: _flipped(content, at, bit), plain)  # type: ignore[misc]
        for at in range(0, len(content), step)
        for bit in (0, 3, 5, 7)
    ]
    # Where all that is damaged is a space between two values, the content is what was saved.
    made = {**_of_any_kind(content), **(_of_binary() if binary else _of_text(kind, content))}
    return [*cut, *_or_refused(flipped), *(Value(name, lambda c=c: c, is_refused=True) for name, c in made.items())]  # type: ignore[misc]


def _or_refused(values: list[Value]) -> list[Value]:
    return values


def _last_line(content: bytes) -> int:
    return content.rstrip().rfind(b"\n")


def _flipped(content: bytes, at: int, bit: int) -> bytes:
    changed = bytearray(content)
    changed[at] ^= 1 << bit
    return bytes(changed)


def _of_any_kind(content: bytes) -> dict[str, bytes]:
    half = len(content) // 2
    return {
        "nothing": b"",
        "zeros": bytes(1000),
        "a megabyte of brackets": b"[" * 2**20,
        "bytes that are no UTF-8": content[:half] + b"\xff\xfe" + content[half:],
        "half a surrogate pair": content[:half] + b"\xed\xa0\x80" + content[half:],
        "the file twice": content + content,
        "a pickle that runs a command": pickle.dumps(_Command()),
        "a zip archive of nothing": _zip({}),
        "a zip bomb": _zip({"archive/data.pkl": bytes(2**24), "archive/version": b"3"}, zipfile.ZIP_DEFLATED),
        "a zip archive with names that lead out": _zip({"../../etc/passwd": b"x"}),
    }


class _Command:
    def __reduce__(self) -> Any:
        return print, ("a pickle was run",)


def _zip(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _npy(shape: str, dtype: str = "<i8", content: bytes = b"") -> bytes:
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


def _pt(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def _of_binary() -> dict[str, bytes]:
    keys = ("physical_to_logical_map", "phy2log", "logical_count", "log2phy", "logcnt")

    def under_all(value: Any) -> bytes:
        return _pt(dict.fromkeys(keys, value))

    return {
        "an array of 8 TB": _npy("(1099511627776, 1)"),
        "an array of more than 64 bits of bytes": _npy("(9223372036854775807, 9223372036854775807)"),
        "an array of 2**40 rows of nothing": _npy("(1099511627776, 0)"),
        "an array of negative size": _npy("(-1, 8)"),
        "a shape that is no tuple": _npy("'abc'"),
        "a shape of bools": _npy("(True, True)", content=bytes(8)),
        "a shape of 5000 digits": _npy(f"({'9' * 4400},)"),
        "a nested header": _npy(f"({'(' * 3000}{')' * 3000},)"),
        "an array of objects": _npy("(1, 1)", "|O", pickle.dumps([_Command()])),
        "an array of texts": _npy("(1, 1)", "<U4", bytes(16)),
        "an array of dates": _npy("(1, 1)", "<M8[s]", bytes(8)),
        "an array of unknown numbers": _npy("(1, 1)", "<q99", bytes(8)),
        "a header of 4 GB": b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}",
        "an unknown version": b"\x93NUMPY\x09\x00\x00\x00",
        "a tensor of 8 TB of one number": under_all(torch.zeros(1, dtype=torch.int64).expand(2**20, 2**20)),
        "a tensor of 2**40 rows of nothing": under_all(torch.zeros(2**40, 0, dtype=torch.int64)),
        "a meta tensor": under_all(torch.zeros(2, 8, dtype=torch.int64, device="meta")),
        "a sparse tensor": under_all(torch.zeros(2, 8, dtype=torch.int64).to_sparse()),
        "a tensor of bools": under_all(torch.zeros(2, 8, dtype=torch.bool)),
        "a complex tensor": under_all(torch.zeros(2, 8, dtype=torch.complex64)),
        "a conjugate tensor": under_all(torch.zeros(2, 8, dtype=torch.complex64).conj()),
        "a tensor of negative numbers": under_all(torch.full((2, 8), -7)),
        "a tensor of not a number": under_all(torch.full((2, 8), float("nan"))),
        "a tensor of float8": under_all(torch.full((2, 8), -1.0).to(torch.float8_e4m3fn)),
        "a dict of numbers": under_all(3),
        "a list that holds itself": _pt(_in_itself()),
        "a number alone": _pt(3),
    }


def _in_itself() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


def _of_text(kind: str, content: bytes) -> dict[str, bytes]:
    if kind.endswith(".yaml"):
        return _of_yaml(content)
    text = content.decode().rstrip()
    key, _, _ = text.partition(":")
    first = key.strip("{\n ")
    deep = "[" * DEPTH + "]" * DEPTH
    return {
        "a byte order mark": b"\xef\xbb\xbf" + content,
        "UTF-16": text.encode("utf-16"),
        "deep arrays": f"{key}: {deep}}}".encode(),
        "deep objects": ('{"a":' * DEPTH + "1" + "}" * DEPTH).encode(),
        "a key twice": (text[:-1] + f", {first}: 1}}").encode(),
        "not a number": (text[:-1] + ', "more": NaN}').encode(),
        "an array": b"[1, 2]",
        "a number": b"3",
        "a text": b'"' + b"x" * 2**20 + b'"',
        "null": b"null",
        "true": b"true",
        "an empty object": b"{}",
        "a comment": b"// a comment\n" + content,
        "a comma at the end": (text[:-1] + ",}").encode(),
        "single quotes": text.replace('"', "'").encode(),
        "bytes of control": text.replace('"', '"\x01', 1).encode(),
        "a number of 5000 digits": (text[:-1] + f', "more": {"9" * 5000}}}').encode(),
        "words behind the value": content + b"x",
        "another version": text.replace('"version": 1', '"version": 99').encode() if kind == "native.json" else b"{",
        **_other_numbers(text),
    }


def _other_numbers(text: str) -> dict[str, bytes]:
    """The file with its first numbers replaced by what is no count, or claims gigabytes."""
    import re

    places = [match.span() for match in re.finditer(r"(?<![\w.\"])\d+(?![\w.\"])", text)][:12]
    wrong = (
        "-1",
        "1.5",
        "1e3",
        "true",
        "null",
        '"3"',
        "[]",
        "{}",
        "4294967299",
        "99999999999999999999",
        "1e400",
        "-0.5",
    )
    return {
        f"{number} in place of number {place}": (text[:first] + number + text[last:]).encode()
        for place, (first, last) in enumerate(places)
        for number in wrong
        if not _may_be_said(text, number)
    }


def _may_be_said(text: str, number: str) -> bool:
    """Loads are floats, and a configuration says less than all of its keys."""
    return ('"counts"' in text and number in ("1.5", "1e3", "4294967299", "99999999999999999999")) or (
        "model_type" in text and number in ("null",)
    )


def _of_yaml(content: bytes) -> dict[str, bytes]:
    text = content.decode()
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    row = "[" + ", ".join(["0"] * 10_000) + "]"
    rows = f"initial_global_assignments:\n  0: &a {row}\n" + "".join(f"  {layer}: *a\n" for layer in range(1, 10_000))
    return {
        "aliases of aliases": (bomb + text).encode(),
        "aliases of aliases as a table": bomb.replace("i: &i", "initial_global_assignments: &i").encode()
        + b"num_slots: 8\n",
        "a hundred million entries by aliases": f"{rows}num_slots: 10000\n".encode(),
        "an alias of itself": b"initial_global_assignments: &a\n  0: *a\nnum_slots: 8\n",
        "an object of Python": b"initial_global_assignments: !!python/object/apply:os.system ['true']\nnum_slots: 8\n",
        "an unknown tag": b"initial_global_assignments: !unknown {}\nnum_slots: 8\n",
        "a date": text.replace("0:", "2020-01-01:", 1).encode(),
        "a layer twice": text.replace("  1:", "  0:").encode(),
        "a layer twice, otherwise spelled": text.replace("  1:", "  0x0:").encode(),
        "deep lists": b"initial_global_assignments: " + b"[" * DEPTH + b"]" * DEPTH + b"\n",
        "deep mappings": b"initial_global_assignments: " + b"{a: " * 3000 + b"}" * 3000 + b"\n",
        "two documents": content + b"---\n" + content,
        "gigabytes of slots": text.replace("num_slots: 8", "num_slots: 99999999999").encode(),
        "negative slots": text.replace("num_slots: 8", "num_slots: -8").encode(),
        "slots that are a float": text.replace("num_slots: 8", "num_slots: 8.0").encode(),
        "no slots": text.replace("num_slots: 8", "").encode(),
        "not a number": text.replace("[0,", "[.nan,", 1).encode(),
        "a bool": text.replace("[0,", "[true,", 1).encode(),
        "tabs": text.replace("  0:", "\t0:").encode(),
        "a merge": text.replace("  0:", "  <<: {7: [1]}\n  0:", 1).encode(),
    }


def all_fed(step: int) -> Iterator[tuple[Subject, list[Value]]]:
    """The reader of each kind of file, and what is fed to it."""
    for kind, content in sound().items():
        subject = Subject(
            f"a file {kind}",
            reading(kind),
            lambda content=content: {"content": content},  # type: ignore[misc]
            {"content": ("file",)},
            begins=lambda: f"`{paths.folder()}/new/file.",
        )
        yield subject, fed(kind, content, step)
