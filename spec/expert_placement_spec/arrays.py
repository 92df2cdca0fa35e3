"""The few array operations that the exhaustive checker needs, in numpy or in torch on any device."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np


def integers(values: Any) -> np.ndarray[Any, Any]:
    """One array of ints as int64.

    Raises:
        TypeError: an answer that is no integer, such as what `/` gives in the place of `//`.
    """
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"an answer has dtype {array.dtype}, expected an integer")
    if array.dtype == np.uint64 and array.size and int(array.max()) >= 2**63:
        raise TypeError(f"an answer holds {int(array.max())}, expected an integer of at most 63 bits")
    return array.astype(np.int64, copy=False)


class Arrays(Protocol):
    """int64 arrays of one library."""

    def array(self, values: Any) -> Any:
        """One array of Python ints or of a numpy array."""

    def arange(self, end: int) -> Any:
        """0, 1, ..., end - 1."""

    def repeat(self, values: Any, counts: Any) -> Any:
        """Each value as often as its count says."""

    def before(self, counts: Any) -> Any:
        """The sum of all counts before each one."""

    def sum_segments(self, values: Any, segment: Any, length: int) -> Any:
        """The sum of the values of each segment."""

    def numpy(self, values: Any) -> np.ndarray[Any, Any]:
        """The same values as a numpy array."""

    def given(self, values: Any) -> Any:
        """An array as the implementation's elementwise functions take it."""

    def taken(self, answers: Any) -> Any:
        """What an elementwise function answers, as an array to work on."""

    def placed(self) -> AbstractContextManager[Any]:
        """Where what an implementation makes without naming a device belongs to this device too."""


class NumpyArrays:
    """numpy, on one core."""

    def array(self, values: Any) -> Any:
        """One array of Python ints or of a numpy array."""
        return integers(values)

    def arange(self, end: int) -> Any:
        """0, 1, ..., end - 1."""
        return np.arange(end, dtype=np.int64)

    def repeat(self, values: Any, counts: Any) -> Any:
        """Each value as often as its count says."""
        return np.repeat(values, counts)

    def before(self, counts: Any) -> Any:
        """The sum of all counts before each one."""
        return np.cumsum(counts) - counts

    def sum_segments(self, values: Any, segment: Any, length: int) -> Any:
        """The sum of the values of each segment."""
        return np.bincount(segment, weights=values, minlength=length).astype(np.int64)

    def numpy(self, values: Any) -> np.ndarray[Any, Any]:
        """The same values as a numpy array."""
        return np.asarray(values)

    def given(self, values: Any) -> Any:
        """An array as the implementation's elementwise functions take it."""
        # A view that cannot be written, so that whoever works in place is told, and changes nothing compared later.
        view = np.asarray(values).view()
        view.flags.writeable = False
        return view

    def taken(self, answers: Any) -> Any:
        """What an elementwise function answers, as an array to work on."""
        return integers(answers)

    def placed(self) -> AbstractContextManager[Any]:
        """Where what an implementation makes without naming a device belongs to this device too."""
        return nullcontext()


class TorchOnCpu(NumpyArrays):
    """torch for what is asked and numpy for the rest, over the same memory: on small arrays numpy costs less a call."""

    def __init__(self) -> None:
        import torch

        self.torch = torch

    def given(self, values: Any) -> Any:
        """An array as the implementation's elementwise functions take it."""
        # Views are of arrays that are compared later, which whoever works in place must not change; the others were
        # made for this question alone.
        return self.torch.from_numpy(np.array(values) if values.base is not None else values)

    def taken(self, answers: Any) -> Any:
        """What an elementwise function answers, as an array to work on."""
        return integers(answers.numpy())

    def placed(self) -> AbstractContextManager[Any]:
        """On the CPU everything is where it belongs; without a history for gradients, small answers come sooner."""
        context: AbstractContextManager[Any] = self.torch.inference_mode()
        return context


class TorchArrays:
    """torch, on the device given."""

    def __init__(self, device: str = "cpu") -> None:
        try:
            import torch
        except ModuleNotFoundError:
            raise ValueError(f"device=`{device}` needs torch, expected `cpu` where it is not installed") from None
        self.torch = torch
        try:
            self.device = torch.device(device)
            torch.zeros(1, device=self.device).tolist()
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"device=`{device}` cannot be used: {reason}") from error

    def array(self, values: Any) -> Any:
        """One array of Python ints or of a numpy array."""
        return self.torch.as_tensor(integers(values), device=self.device)

    def arange(self, end: int) -> Any:
        """0, 1, ..., end - 1."""
        return self.torch.arange(end, device=self.device)

    def repeat(self, values: Any, counts: Any) -> Any:
        """Each value as often as its count says."""
        return self.torch.repeat_interleave(values, counts)

    def before(self, counts: Any) -> Any:
        """The sum of all counts before each one."""
        return self.torch.cumsum(counts, 0) - counts

    def sum_segments(self, values: Any, segment: Any, length: int) -> Any:
        """The sum of the values of each segment."""
        sums = self.torch.zeros(length, dtype=self.torch.int64, device=self.device)
        return sums.index_add_(0, segment, values)

    def numpy(self, values: Any) -> np.ndarray[Any, Any]:
        """The same values as a numpy array."""
        array: np.ndarray[Any, Any] = values.cpu().numpy()
        return array

    def given(self, values: Any) -> Any:
        """An array as the implementation's elementwise functions take it."""
        return values.clone()

    def taken(self, answers: Any) -> Any:
        """What an elementwise function answers, as an array to work on."""
        return answers.to(self.torch.int64)

    def placed(self) -> AbstractContextManager[Any]:
        """Where what an implementation makes without naming a device belongs to this device too."""
        device: AbstractContextManager[Any] = self.device
        return nullcontext() if self.device.type == "cpu" else device


def arrays_of(library: str, device: str) -> Arrays:
    """The arrays for an implementation that takes those of a library, `"numpy"` or `"torch"`, on a device."""
    # A device that can not be used is refused before it is clear that numpy does not use it.
    on_device = None if device == "cpu" else TorchArrays(device)
    if library == "numpy":
        return NumpyArrays()
    return on_device or TorchOnCpu()
