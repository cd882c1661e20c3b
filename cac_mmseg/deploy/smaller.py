"""ONNX files in int8 or float16, by the tools of ONNX Runtime."""
from pathlib import Path
from typing import Dict, Iterable, Iterator, Optional

import numpy as np

from .runtime import load


def to_int8(file: Path, images: Iterable[np.ndarray]) -> None:
    """Quantise weights (signed, per channel) and activations (unsigned).

    Weights take 7 bits: on processors with AVX2 but without VNNI, sums of two
    products of 8 bits saturate, and the file would predict something else.

    Args:
        file: What :func:`cac_mmseg.deploy.write.export` wrote; it is replaced.
        images: As loaded, to find the ranges of activations with.
    """
    from onnxruntime.quantization import (CalibrationDataReader, QuantType,
                                          quantize_static)
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Inputs(CalibrationDataReader):
        """What the network is given of each image, window by window."""

        def __init__(self) -> None:
            self.inputs = _inputs(file, images)

        def get_next(self) -> Optional[Dict[str, np.ndarray]]:
            image = next(self.inputs, None)
            return None if image is None else dict(image=image)

    prepared = file.with_name(f'prepared-{file.name}')
    quant_pre_process(file, prepared)
    quantize_static(
        prepared,
        file,
        Inputs(),
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8)


def _inputs(file: Path, images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    predict = load(file)
    network = predict.network
    given = []

    def record(x: np.ndarray) -> np.ndarray:
        given.append(x)
        return network(x)

    predict.network = record
    for image in images:
        predict(image)
        yield from given
        given.clear()


def to_float16(file: Path) -> None:
    """Store weights and compute in float16; what goes in and out stays."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    model = convert_float_to_float16(onnx.load(file), keep_io_types=True)
    onnx.save(model, file)
