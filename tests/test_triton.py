"""The Triton kernels against the eager form.

In Triton's interpreter where there is no GPU: ``conftest.py`` sees to that.
"""
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ops import (assert_near, dilation_sets, laid_out, layouts,
                      make_reweight, shapes)

from cac_mmseg.ops import eager

pytestmark = pytest.mark.slow  # Triton is large, and needed on GPUs only
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'


@settings(max_examples=25, deadline=None)
@given(shapes, st.sampled_from([1, 3, 5]), dilation_sets,
       st.booleans(), layouts,
       st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
def test_triton_kernels_agree_with_eager(shape, s, dilations, shared, layout,
                                         dtype):
    from cac_mmseg.ops import triton_kernels

    if dtype == torch.bfloat16 and DEVICE == 'cpu':
        tolerance = 2**-7  # the interpreter cuts off what does not fit
    else:
        tolerance = max(1e-5, torch.finfo(dtype).eps)
    grad, x, kernels, _ = make_reweight(shape, s, dilations, shared, dtype)
    x = laid_out(x, layout).to(DEVICE)
    grad, kernels = grad.to(DEVICE), kernels.float().to(DEVICE)
    with pytest.MonkeyPatch.context() as patch:
        # several tiles even of a small map
        patch.setattr(triton_kernels, 'TILE', 16)
        patch.setattr(triton_kernels, 'CHANNELS_LAST_TILE', (4, 4))
        actual = (triton_kernels.reweight(x, kernels, dilations),
                  *triton_kernels.reweight_backward(grad, x, kernels,
                                                    dilations))
    expected = (eager.reweight(x, kernels, dilations),
                *eager.reweight_backward(grad, x, kernels, dilations))
    for ours, theirs in zip(actual, expected):
        assert ours.dtype == theirs.dtype and ours.stride() == theirs.stride()
        assert_near(ours, theirs.double(), tolerance)
