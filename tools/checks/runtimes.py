"""Where does an exported model run? The matrix of docs/deployment.md.

Models with the heads of the study, of random weights, are converted for each
runtime that is installed, run on one thread, and compared with PyTorch: the
largest difference of a logit over the largest logit, pixels of equal class,
and time over that of PyTorch. Where sizes are free, the image has another one
than that of the conversion.
"""
import argparse
import sys
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Callable, List, NamedTuple, Optional, Sequence

import numpy as np
import torch
from mmengine.model import revert_sync_batchnorm
from mmseg.registry import MODELS

from cac_mmseg.deploy.form import inference_form
from cac_mmseg.deploy.network import Network
from cac_mmseg.stack.tables import markdown_table
from cac_mmseg.stack.timing import ratio, seconds
from cac_mmseg.stack.words import reason
from tools.study.plan import plan

EXAMPLE = (1, 3, 128, 192)
OTHER = (1, 3, 168, 136)  # also of another size in the middle of the network
SIDES = dict(min=64, max=512)
HEADS = ('cac', 'fcn', 'pspnet', 'dmnet')
ROUNDS = 5
Function = Callable[[np.ndarray], np.ndarray]


def onnx(network: Network, folder: Path, dynamic: bool) -> str:
    """Export for one image, of any size or not: the path of the file."""
    file = str(folder / 'model.onnx')
    torch.onnx.export(
        network, (torch.randn(EXAMPLE), ),
        dynamo=True,
        dynamic_shapes=({
            2: 'height',
            3: 'width'
        }, ) if dynamic else None,
        input_names=['image'],
        output_names=['logits'],
        verbose=False).save(file)
    return file


def onnxruntime(network: Network, folder: Path) -> Function:
    return _session(onnx(network, folder, True))


def traced_onnx(network: Network, folder: Path) -> Function:
    """By the exporter of before, for opset 13, which other tools build on."""
    file = str(folder / 'model.onnx')
    torch.onnx.export(
        network, (torch.randn(EXAMPLE), ),
        file,
        dynamo=False,
        opset_version=13,
        input_names=['image'],
        dynamic_axes=dict(image={
            2: 'height',
            3: 'width'
        }))
    return _session(file)


def _session(file: str) -> Function:
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        file, options, providers=['CPUExecutionProvider'])
    return lambda x: session.run(None, dict(image=x))[0]


def openvino(network: Network, folder: Path) -> Function:
    import openvino as ov
    model = ov.Core().compile_model(
        onnx(network, folder, True),
        'CPU',
        {
            # bfloat16 is its default on CPUs that have it
            'INFERENCE_PRECISION_HINT': 'f32',
            'INFERENCE_NUM_THREADS': 1
        })
    return lambda x: model(x)[0]


def opencv(network: Network, folder: Path) -> Function:
    import cv2
    cv2.setNumThreads(1)
    net = cv2.dnn.readNetFromONNX(onnx(network, folder, False))

    def run(x: np.ndarray) -> np.ndarray:
        net.setInput(x)
        return net.forward()

    return run


def ncnn(network: Network, folder: Path) -> Function:
    import ncnn as runtime
    import pnnx
    pnnx.export(
        network,
        str(folder / 'model.pt'),
        inputs=(torch.randn(EXAMPLE), ),
        fp16=False)
    net = runtime.Net()
    net.opt.num_threads = 1
    # float16 is its default where it is fast
    for name in ('fp16_packed', 'fp16_storage', 'fp16_arithmetic',
                 'bf16_storage'):
        setattr(net.opt, f'use_{name}', False)
    net.load_param(str(folder / 'model.ncnn.param'))
    net.load_model(str(folder / 'model.ncnn.bin'))

    def run(x: np.ndarray) -> np.ndarray:
        extractor = net.create_extractor()
        extractor.input('in0', runtime.Mat(x[0]).clone())
        return np.array(extractor.extract('out0')[1])[None]

    return run


def executorch(network: Network, folder: Path) -> Function:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import \
        XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime as Loader
    side = torch.export.Dim.DYNAMIC(**SIDES)
    program = torch.export.export(
        network, (torch.randn(EXAMPLE), ),
        dynamic_shapes=({
            2: side,
            3: side
        }, ))
    file = folder / 'model.pte'
    file.write_bytes(
        to_edge_transform_and_lower(
            program,
            partitioner=[XnnpackPartitioner()]).to_executorch().buffer)
    loaded = Loader.get().load_program(file)
    method = loaded.load_method('forward')
    return lambda x: method.execute([torch.from_numpy(x)])[0].numpy()


