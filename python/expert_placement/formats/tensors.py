"""Files of arrays and tensors, `.npy` and `.pt`: read without running anything that they hold."""

from __future__ import annotations

import io
import math
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

from expert_placement._text import digits, excerpt, printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

NPY = b"\x93NUMPY"
ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
_SUFFIXES = {".npy": "an array that numpy saved", ".pt": "what torch saved", ".pth": "what torch saved"}


def is_binary(content: bytes, suffix: str, name: str) -> bool:
    """Whether a file holds arrays or tensors, and not text: no JSON and no UTF-8 begins as they do.

    Raises:
        ValueError: a file that by its name's suffix should hold them, and does not.
    """
    if content.startswith((NPY, ZIP, _PICKLE)):
        return True
    if suffix.lower() in _SUFFIXES:
        raise ValueError(f"{name}: the content is not {_SUFFIXES[suffix.lower()]}, as `{suffix}` says")
    return False


def parse_tensors(name: str, content: bytes) -> object:
    """What a file of arrays or tensors holds.

    Returns:
        For `.npy` its array. For `.pt` the value that was saved, with numpy arrays in place of a tensor, and of tensors
        in a dict, a list or a tuple, which becomes a list.

    Raises:
        ModuleNotFoundError: `.pt` without torch.
        ValueError: a damaged file, one that holds anything but tensors and plain values, and arrays that are larger
            than the file.
    """
    return _parse_npy(name, content) if content.startswith(NPY) else _parse_pt(name, content)


def _parse_npy(name: str, content: bytes) -> npt.NDArray[Any]:
    import numpy as np

    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = headers[version](stream)
    except Exception as error:
        # numpy parses the header as Python, and lets through what that raises.
        raise ValueError(f"{name}: the header of the array is damaged: {_first_line(error)}") from None
    if dtype.hasobject:
        raise ValueError(f"{name}: the array holds Python objects, expected numbers")
    if dtype.kind not in "biufc" or dtype.subdtype is not None:
        raise ValueError(f"{name}: the array holds {excerpt(str(dtype), 80)}, expected numbers")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"{name}: the header of the array is damaged: the shape is {excerpt(str(shape), 80)}")
    # Told before the array is made: a header may promise more than there is memory.
    needed, there = math.prod(shape) * dtype.itemsize, len(content) - stream.tell()
    if needed != there:
        given = f"the array of shape {excerpt(str(shape), 80)} needs {digits(needed)} bytes"
        raise ValueError(f"{name}: {given}, and the file has {there}")
    _expect_filled(name, "the array", shape, len(content))
    stream.seek(0)
    try:
        array: npt.NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    except Exception as error:
        raise ValueError(f"{name}: the array can not be made: {_first_line(error)}") from None
    return array


def _expect_filled(name: str, what: str, shape: Sequence[int], num_bytes: int) -> None:
    """Refuses a table of nothing that has more rows than its file has bytes: whoever lists them has no memory left."""
    if max(shape, default=0) > num_bytes:
        raise ValueError(
            f"{name}: {what} has the shape {excerpt(str(tuple(shape)), 80)}, more rows than the file has bytes"
        )


def _parse_pt(name: str, content: bytes) -> object:
    try:
        import torch
    except ModuleNotFoundError as error:
        message = f"{name}: files of tensors need `{error.name}`: pip install 'expert-placement[torch]'"
        raise ModuleNotFoundError(message, name=error.name) from None
    if not content.startswith(ZIP):
        raise ValueError(f"{name}: this is a plain pickle, expected the zip archive that torch saves since version 1.6")
    _expect_plain_archive(name, content)
    try:
        with warnings.catch_warnings():
            # Torch warns of kinds of tensors that are refused below.
            warnings.simplefilter("ignore")
            root = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        # A damaged or hostile pickle may raise anything.
        raise ValueError(f"{name}: torch can not load this as tensors and plain values: {_first_line(error)}") from None

    def plain(value: object, where: str) -> object:
        if not isinstance(value, torch.Tensor):
            return value
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
            raise ValueError(f"{name}: {where} is no dense tensor of plain numbers")
        # Strides of 0 promise any number of elements, and a storage any number of bytes.
        most = max(value.numel() * value.element_size(), value.untyped_storage().nbytes())
        if most > len(content):
            raise ValueError(f"{name}: {where} needs {most} bytes, and the file has {len(content)}")
        _expect_filled(name, where, value.shape, len(content))
        # numpy has no bfloat16 and no narrower float; a float64 holds all of them.
        is_narrow = value.is_floating_point() and value.element_size() < 4
        try:
            return (value.detach().double() if is_narrow else value.detach()).resolve_conj().resolve_neg().numpy()
        except (TypeError, RuntimeError):
            raise ValueError(f"{name}: {where} is of {value.dtype}, expected integers or floats") from None

    if isinstance(root, dict):
        return {key: plain(value, f"`{excerpt(str(key), 80)}`") for key, value in root.items()}
    if isinstance(root, (tuple, list)):
        return [plain(value, f"tensor {index}") for index, value in enumerate(root)]
    return plain(root, "the tensor")


def _expect_plain_archive(name: str, content: bytes) -> None:
    """Refuses a zip archive that would unpack to more than it is; torch does not compress."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            unpacked = sum(entry.file_size for entry in entries)
            before = min((entry.header_offset for entry in entries), default=0)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        raise ValueError(f"{name}: the archive is damaged: {_first_line(error)}") from None
    if before:
        # Readers of zip look for the end of an archive, and take no notice of what is before its beginning.
        raise ValueError(f"{name}: the archive begins after {before} bytes of something else, expected nothing else")
    if unpacked > len(content):
        raise ValueError(f"{name}: the archive unpacks to {unpacked} bytes, more than its own {len(content)}")


def as_npy(array: npt.NDArray[np.generic]) -> bytes:
    """An array as numpy saves it."""
    import numpy as np

    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def as_pt(tables: Mapping[str, npt.NDArray[np.generic]]) -> bytes:
    """A dict of tensors as torch saves it; torch must be there."""
    import torch

    stream = io.BytesIO()
    torch.save({key: torch.tensor(table) for key, table in tables.items()}, stream)
    return stream.getvalue()


def _first_line(error: Exception) -> str:
    """The first line of a message, short, or the kind of an error without one."""
    text = printable(str(error).strip().partition("\n")[0])
    if not text:
        return type(error).__name__
    return text if len(text) <= 160 else f"{text[:157]}..."
