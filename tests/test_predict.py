"""What runs an exported file does to an image what mmseg's test does."""
import json
import math
import subprocess
import sys
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.model import BaseDataPreprocessor

from cac_mmseg.commands import predict as predict_command
from cac_mmseg.deploy import runtime
from cac_mmseg.deploy.facts import facts_of, size_to_fit
from cac_mmseg.deploy.network import Network
from cac_mmseg.drawing.reader import Reader
from cac_mmseg.stack.checkpoint import load_model
from cac_mmseg.stack.config import dataset_without_data


def model_of(folder, configs, **changes):
    """A model of random weights, whose classes are mixed, in evaluation."""
    config = Config.fromfile(configs / 'cac_r18_camvid.py')
    config.merge_from_dict({
        'model.backbone.num_stages': 1,
        'model.backbone.out_indices': [0],
        'model.backbone.strides': [2],
        'model.backbone.dilations': [1],
        'model.decode_head.in_index': 0,
        'model.decode_head.in_channels': 64,
        'model.decode_head.channels': 16,
        'model.auxiliary_head': None,
        **changes
    })
    config.dump(folder / 'config.py')
    model = load_model(folder / 'config.py').train()
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)
    with torch.no_grad():
        model(torch.randn(4, 3, 64, 96))  # statistics of the norms
    return model.eval()


def predictor(model, output='logits', raw=False, size=None, batch=None):
    """What runs the model's own network, with all that a file says."""
    network = Network(model, output, raw).eval()

    def run(x):
        assert x.dtype == (np.uint8 if raw else np.float32)
        with torch.no_grad():
            return network(torch.from_numpy(x)).numpy()

    facts = facts_of(model, output, raw, size, batch)
    return runtime.Predictor(run, json.loads(json.dumps(facts)))


def mmsegs(model, path):
    """What mmseg's test predicts for an image, and the image as it reads it.

    The model changes: its classes are made equally likely for the image.
    """
    reader = Reader(dataset_without_data(model.cfg))
    sample = reader.read(str(path))
    head = model.decode_head
    with torch.no_grad():
        inputs = model.data_preprocessor(reader.batch(sample))['inputs']
        head.conv_seg.bias -= model(inputs, mode='tensor').mean((0, 2, 3))
        if head.out_channels == 1:
            head.conv_seg.bias += math.log(head.threshold /
                                           (1 - head.threshold))
        output, = model.test_step(reader.batch(sample))
    return output.pred_sem_seg.data[0].numpy(), sample.image


def resized(**resize):
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', **resize),
        dict(type='LoadAnnotations'),
        dict(type='PackSegInputs')
    ]
    return {'test_dataloader.dataset.pipeline': pipeline}


SLIDE = {
    'model.test_cfg':
    dict(mode='slide', crop_size=(48, 64), stride=(32, 41), _delete_=True)
}
PADDED = {
    'model.data_preprocessor.test_cfg': dict(size_divisor=32),
    'model.data_preprocessor.pad_val': 0.7
}


@pytest.fixture
def image(tmp_path, rng):
    """A photograph of no round size."""
    small = rng.integers(0, 256, (12, 18, 3), dtype=np.uint8)
    path = tmp_path / 'photograph.png'
    cv2.imwrite(str(path), cv2.resize(small, (139, 91)))
    return path


@pytest.mark.parametrize(
    'changes, options', [
        ({}, {}),
        ({}, dict(raw=True)),
        ({}, dict(output='probabilities')),
        ({}, dict(output='classes', batch=3)),
        (resized(scale=(160, 80), keep_ratio=True), {}),
        (resized(scale=(200, 120), keep_ratio=False), dict(raw=True)),
        (SLIDE, {}),
        ({
            **SLIDE,
            **PADDED,
            **resized(scale=(150, 60), keep_ratio=True)
        }, {}),
        (PADDED, {}),
        ({
            'model.data_preprocessor.test_cfg': dict(size=(96, 160))
        }, {}),
        ({
            'model.data_preprocessor.bgr_to_rgb': False
        }, {}),
        ({
            'model.data_preprocessor.bgr_to_rgb': False
        }, dict(raw=True)),
        ({
            'model.decode_head.align_corners': True,
            **resized(scale=(160, 80), keep_ratio=True)
        }, {}),
    ],
    ids=str)
def test_classes_are_those_of_mmseg(configs, tmp_path, image, changes,
                                    options):
    model = model_of(tmp_path, configs, **changes)
    expected, read = mmsegs(model, image)
    found = predictor(model, **options)(read)
    assert found.shape == expected.shape == (91, 139)
    assert len(np.unique(expected)) > 3
    # two logits that are equal but for rounding may change places
    assert (found == expected).mean() > 0.999


@pytest.mark.parametrize('output', ['logits', 'probabilities', 'classes'])
def test_one_channel_is_compared_with_the_threshold(configs, tmp_path, image,
                                                    output):
    model = model_of(
        tmp_path, configs, **{
            'model.decode_head.num_classes': 2,
            'model.decode_head.out_channels': 1,
            'model.decode_head.threshold': 0.8,
            'model.decode_head.loss_decode.use_sigmoid': True,
            'test_dataloader.dataset.metainfo': dict(classes=('road', 'car'))
        })
    expected, read = mmsegs(model, image)
    assert 0.02 < expected.mean() < 0.98
    found = predictor(model, output)(read)
    assert (found == expected).mean() > 0.999


