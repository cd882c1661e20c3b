"""What an exported file says of itself, so that nobody needs its config."""
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import mmseg
import numpy as np
import torch
import torch.nn as nn
from mmseg.models import BaseSegmentor, EncoderDecoder, SegDataPreProcessor

from .. import __version__
from ..errors import UserError
from ..intact import adds_nothing, inherits
from ..stack.config import dataset_configs, dataset_without_data
from .runtime import FORMAT, Predictor

# what mmseg's test does beside encode_decode
TESTS = ('predict', 'inference', 'whole_inference', 'slide_inference',
         'postprocess_result', 'test_step')
# what changes no image, and what predict repeats
KNOWN = ('LoadImageFromFile', 'LoadAnnotations', 'Resize', 'CheckLabels',
         'PackSegInputs')


def facts_of(model: BaseSegmentor,
             output: str = 'logits',
             raw: bool = False,
             size: Optional[Sequence[int]] = None,
             batch: Optional[int] = None,
             precision: str = 'float32') -> Dict[str, Any]:
    """Return what one has to know to predict as mmseg's test does, as JSON.

    Beside the arguments: ``classes`` and ``palette``; ``channels``,
    ``channel_order`` (None if they are not three), ``mean`` and ``std`` of the
    images that the file takes; ``resize``, ``pad``, ``window`` of the test,
    and ``others``, what else its pipeline does; ``threshold`` of a model with
    one output channel; ``align_corners``; ``versions``.

    Args:
        model: Of :func:`cac_mmseg.stack.checkpoint.load_model`.
        output, raw: Of :class:`cac_mmseg.deploy.network.Network`.
        size: H and W, if the file takes no others.
        batch: Images at a time, if it takes no other number.
        precision: Of its arithmetic.

    Raises:
        UserError: If a file cannot repeat the test of the config, or not with
            this output or with raw images.
    """
    meta = dataset_without_data(model.cfg).metainfo
    prepare = model.data_preprocessor
    if not (isinstance(prepare, SegDataPreProcessor)
            and adds_nothing(prepare, SegDataPreProcessor)):
        raise UserError('data_preprocessor must be of type '
                        'SegDataPreProcessor, whose work a file repeats, got '
                        f'{type(prepare).__name__}')
    changed = [
        name for name in TESTS if not inherits(model, EncoderDecoder, name)
    ]
    if changed:
        raise UserError(f'{type(model).__name__} changes {", ".join(changed)}'
                        ', which a file does not repeat: export an '
                        'EncoderDecoder')
    channels = model.cfg.model.backbone.get('in_channels', 3)
    order = 'RGB' if raw or swaps_channels(prepare) else 'BGR'  # mmcv's
    normalises = prepare._enable_normalize and not raw
    pipelines = [
        data.get('pipeline') for data in dataset_configs(model.cfg, 'test')
    ]
    if any(pipeline != pipelines[0] for pipeline in pipelines):
        raise UserError('the data sets of test_dataloader have different '
                        'pipelines, and a file repeats one: test with one')
    head = last_head(model)
    count = max(head.out_channels, 2)  # of what one channel decides between
    if len(meta['classes']) != count:
        raise UserError(f'the model predicts {count} classes, and the test '
                        f'data set names {len(meta["classes"])}: set its '
                        'metainfo, or num_classes of the decode head')
    window, pad, resize = _window(model), _pad(prepare), _resize(model)
    if output != 'logits' and (window or resize):
        raise UserError(
            f'--output {output}: the config tests images '
            f'{"in windows" if window else "resized"}, and logits are '
            f'{"averaged" if window else "resized back"}: export logits')
    if pad and raw:
        raise UserError('--raw: the config pads images after they are '
                        'normalised (data_preprocessor.test_cfg), and a file '
                        'that normalises would be given padded ones')
    return dict(
        format=FORMAT,
        classes=[*meta['classes']],
        palette=np.array(meta['palette']).tolist(),
        channels=channels,
        channel_order=order if channels == 3 else None,
        mean=_floats(prepare.mean) if normalises else None,
        std=_floats(prepare.std) if normalises else None,
        resize=resize,
        pad=pad,
        window=window,
        others=_others(model),
        threshold=head.threshold if head.out_channels == 1 else None,
        align_corners=model.align_corners,
        output=output,
        raw=raw,
        size=size and [*size],
        batch=batch,
        precision=precision,
        versions=dict(
            cac_mmseg=__version__,
            torch=torch.__version__,
            mmseg=mmseg.__version__))


