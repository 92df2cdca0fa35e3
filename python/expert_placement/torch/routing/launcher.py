"""How kernels are launched with little to do in between: compiled code is kept and started directly.

Triton's own launch looks at every argument each time to find the compiled code; for a kernel of two microseconds that
takes ten times as long as the kernel. Here the code is found by what the caller knows of its arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton

if TYPE_CHECKING:
    from torch import Tensor

_VERSION = tuple(int(part) for part in triton.__version__.split(".")[:2])
# How compiled code is started is no public interface: where it was not tried, Triton's own launch does it.
_IS_DIRECT = (3, 4) <= _VERSION < (3, 10)

IS_INTERPRETED: bool = bool(triton.knobs.runtime.interpret)
_ALIGNMENT = 16


class Launcher:
    """One kernel with its constants.

    Args:
        function: a function of `triton.jit`.
        constants: the values of its last parameters, which are known at compile time.
        num_warps: how many warps a block has.
    """

    __slots__ = ("_compiled", "constants", "function", "num_warps")

    def __init__(self, function: Any, constants: tuple[object, ...], num_warps: int) -> None:
        self.function = function
        self.constants = constants
        self.num_warps = num_warps
        # By device: the compiled code and what its start needs beside arguments.
        self._compiled: dict[int, tuple[Any, Any, Any]] = {}

    def __call__(self, ids: Tensor, num_blocks: int, arguments: tuple[object, ...]) -> None:
        """Launches, with any arguments, on the device of some tensor."""
        if not ids.is_cuda:
            self.function[(num_blocks,)](*arguments, *self.constants, num_warps=self.num_warps)
            return
        with torch.cuda.device(ids.device):
            self.function[(num_blocks,)](*arguments, *self.constants, num_warps=self.num_warps)

    def start(self, ids: Tensor, num_blocks: int, arguments: tuple[object, ...], addresses: int) -> None:
        """Launches, with arguments of the same types every time.

        Args:
            ids: a tensor on the device.
            num_blocks: how many blocks.
            arguments: tensors, None and ints of 32 bits, of which none is specialised on.
            addresses: the bitwise or of the addresses of all tensors that may not be aligned.
        """
        device = ids.get_device()
        if (
            addresses % _ALIGNMENT
            or not _IS_DIRECT
            or IS_INTERPRETED
            or device < 0
            or torch._C._cuda_getDevice() != device
        ):
            self(ids, num_blocks, arguments)
            return
        compiled = self._compiled.get(device)
        if compiled is None:
            kernel = self.function[(num_blocks,)](*arguments, *self.constants, num_warps=self.num_warps)
            self._compiled[device] = (kernel.run, kernel.function, kernel.packed_metadata)
            return
        runtime = triton.knobs.runtime
        if _hooks(runtime.launch_enter_hook) or _hooks(runtime.launch_exit_hook):
            # Profilers are told more of a launch than is known here.
            self(ids, num_blocks, arguments)
            return
        run, function, metadata = compiled
        stream = torch._C._cuda_getCurrentRawStream(device)
        # Of an address less is asked than of a tensor; the caller keeps the tensors for as long.
        plain = [one.data_ptr() if type(one) is torch.Tensor else one for one in arguments]
        run(num_blocks, 1, 1, stream, function, metadata, None, None, None, *plain, *self.constants)


def _hooks(chain: Any) -> Any:
    """Whoever wants to know of launches; older versions have one hook or none, others a chain."""
    return getattr(chain, "calls", chain)