def test_images_that_the_file_does_not_take_are_named(configs, tmp_path):
    predict = predictor(model_of(tmp_path, configs), size=(64, 96))
    with pytest.raises(ValueError, match='64 x 96 pixels, .* has 65 x 96'):
        predict(np.zeros((65, 96, 3), np.uint8))
    grey = np.zeros((64, 96), np.uint8)
    colours = np.zeros((64, 96, 3), np.uint8)
    colours[5] = 200
    for image in (grey, grey[0], grey[None, None], 'image.png', colours[:0]):
        with pytest.raises(ValueError, match=r'must have shape \(H, W, 3\)'):
            predict(image)
    for image, words in (
        (None, 'got None, which cv2.imread'),
        (colours / 255., 'from 0 to 255, as in training, got 0 to 0.784'),
        (colours.astype(np.uint16) * 256, 'got 0 to 5.12e'),
        (colours - 100., 'got -100 to 100 in float64'),
        (colours * np.nan, 'NaN'),
        (colours > 3, 'real numbers, got bool'),
        (colours + 1j, 'real numbers, got complex'),
    ):
        with pytest.raises(ValueError, match=words):
            predict(image)
    for image in (colours.tolist(), colours.astype(np.int64), colours * 1.):
        assert (predict(image) == predict(colours)).all()
    predict = predictor(model_of(tmp_path, configs), raw=True)
    with pytest.raises(ValueError, match='in uint8, got float32'):
        predict(np.zeros((64, 96, 3), np.float32))
    thin = resized(scale=(160, 80), keep_ratio=True)
    predict = predictor(model_of(tmp_path, configs, **thin), size=(80, 160))
    with pytest.raises(ValueError, match='1 x 4000 pixels has 0 x 160 when'):
        predict(np.zeros((1, 4000, 3), np.uint8))
    with pytest.raises(ValueError, match='has 80 x 120 when it is resized: '):
        predict(np.zeros((20, 30, 3), np.uint8))
    assert predict(np.full((8, 16, 3), 7, np.int64)).shape == (8, 16)


@pytest.mark.parametrize('changes, size, fits', [
    (SLIDE, (64, 96), (48, 64)),
    (PADDED, (64, 97), (64, 128)),
    (resized(scale=(200, 120), keep_ratio=False), (64, 96), (120, 200)),
    (resized(scale=(160, 80), keep_ratio=True), (64, 96), (80, 120)),
])
def test_the_one_size_that_fits_the_test_is_known(configs, tmp_path, changes,
                                                  size, fits):
    model = model_of(tmp_path, configs, **changes)
    assert size_to_fit(facts_of(model, size=size)) == fits
    assert size_to_fit(facts_of(model, size=fits)) == fits
    predict = predictor(model, size=fits)
    assert predict(np.zeros((*fits, 3), np.uint8)).shape == fits


def test_what_a_file_cannot_repeat_is_named(configs, tmp_path):
    extra = dict(type='AdjustGamma')
    pipeline = [
        dict(type='LoadImageFromFile'), extra,
        dict(type='PackSegInputs')
    ]
    model = model_of(tmp_path, configs,
                     **{'test_dataloader.dataset.pipeline': pipeline})
    with pytest.warns(UserWarning, match='AdjustGamma, which is not'):
        predictor(model)
    model = model_of(tmp_path, configs, **resized(scale_factor=0.5))
    with pytest.raises(ValueError, match='one Resize, with a scale'):
        facts_of(model)
    scale = dict(scale=(160, 80), keep_ratio=True)
    model = model_of(tmp_path, configs,
                     **resized(interpolation='nearest', **scale))
    with pytest.raises(ValueError, match='test with these'):
        facts_of(model)
    window = dict(mode='slide', crop_size=(48, 64), stride=(32, 65))
    model = model_of(tmp_path, configs,
                     **{'model.test_cfg': dict(window, _delete_=True)})
    with pytest.raises(ValueError, match='leaves pixels between windows'):
        facts_of(model)
    model = model_of(tmp_path, configs,
                     **{'model.decode_head.num_classes': 10})
    with pytest.raises(ValueError, match='predicts 10 classes, .* names 11'):
        facts_of(model)
    data = model.cfg.test_dataloader.dataset
    model.cfg.test_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[data,
                                        dict(data, pipeline=pipeline)])
    with pytest.raises(ValueError, match='have different pipelines'):
        facts_of(model)
    model.postprocess_result = None
    with pytest.raises(ValueError, match='changes postprocess_result'):
        facts_of(model)
    del model.postprocess_result
    model.data_preprocessor.forward = None
    with pytest.raises(ValueError, match='of type SegDataPreProcessor'):
        facts_of(model)
    model.data_preprocessor = BaseDataPreprocessor()
    with pytest.raises(ValueError, match='got BaseDataPreprocessor'):
        facts_of(model)
    model = model_of(tmp_path, configs)
    assert facts_of(model).keys() >= runtime.KEYS
    for test, words in ((dict(mode='tiles'), "'whole', got 'tiles'"),
                        (dict(mode='slide', crop_size=(48, 64)),
                         r'needs stride=\(H, W\), got None')):
        model.test_cfg = test
        with pytest.raises(ValueError, match=words):
            facts_of(model)
    model = model_of(tmp_path, configs, **resized(**scale))
    with pytest.raises(ValueError, match='resized back: export logits'):
        facts_of(model, output='classes')
    loader = dict(type='LoadImageFromFile', color_type='unchanged')
    pipeline = [loader, dict(type='PackSegInputs')]
    model = model_of(tmp_path, configs,
                     **{'test_dataloader.dataset.pipeline': pipeline})
    assert "color_type='unchanged'" in facts_of(model)['others'][0]