def litert(network: Network, folder: Path) -> Function:
    import litert_torch
    return litert_torch.convert(network, (torch.randn(EXAMPLE), ))


def coreml(network: Network, folder: Path) -> Optional[Function]:
    """Convert: it runs on Apple's systems only."""
    import coremltools
    program = torch.export.export(network, (torch.randn(EXAMPLE), ))
    coremltools.convert(program.run_decompositions({}), convert_to='mlprogram')
    return None


class Runtime(NamedTuple):
    """What runs a model, and the package whose version counts."""
    build: Callable[[Network, Path], Optional[Function]]
    package: str
    sizes: str


RUNTIMES = {
    'ONNX Runtime':
    Runtime(onnxruntime, 'onnxruntime', 'any'),
    'ONNX Runtime (opset 13, without dynamo)':
    Runtime(traced_onnx, 'onnxruntime', 'any'),
    'OpenVINO, float32':
    Runtime(openvino, 'openvino', 'any'),
    'OpenCV':
    Runtime(opencv, 'cv2', 'fixed'),
    'ncnn, float32, by pnnx':
    Runtime(ncnn, 'ncnn', 'fixed'),
    'ExecuTorch, XNNPACK':
    Runtime(executorch, 'executorch', '64 to 512'),
    'LiteRT, by litert-torch':
    Runtime(litert, 'litert_torch', 'fixed'),
    'Core ML, conversion':
    Runtime(coreml, 'coremltools', 'fixed'),
}


def network_of(head: str) -> Network:
    """A model of ContextShapes' protocol whose classes are mixed."""
    run, = plan([head], 1, Path('unused'), 'contextshapes')
    model = revert_sync_batchnorm(MODELS.build(run.config.model)).train()
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)
    with torch.no_grad():
        for _ in range(20):  # statistics of the norms
            model(torch.randn(4, *EXAMPLE[1:]), mode='tensor')
        model.eval()
        logits = model(torch.randn(4, *EXAMPLE[1:]), mode='tensor')
        model.decode_head.conv_seg.bias -= logits.mean((0, 2, 3))
    return Network(model).eval()


@torch.no_grad()
def measure(runtime: Runtime, network: Network) -> str:
    """Return difference, agreement and time, or why there are none."""
    form = Network(inference_form(network.model)[0]).eval()
    image = torch.randn(EXAMPLE if runtime.sizes == 'fixed' else OTHER)
    expected = network(image).numpy()
    with tempfile.TemporaryDirectory() as folder:
        try:
            run = runtime.build(form, Path(folder))
            if run is None:
                return 'converts'
            found = np.asarray(run(image.numpy()))
        except Exception as error:  # of any converter and runtime
            print(f'{runtime.package}: {reason(error)}', file=sys.stderr)
            return f'fails: {type(error).__name__}'
        difference = abs(found - expected).max() / abs(expected).max()
        same = (found.argmax(1) == expected.argmax(1)).mean()
        times = seconds(
            {
                'own': lambda: run(image.numpy()),
                'torch': lambda: network(image)
            }, ROUNDS, 0.2)
    return (f'{difference:.0e}, {100 * same:.2f} %, '
            f'{ratio(times["own"], times["torch"]):.2f}')


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Parse the arguments, and print a row for each runtime."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--heads', nargs='+', default=HEADS, help='of the study')
    parsed = parser.parse_args(arguments)
    torch.set_num_threads(1)
    networks = {head: network_of(head) for head in parsed.heads}
    rows: List[List[str]] = []
    for name, runtime in RUNTIMES.items():
        if find_spec(runtime.package):
            rows.append([
                f'{name} {_version(runtime.package)}', runtime.sizes,
                *(measure(runtime, network) for network in networks.values())
            ])
    print(
        markdown_table(['runtime', 'sizes', *map('`{}`'.format, networks)],
                       rows))


def _version(package: str) -> str:
    if package == 'cv2':
        import cv2
        return cv2.__version__
    return version(package)


if __name__ == '__main__':
    main()
