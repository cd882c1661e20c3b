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
from typing import Any, Dict

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from cac_mmseg.ops import triton_kernels
from cac_mmseg.utils.tables import markdown_table

TOOLS = Path(triton.__file__).parent / 'backends/nvidia/bin'
KERNELS = {
    'forward':
    (triton_kernels._forward, triton_kernels.FORWARD_ROWS,
     dict(
         pointers=('x', 'kernels', 'y'),
         integers=('channels', 'height', 'width', 'x_b', 'x_c', 'x_h',
                   'boxes_across', 'box_rows', 'box_columns'),
         constants=dict(x_w=1, CHANNELS_LAST=False))),
    'backward':
    (triton_kernels._backward, triton_kernels.BACKWARD_ROWS,
     dict(
         pointers=('grad', 'x', 'kernels', 'rings', 'grad_x', 'grad_kernels'),
         integers=('planes', 'channels', 'height', 'width'),
         constants=dict(RING=32)))
}
FLOAT32 = ('kernels', 'rings', 'grad_kernels')


def compiled(name: str, dtype: str) -> Dict[str, Any]:
    """Compile a kernel for maps of a dtype, 3 x 3 and dilations (1, 3, 5)."""
    function, rows, arguments = KERNELS[name]
    constants = dict(
        arguments['constants'],
        SETS=3,
        LANES_=128,
        **triton_kernels._neighbourhood((1, 3, 5), 3, rows))
    types = {
        **{
            pointer: '*fp32' if pointer in FLOAT32 else f'*{dtype}'
            for pointer in arguments['pointers']
        },
        **dict.fromkeys(arguments['integers'], 'i32'),
        **dict.fromkeys(constants, 'constexpr')
    }
    # memory of PyTorch's is aligned
    aligned = {
        (i, ): [['tt.divisibility', 16]]
        for i, argument in enumerate(function.arg_names)
        if argument in arguments['pointers']
    }
    source = ASTSource(
        fn=function,
        signature={
            argument: types[argument]
            for argument in function.arg_names
        },
        constexprs=constants,
        attrs=aligned)
    binary = triton.compile(
        source, target=GPUTarget('cuda', 90, 32), options=dict(num_warps=4))
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
        shared=int(shared),
        rows=rows,
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
        markdown_table(
            ('kernel', 'registers', 'stack, bytes', 'shared memory, bytes',
             'rows at once', 'instructions'),
            [list(row.values()) for row in rows]))
    print(f'\nsm_90, triton {triton.__version__}')


if __name__ == '__main__':
    main()
