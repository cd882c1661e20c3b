"""What the Triton kernels become on a GPU: none is needed to see it.

Compiles them with the ptxas and the disassembler that Triton brings along, and
prints registers and stack (spilled registers) of a thread, shared memory,
instructions, and how many of them a thread executes: for an element (reweight)
or, with 256 threads, for 64 positions (pool_queries) of a map of
8 x 512 x 64 x 128, with all that a program does before and after its loops.
What a loop has is counted as often as it runs (:mod:`sass`); a program has 8
planes, or as many positions as 8 blocks of 64.

    python tests/gpu/compiled_kernels.py --arch 80 90 100
"""
import argparse
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Dict, NamedTuple, Sequence

import sass
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from cac_mmseg.ops import (triton_pooling, triton_reweighting, triton_rolling,
                           triton_split_pooling)
from cac_mmseg.ops.triton_window import window_shape
from cac_mmseg.stack.tables import markdown_table

TOOLS = Path(triton.__file__).parent / 'backends/nvidia/bin'

TWO = ('fp32', 'bf16')  # fp16 is as bf16, and each compiles for 10 s


class Kernel(NamedTuple):
    """A kernel, and how it is called for C = 512, 3 x 3, (1, 3, 5).

    Attributes:
        options: Of the compiler.
        trips: Of its loops, in a program; see :func:`sass.executed`.
        units: Elements of a thread in a program, or blocks of 64 positions.
    """
    function: Any
    pointers: Sequence[str]
    integers: Sequence[str]
    constants: Dict[str, Any]
    options: Dict[str, int]
    trips: Sequence[int]
    units: int
    dtypes: Sequence[str] = ('fp32', 'bf16', 'fp16')


