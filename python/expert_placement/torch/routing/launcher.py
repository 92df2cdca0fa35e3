"""How kernels are launched with little to do in between: compiled code is kept and started directly.

Triton's own launch looks at every argument each time to find the compiled code; for a kernel of two microseconds that
takes ten times as long as the kernel. Here the code is found by what the caller knows of its arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import triton

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

_VERSION = tuple(int(part) for part in triton.__version__.split(".")[:2])
# How compiled code is started is no public interface: where it was not tried, Triton's own launch does it.
_IS_DIRECT = (3, 4) <= _VERSION < (3, 10) and torch.version.hip is None

IS_INTERPRETED: bool = bool(triton.knobs.runtime.interpret)
_ALIGNMENT = 16


class Compiled(NamedTuple):
    """A kernel on a device, and what its start needs beside arguments."""

    run: Any
    function: Any
    metadata: Any
    kernel: Any
    """What owns the function, and must live for as long."""

    def start(self, num_blocks: int, device: int, arguments: Iterable[object]) -> None:
        """Launches on the current stream; tensors are given as addresses, and constants as well as the rest."""
        stream = torch._C._cuda_getCurrentRawStream(device)
        self.run(num_blocks, 1, 1, stream, self.function, self.metadata, None, None, None, *arguments)


class Launcher:
    """One kernel with its constants.

    Args:
        function: a function of `triton.jit`.
        constants: the values of its last parameters, which are known at compile time.
        num_warps: how many warps a block has.
    """

    __slots__ = ("compiled", "constants", "function", "num_warps")

    compiled: dict[int, Compiled]
    """By device: what was compiled for tensors that are aligned."""

    def __init__(self, function: Any, constants: tuple[object, ...], num_warps: int) -> None:
        self.function = function
        self.constants = constants
        self.num_warps = num_warps
        self.compiled = {}

    def __call__(self, ids: Tensor, num_blocks: int, arguments: tuple[object, ...]) -> Any:
        """Launches, with any arguments, on the device of some tensor, and gives what Triton gives."""
        if not ids.is_cuda:
            return self.function[(num_blocks,)](*arguments, *self.constants, num_warps=self.num_warps)
        with torch.cuda.device(ids.device):
            return self.function[(num_blocks,)](*arguments, *self.constants, num_warps=self.num_warps)

    def start(self, ids: Tensor, num_blocks: int, arguments: tuple[object, ...], addresses: int) -> None:
        """Launches, with arguments of the same types every time.

        Args:
            ids: a tensor on the device.
            num_blocks: how many blocks.
            arguments: tensors, None and ints of 32 bits, of which none is specialised on.
            addresses: the bitwise or of the addresses of all tensors that may not be aligned.
        """
        device = ids.get_device()
        compiled = self.compiled.get(device)
        if compiled is not None and may_start(device, addresses):
            # Of an address less is asked than of a tensor; the caller keeps the tensors for as long.
            plain = [one.data_ptr() if type(one) is torch.Tensor else one for one in arguments]
            compiled.start(num_blocks, device, (*plain, *self.constants))
            return
        kernel = self(ids, num_blocks, arguments)
        if _IS_DIRECT and not IS_INTERPRETED and device >= 0 and not addresses % _ALIGNMENT:
            self.compiled[device] = Compiled(kernel.run, kernel.function, kernel.packed_metadata, kernel)


def may_start(device: int, addresses: int) -> bool:
    """Whether compiled code may be started as it is.

    Args:
        device: the number of the device.
        addresses: the bitwise or of the addresses of all tensors that may not be aligned.
    """
    runtime = triton.knobs.runtime
    # Profilers are told more of a launch than is known here.
    has_hooks = _hooks(runtime.launch_enter_hook) or _hooks(runtime.launch_exit_hook)
    return not (addresses % _ALIGNMENT or has_hooks or torch._C._cuda_getDevice() != device)


def _hooks(chain: Any) -> Any:
    """Whoever wants to know of launches; older versions have one hook or none, others a chain."""
    return getattr(chain, "calls", chain)
