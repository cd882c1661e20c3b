"""How many operations the custom operators take, for PyTorch's counter."""
import math
from typing import Any, Sequence

import torch
from torch.utils.flop_counter import register_flop_formula

Shape = Sequence[int]


def pool_queries(x: Shape, query_weight: Shape) -> int:
    """Multiply-adds: the queries, and their products with X."""
    return 2 * math.prod(x) * query_weight[0]


def reweight(x: Shape, kernels: Shape, branches: int) -> int:
    """Multiply-adds: a depth-wise convolution for each branch."""
    return math.prod(x) * branches * kernels[3] * kernels[4]


def register() -> None:
    """Teach ``FlopCounterMode``, which counts two per multiply-add."""
    ops = torch.ops.cac_mmseg

    @register_flop_formula(ops.pool_queries)
    def _(x: Shape, query_weight: Shape, *_: Any, **__: Any) -> int:
        return 2 * pool_queries(x, query_weight)

    @register_flop_formula(ops.pool_queries_backward)
    def _(grad_pooled: Shape, grad_mean: Shape, x: Shape, query_weight: Shape,
          *_: Any, **__: Any) -> int:
        # Q, dQ, dX (two products) and dW: five products where forward has two
        return 5 * pool_queries(x, query_weight)

    @register_flop_formula(ops.reweight)
    def _(x: Shape, kernels: Shape, dilations: Sequence[int], *_: Any,
          **__: Any) -> int:
        return 2 * reweight(x, kernels, len(dilations))

    @register_flop_formula(ops.reweight_backward)
    def _(grad: Shape, x: Shape, kernels: Shape, dilations: Sequence[int], *_:
          Any, **__: Any) -> int:
        # responses, dX and dD: three convolutions where forward has one
        return 6 * reweight(x, kernels, len(dilations))
