"""What a module costs: multiply-adds and saved activations."""
from typing import Any, Dict, List

import torch
import torch.nn as nn
from mmengine.analysis import FlopAnalyzer
from torch import Tensor

from ..ops import flops


def saved_bytes(module: nn.Module, *inputs: Tensor) -> int:
    """Bytes that a training forward keeps for backward, beyond its inputs.

    Parameters and buffers, which are there anyway, are not counted, and a
    tensor that several operations keep is counted once.
    """
    ours = [*inputs, *module.parameters(), *module.buffers()]
    known = {t.untyped_storage()._cdata for t in ours}
    # kept alive, as the address of a freed storage can come back
    saved: Dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            saved[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = module.train()(*inputs)
    del y
    return sum(storage.nbytes() for storage in saved.values())


@torch.no_grad()
def multiply_adds(module: nn.Module, *inputs: Tensor) -> int:
    """Multiply-adds of a forward in evaluation, by mmengine's analysis."""
    inputs = tuple(x.detach() for x in inputs)
    analyzer = FlopAnalyzer(module.eval(), inputs)
    analyzer.set_op_handle('cac_mmseg::pool_queries', _of_pool_queries)
    analyzer.set_op_handle('cac_mmseg::reweight', _of_reweight)
    analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return analyzer.total()


def _of_pool_queries(inputs: List[Any], outputs: List[Any]) -> int:
    x, weight = (value.type().sizes() for value in inputs[:2])
    return flops.pool_queries(x, weight)


def _of_reweight(inputs: List[Any], outputs: List[Any]) -> int:
    x, kernels = (value.type().sizes() for value in inputs[:2])
    return flops.reweight(x, kernels, len([*inputs[2].node().inputs()]))
