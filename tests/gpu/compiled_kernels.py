"""What the Triton kernels become on an H100: no GPU is needed to see it.

Compiles them for sm_90, with the ptxas and the disassembler that Triton brings
along, and prints registers and stack (spilled registers) of a thread, shared
memory, and instructions.

    python tests/gpu/compiled_kernels.py
"""
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Dict, NamedTuple, Sequence

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from cac_mmseg.ops import triton_pooling, triton_reweighting
from cac_mmseg.stack.tables import markdown_table

TOOLS = Path(triton.__file__).parent / 'backends/nvidia/bin'


class Kernel(NamedTuple):
    """A kernel, and how it is called for C = 512, 3 x 3, (1, 3, 5)."""
    function: Any
    pointers: Sequence[str]
    integers: Sequence[str]
    constants: Dict[str, Any]
    warps: int


REWEIGHT = dict(SETS=3, LANES_=triton_reweighting.LANES)
POOLING = triton_pooling._tiles(torch.empty(1, 512, 1, 1))
POOLING_WARPS = POOLING.pop('num_warps')
KERNELS = {
    'reweight':
    Kernel(
        triton_reweighting._forward, ('x', 'kernels', 'y'),
        ('channels', 'height', 'width', 'x_b', 'x_c', 'x_h', 'boxes_across',
         'box_rows', 'box_columns'),
        dict(
            REWEIGHT,
            x_w=1,
            CHANNELS_LAST=False,
            **triton_reweighting._neighbourhood(
                (1, 3, 5), 3, triton_reweighting.FORWARD_ROWS)), 4),
    'reweight backward':
    Kernel(
        triton_reweighting._backward,
        ('grad', 'x', 'kernels', 'rings', 'grad_x', 'grad_kernels'),
        ('planes', 'channels', 'height', 'width'),
        dict(
            REWEIGHT,
            RING=32,
            **triton_reweighting._neighbourhood(
                (1, 3, 5), 3, triton_reweighting.BACKWARD_ROWS)), 4),
    'pool_queries':
    Kernel(triton_pooling._pool, ('x', 'weight', 'bias', 'sums', 'means'),
           ('rows', 'channels', 'positions', 'blocks_each', 'x_b', 'x_c'),
           dict(POOLING, x_n=1), POOLING_WARPS),
    'pool_queries backward':
    Kernel(triton_pooling._pool_backward,
           ('x', 'weight', 'bias', 'grad_pooled', 'grad_mean', 'grad_x',
            'sums', 'bias_sums'),
           ('rows', 'channels', 'positions', 'blocks_each', 'x_b', 'x_c'),
           dict(POOLING, x_n=1, ADD=False), POOLING_WARPS)
}
# of the dtype of the feature map; all others are float32
FEATURE_MAPS = ('x', 'y', 'grad', 'grad_x')


def compiled(name: str, dtype: str) -> Dict[str, Any]:
    """Compile a kernel for feature maps of a dtype."""
    kernel = KERNELS[name]
    types = {
        **{
            pointer: f'*{dtype if pointer in FEATURE_MAPS else "fp32"}'
            for pointer in kernel.pointers
        },
        **dict.fromkeys(kernel.integers, 'i32'),
        **dict.fromkeys(kernel.constants, 'constexpr')
    }
    names = kernel.function.arg_names
    source = ASTSource(
        fn=kernel.function,
        signature={argument: types[argument]
                   for argument in names},
        constexprs=kernel.constants,
        # memory of PyTorch's is aligned, and C = 512 divisible
        attrs={
            (i, ): [['tt.divisibility', 16]]
            for i, argument in enumerate(names)
            if argument in (*kernel.pointers, 'channels', 'positions', 'x_b',
                            'x_c', 'x_h')
        })
    binary = triton.compile(
        source,
        target=GPUTarget('cuda', 90, 32),
        options=dict(num_warps=kernel.warps))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'kernel.cubin')
        file.write_bytes(binary.asm['cubin'])
        usage = _tool('cuobjdump', '-res-usage', file)
        code = _tool('nvdisasm', file)
    registers, stack, shared = re.search(r'REG:(\d+) STACK:(\d+) SHARED:(\d+)',
                                         usage).groups()
    return dict(
        kernel=f'{name}, {dtype}',
        registers=int(registers),
        stack=int(stack),
        shared=binary.metadata.shared,
        instructions=len(
            re.findall(r'^\s*/\*[0-9a-f]{4,}\*/\s+[@A-Z]', code, re.M)))


def _tool(name: str, *arguments: Any) -> str:
    done = subprocess.run([TOOLS / name, *map(str, arguments)],
                          capture_output=True,
                          text=True,
                          check=True)
    return done.stdout + done.stderr


def main() -> None:
    """Print the table."""
    if os.environ.get('TRITON_INTERPRET'):
        raise SystemExit('unset TRITON_INTERPRET: it compiles nothing')
    rows = [
        compiled(name, dtype) for name in KERNELS
        for dtype in ('fp32', 'bf16', 'fp16')
    ]
    print(
        markdown_table(('kernel', 'registers', 'stack, bytes',
                        'shared memory, bytes', 'instructions'),
                       [list(row.values()) for row in rows]))
    print(f'\nsm_90, triton {triton.__version__}')


if __name__ == '__main__':
    main()
