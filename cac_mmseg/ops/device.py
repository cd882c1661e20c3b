"""What the kernels have to know of a GPU, asked once, and their launch."""
from functools import lru_cache
from typing import Any, Dict, Sequence

import torch
from torch import Tensor

# Past the JIT's dispatch, which takes longer than the rest of a call. It was
# not tried on a GPU yet.
DIRECT = False
_compiled: Dict[tuple, Any] = {}


def launch(kernel: Any, grid: Sequence[int], x: Tensor, *rest: Any,
           **constants: Any) -> None:
    """Launch a Triton kernel on the device of its first argument.

    Args:
        kernel: Its compile-time constants come last.
        grid: Programs along each axis.
        x, rest: Tensors and integers.
        constants: Compile-time constants, and options such as num_warps.
    """
    with torch.cuda.device_of(x):
        if not DIRECT or torch.version.hip:  # which has another key
            kernel[grid](x, *rest, **constants)
            return
        # all that the JIT compiles for, or more: it knows 16 and 1
        given = [
            (value.dtype,
             value.data_ptr() % 16) if isinstance(value, Tensor) else value
            for value in (x, *rest)
        ]
        key = (kernel, x.device, *constants.values(), *given)
        compiled = _compiled.get(key)
        if compiled is None:
            # compiles and launches, or interprets, which returns None
            _compiled[key] = kernel[grid](x, *rest, **constants)
            return
        names = kernel.arg_names[1 + len(rest):]
        compiled[(*grid, 1, 1)[:3]](x, *rest,
                                    *[constants[name] for name in names])


def cdiv(a: int, b: int) -> int:
    """Return a / b, rounded up; Triton's own takes 6 us."""
    return -(-a // b)


def next_power_of_2(n: int) -> int:
    """Return the smallest power of 2 that is not below n >= 1."""
    return 1 << (n - 1).bit_length()


@lru_cache(maxsize=None)
def processors(device: torch.device) -> int:
    """Return the number of multiprocessors; 2 in Triton's interpreter."""
    if device.type != 'cuda':
        return 2
    return torch.cuda.get_device_properties(device).multi_processor_count


@lru_cache(maxsize=None)
def shared_memory(device: torch.device) -> int:
    """Return the bytes that a program can have; unlimited without a GPU."""
    if device.type != 'cuda':
        return 2**30
    properties = torch.cuda.get_device_properties(device)
    # AMD's have no such property
    return getattr(properties, 'shared_memory_per_block_optin', 0)