def last_head(model: BaseSegmentor) -> nn.Module:
    """Return the decode head whose logits a model predicts by."""
    head = model.decode_head
    return head[-1] if isinstance(head, nn.ModuleList) else head


def size_to_fit(facts: Dict[str, Any]) -> Tuple[int, int]:
    """Return H and W that the test gives the model for an image of ``size``.

    If that is another, a file that takes ``size`` only fits no image: what is
    as large as the test makes images, it leaves as it is.
    """
    of = Predictor(None, dict(facts, others=[]))
    h, w = of.padded(of.resized(facts['size']))
    if facts['window']:
        h, w = map(min, (h, w), facts['window']['size'])
    return h, w


def _floats(values: torch.Tensor) -> List[float]:
    # as they were written: the shortest decimals of float32
    return [float(str(value)) for value in values.flatten().numpy()]


def _transforms(model: BaseSegmentor) -> Iterator[Any]:
    for transform in dataset_without_data(model.cfg).pipeline.transforms:
        # LoadOnce and the like hold others
        inner = getattr(transform, 'transforms', None)
        yield from getattr(inner, 'transforms', inner) or [transform]


def _resize(model: BaseSegmentor) -> Optional[dict]:
    found = [t for t in _transforms(model) if type(t).__name__ == 'Resize']
    if not found:
        return None
    if len(found) > 1 or not found[0].scale:
        raise UserError('the test pipeline must have one Resize, with a '
                        'scale, for the file to repeat it: got '
                        f'{", ".join(map(repr, found))}')
    how = found[0].backend, found[0].interpolation
    if how != ('cv2', 'bilinear'):
        raise UserError(
            f'Resize of the test pipeline has backend={how[0]!r} and '
            f"interpolation={how[1]!r}, and files are resized by 'cv2' and "
            "'bilinear': test with these")
    return dict(scale=[*found[0].scale], keep_ratio=found[0].keep_ratio)


def swaps_channels(prepare: nn.Module) -> bool:
    """Return whether a data preprocessor makes RGB of mmcv's BGR."""
    # OneDL's mmseg and the original one
    names = '_channel_conversion', 'channel_conversion'
    return any(getattr(prepare, name, False) for name in names)


def _others(model: BaseSegmentor) -> List[str]:
    found = []
    channels = model.cfg.model.backbone.get('in_channels', 3)
    color_type = 'color' if channels == 3 else 'unchanged'
    for transform in _transforms(model):
        name = type(transform).__name__
        if name == 'LoadImageFromFile' and (
                transform.to_float32 or transform.color_type != color_type
                or transform.imdecode_backend != 'cv2'):
            name += (f'(to_float32={transform.to_float32}, color_type='
                     f'{transform.color_type!r}, imdecode_backend='
                     f'{transform.imdecode_backend!r})')
        if name not in KNOWN:
            found.append(name)
    return found


def _pad(prepare: nn.Module) -> dict:
    sizes = {
        key: value
        for key, value in (prepare.test_cfg or {}).items() if value is not None
    }
    return dict(sizes, value=prepare.pad_val) if sizes else {}


def _window(model: BaseSegmentor) -> Optional[dict]:
    test = model.test_cfg
    mode = test.get('mode', 'whole')
    if mode not in ('slide', 'whole'):
        raise UserError("test_cfg.mode must be 'slide' or 'whole', got "
                        f'{mode!r}')
    if mode == 'whole':
        return None
    for name in ('crop_size', 'stride'):
        if not isinstance(test.get(name), (list, tuple)):
            raise UserError(f"test_cfg of mode='slide' needs {name}=(H, W), "
                            f'got {test.get(name)}')
    if any(s > c for s, c in zip(test.stride, test.crop_size)):
        raise UserError(f'test_cfg.stride={tuple(test.stride)} leaves pixels '
                        f'between windows of {tuple(test.crop_size)}: it must '
                        'not be larger than crop_size')
    return dict(size=[*test.crop_size], stride=[*test.stride])
