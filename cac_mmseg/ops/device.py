"""What the kernels have to know of a GPU; asked once for each."""
from functools import lru_cache

import torch


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