def kernels(arch: int) -> Dict[str, Kernel]:
    """Return all kernels as they run on an architecture."""
    old, rolling = triton_reweighting, triton_rolling
    dilations = (1, 3, 5)
    lanes = dict(SETS=3, LANES_=128)
    four = dict(num_warps=4)
    pooling = ('rows', 'channels', 'positions', 'blocks_each', 'x_b', 'x_c')
    pooled = ('x', 'weight', 'bias', 'sums', 'means')
    of_pooled = ('x', 'weight', 'bias', 'grad_pooled', 'grad_mean', 'grad_x',
                 'sums', 'bias_sums')
    x = torch.empty(1, 512, 1, 1)
    tiles, options = _tiles(triton_pooling._tiles(x))
    split, split_options = _tiles(triton_split_pooling._tiles(x))
    backward, backward_options = _tiles(
        triton_split_pooling._backward_tiles(x))
    del backward['parts']
    if arch < 90:  # less shared memory
        split['POSITIONS_'] = triton_split_pooling.FEW_POSITIONS
    return {
        'reweight':
        Kernel(
            old._forward, ('x', 'kernels', 'y'),
            ('channels', 'height', 'width', 'x_b', 'x_c', 'x_h',
             'boxes_across', 'box_rows', 'box_columns'),
            dict(
                lanes,
                x_w=1,
                CHANNELS_LAST=False,
                **old._neighbourhood(dilations, 3,
                                     old.FORWARD_ROWS)), four, (1, 4), 32),
        'reweight rolling':
        Kernel(
            rolling._forward,
            ('x', 'kernels', 'y'),
            ('channels', 'height', 'width'),
            dict(
                lanes,
                BRANCHES=3,
                TAPS=9,
                **window_shape(dilations, 3, rolling.FORWARD_ROWS)),
            four,
            # rows without a check, with one
            (7, 1),
            64,
            TWO),
        'reweight backward':
        Kernel(
            old._backward,
            ('grad', 'x', 'kernels', 'rings', 'grad_x', 'grad_kernels'),
            ('planes', 'channels', 'height', 'width'),
            dict(
                lanes,
                RING=32,
                **old._neighbourhood(dilations, 3, old.BACKWARD_ROWS)),
            four,
            # planes, rows, columns of dS, columns of dX
            (8, 8 * 18, 8 * 16, 8 * 18),
            8 * 64),
        'reweight rolling backward':
        Kernel(rolling._backward,
               ('grad', 'x', 'kernels', 'buffers', 'grad_x', 'grad_kernels'),
               ('planes', 'channels', 'height', 'width'),
               dict(SETS=3, **rolling._backward_shape(dilations, 3, 128)),
               four, (8, 8 * 16), 8 * 64, TWO),
        'pool_queries':
        Kernel(triton_pooling._pool, pooled, pooling, dict(tiles, x_n=1),
               options, (8, 8 * 8, 8 * 8), 8),
        'pool_queries in parts':
        Kernel(triton_split_pooling._pool, pooled, pooling, dict(split, x_n=1),
               split_options, (8 * 64 // split['POSITIONS_'], ), 8,
               ('bf16', )),
        'pool_queries backward':
        Kernel(triton_pooling._pool_backward, of_pooled, pooling,
               dict(tiles, x_n=1, ADD=False), options, (8, 8 * 8, 8 * 8), 8),
        'pool_queries in parts backward':
        Kernel(triton_split_pooling._pool_backward, of_pooled,
               (*pooling, 'parts'), dict(backward, x_n=1, ADD=False),
               backward_options, (4, 4 * 8, 4 * 8), 8, ('bf16', )),
    }


def _tiles(tiles: Dict[str, Any]) -> Sequence[Dict[str, Any]]:
    names = ('num_warps', 'num_stages')
    return ({
        name: value
        for name, value in tiles.items() if name not in names
    }, {
        name: tiles[name]
        for name in names if name in tiles
    })


# of the dtype of the feature map; all others are float32
FEATURE_MAPS = ('x', 'y', 'grad', 'grad_x')
PARTS = ('weight', 'grad_pooled')  # of the backward that has them prepared


def compiled(name: str, kernel: Kernel, dtype: str,
             arch: int) -> Dict[str, Any]:
    """Compile a kernel for feature maps of a dtype."""
    maps = FEATURE_MAPS
    if 'parts' in kernel.integers:
        maps += PARTS
    types = {
        **{
            pointer: f'*{dtype if pointer in maps else "fp32"}'
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
        source, target=GPUTarget('cuda', arch, 32), options=kernel.options)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'kernel.cubin')
        file.write_bytes(binary.asm['cubin'])
        usage = _tool('cuobjdump', '-res-usage', file)
        code = _tool('nvdisasm', '-c', file)
    registers, stack, shared = re.search(r'REG:(\d+) STACK:(\d+) SHARED:(\d+)',
                                         usage).groups()
    return dict(
        kernel=f'{name}, {dtype}',
        registers=int(registers),
        stack=int(stack),
        shared=binary.metadata.shared,
        instructions=len(sass.instructions(code)),
        executed=round(sass.executed(code, kernel.trips) / kernel.units))


def _tool(name: str, *arguments: Any) -> str:
    done = subprocess.run([TOOLS / name, *map(str, arguments)],
                          capture_output=True,
                          text=True,
                          check=True)
    return done.stdout + done.stderr


def main() -> None:
    """Print a table for each architecture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--arch', type=int, nargs='+', default=[90], help='80: sm_80')
    arguments = parser.parse_args()
    if os.environ.get('TRITON_INTERPRET'):
        raise SystemExit('unset TRITON_INTERPRET: it compiles nothing')
    for arch in arguments.arch:
        rows = [
            compiled(name, kernel, dtype, arch)
            for name, kernel in kernels(arch).items()
            for dtype in kernel.dtypes
        ]
        print(
            markdown_table(
                ('kernel', 'registers', 'stack, bytes', 'shared memory, bytes',
                 'instructions', 'executed'),
                [list(row.values()) for row in rows]))
        print(f'\nsm_{arch}, triton {triton.__version__}\n', flush=True)


if __name__ == '__main__':
    main()