def test_an_image_is_not_overwritten(tmp_path, cli, monkeypatch, image):
    monkeypatch.setattr(predict_command, 'load', lambda path: None)
    before = image.read_bytes()
    code, output = cli('predict a.onnx', image.parent, '--out', image.parent)
    assert code == 2 and 'would be overwritten' in output
    assert image.read_bytes() == before


@pytest.mark.parametrize(
    'text', ['', 'no', '{}', '[1]', '{"format": 2}', '{"format": 1}'])
def test_a_file_of_somebody_else_is_named(tmp_path, monkeypatch, text):
    monkeypatch.setattr(runtime, '_load_program', lambda path: (None, text))
    (tmp_path / 'a.pt2').touch()
    with pytest.raises(ValueError, match='a.pt2 does not say, in a form'):
        runtime.load(tmp_path / 'a.pt2')


def test_other_images_are_predicted(tmp_path, cli, monkeypatch, image):
    """A broken one is named at the end."""

    class Grey:
        facts = dict(channels=3, classes=['road'], palette=[[1, 2, 3]])

        def __call__(self, image):
            return np.zeros(image.shape[:2], int)

    monkeypatch.setattr(predict_command, 'load', lambda path: Grey())
    (image.parent / 'broken.png').write_text('no image')
    code, output = cli('predict a.onnx', image.parent, '--out',
                       tmp_path / 'out')
    assert code == 2 and '1 prediction in' in output
    assert '1 image not predicted' in output and 'broken.png: OpenCV' in output
    assert {path.name
            for path in (tmp_path / 'out').rglob('*.png')} == {image.name}


@pytest.mark.parametrize('align', [False, True])
@pytest.mark.parametrize('shape', [(7, 9), (23, 5), (9, 40), (1, 1)])
def test_maps_are_interpolated_as_pytorch_does(rng, align, shape):
    maps = rng.standard_normal((3, 9, 13)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(maps)[None],
        shape,
        mode='bilinear',
        align_corners=align)[0]
    torch.testing.assert_close(
        torch.from_numpy(runtime.resize(maps, shape, align)), expected)


def test_predict_imports_neither_torch_nor_mmseg(tmp_path):
    """Where they are installed: it starts in a moment."""
    code = ('import runpy, sys\n'
            'try: runpy.run_module("cac_mmseg", run_name="__main__")\n'
            'except SystemExit: pass\n'
            'print(sorted({"torch", "mmseg", "mmengine", "mmcv"} '
            '& {*sys.modules}))')
    script = ("import sys; sys.orig_argv = ['python', '-m', 'cac_mmseg', "
              "'predict', 'no.onnx', 'no.png', '--out', 'out']\n"
              "sys.argv = ['-m', *sys.orig_argv[3:]]\n" + code)
    done = subprocess.run([sys.executable, '-c', script],
                          cwd=ROOT,
                          capture_output=True,
                          text=True)
    assert done.stdout == '[]\n'
    assert 'no.onnx is not a file' in done.stderr


# the fast tests run without the export extra
BROKEN = 'cannot be read' if find_spec('onnxruntime') else 'needs onnxruntime'


@pytest.mark.parametrize('arguments, words', [
    ('{file} a.png', '--out DIR is missing'),
    ('{file} --out out', 'give either IMAGE'),
    ('{file} a.png --against a.py a.pth', 'give either IMAGE'),
    ('{text} a.png --out out', 'must end on .onnx or .pt2'),
    ('{file} crossing://image/val/0/000007.png --out out',
     'reads files of this'),
    ('{broken} a.png --out out', BROKEN),
    ('{broken2} a.png --out out', 'cannot be read'),
    ('no.onnx a.png --out out', 'no.onnx is not a file'),
])
def test_bad_input(tmp_path, cli, arguments, words):
    files = {
        name: tmp_path / file
        for name, file in dict(
            file='a.onnx', text='a.txt', broken='b.onnx',
            broken2='b.pt2').items()
    }
    for file in files.values():
        file.write_text('no model')
    code, output = cli('predict ' + arguments.format(**files))
    assert code == 2 and words in ' '.join(output.split())
    assert not (tmp_path / 'out').exists()
