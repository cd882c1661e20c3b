"""visualize: the pages show what the modules do, and what does not fit."""
import shutil
from types import SimpleNamespace

import cv2
import mmengine.fileio as fileio
import numpy as np
import pytest
import torch
from mmengine.model import BaseModule
from mmseg.apis import init_model

from cac_mmseg import CaCModule, WeightingMapsHook
from cac_mmseg.attribution.context import (Context, capture_context,
                                           choose_channels)
from cac_mmseg.drawing.reader import Reader
from cac_mmseg.hooks import pictures
from cac_mmseg.stack.checkpoint import load_model
from cac_mmseg.stack.config import dataset_without_data, load_config
from cac_mmseg.stack.files import find_images


@pytest.fixture
def files(tmp_path, shapes, monkeypatch):
    """A config, weights of it, images and label maps."""
    for path in (shapes.config, shapes.weights):
        shutil.copy(path, tmp_path)
    # in its data set the two differ in their suffix
    for kind, suffix in (('image', 'jpg'), ('label', 'png')):
        (tmp_path / kind).mkdir()
        for i in range(2):
            content = fileio.get(f'contextshapes://{kind}/val/0/{i:06d}.png')
            (tmp_path / kind / f'{i}.{suffix}').write_bytes(content)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_page_for_each_image(files, cli):
    line = 'visualize config.py weights.pth {} --device cpu --out {}'
    labels = '--labels', 'label', '--channels', 5, 9
    assert '2 pages in out' in cli(line.format('image', 'out'), *labels)[1]
    first, second = map(cv2.imread, map(str, sorted(files.glob('out/*'))))
    assert first.shape == second.shape and (first != second).mean() > 0.1
    # the first third of the first row is the image
    image = cv2.imread('image/0.jpg')
    tile = cv2.resize(first[30:280, 5:395], image.shape[1::-1])
    assert np.corrcoef(tile.ravel(), image.ravel())[0, 1] > 0.8
    assert '1 page in plain' in cli(line.format('image/0.jpg', 'plain'))[1]
    # two pictures in place of three
    assert cv2.imread('plain/0.png').shape != first.shape


def test_maps_are_what_the_modules_multiply_with(files):
    model = load_model(files / 'config.py', files / 'weights.pth')
    model.test_cfg = dict(mode='slide', crop_size=(64, 64), stride=(32, 32))
    reader = Reader(dataset_without_data(model.cfg))
    data = reader.batch(reader.read('image/0.jpg'))
    inputs, outputs = [], []
    for module in model.decode_head.cac_modules:
        module.register_forward_hook(lambda m, x, y: inputs.append(x[0]))
        module.register_forward_hook(lambda m, x, y: outputs.append(y))
    contexts = capture_context(model, data)
    assert [c.name for c in contexts
            ] == [f'decode_head.cac_modules.{i}' for i in range(2)]
    for context, x, y in zip(contexts, inputs, outputs):
        # of the whole image, though the model slides
        assert context.maps.shape == (3, 64, 16, 24)
        torch.testing.assert_close(x[0] * context.maps.sum(0), y[0])
    assert len(model.decode_head.cac_modules[0]._forward_pre_hooks) == 0


class Reused(BaseModule):
    """Calls a module twice, and changes its input after the first time."""

    def __init__(self):
        super().__init__()
        self.cac = CaCModule(3).eval()

    def data_preprocessor(self, data, training):
        return data

    def forward(self, inputs, mode):
        x = inputs.clone()
        x += self.cac(x)
        return self.cac(x)


def test_what_changes_after_a_module_does_not_change_its_context():
    model, x = Reused(), torch.rand(1, 3, 6, 7)
    first, second = capture_context(model, dict(inputs=x))
    changed = x + model.cac(x)
    for context, seen in ((first, x), (second, changed)):
        torch.testing.assert_close(context.kernels,
                                   model.cac.predict_kernels(seen)[0])


def test_the_most_varying_channels_are_chosen():
    maps = torch.zeros(2, 1, 5, 4, 4)
    maps[0, 0, 3, :2] = 1  # varies most
    maps[1, 0, 1, :2] = 0.5
    maps[1, 0, 4] = 9  # large, but constant
    contexts = [
        Context(f'm{i}', (1, ), torch.zeros(1, 5, 3, 3), maps[i])
        for i in range(2)
    ]
    for arguments, chosen in (((1, ), dict(m0=[3])), ((2, ),
                                                      dict(m0=[3], m1=[1])),
                              ((1, [2, 0]), dict(m0=[2, 0], m1=[2, 0]))):
        blocks = choose_channels(contexts, *arguments)
        assert {context.name: found for context, found in blocks} == chosen


def test_without_weights_or_modules_it_says_so(files, configs, cli):
    config = configs / 'fcn_r18_contextshapes.py'
    line = f'visualize {config} image/0.jpg --out out --device cpu'
    out = cli(line)[1]
    assert 'the weights are random' in out and 'no CaCModule' in out
    assert [path.name for path in files.glob('out/*')] == ['0.png']


@pytest.mark.parametrize('content, words', [
    ('model = dict(', 'cannot be read as a config: '),
    ('x = 1', 'configures no model'),
    ("{base}model = dict(type='Nothing')\n", 'cannot be built: Key'),
    ("model = dict(type='Nothing')\n", 'has no dataset in test_dataloader'),
    ("{base}test_dataloader = dict(dataset=dict(metainfo=None, "
     "type='BaseSegDataset', split=None, num_images=None))",
     'data set cannot be built: TypeError'),
    ("model = dict(type='Nothing')\nraise ValueError('oh')", 'oh'),
])
def test_configs_that_are_none_are_named(files, configs, cli, content, words):
    base = f"_base_ = '{configs}/cac_r18_contextshapes.py'\n"
    (files / 'config.py').write_text(content.replace('{base}', base))
    code, out = cli('visualize config.py image/0.jpg --out out --device cpu')
    assert code == 2 and words in out and not [*files.glob('out/*')]


def test_folders_give_their_images_in_order(files):
    (files / 'image/notes.txt').touch()
    folder = f'{files}/image'
    assert find_images([folder]) == [f'{folder}/0.jpg', f'{folder}/1.jpg']


def test_the_hook_refuses_a_model_without_modules(configs):
    model = init_model(str(configs / 'fcn_r18_contextshapes.py'), device='cpu')
    with pytest.raises(ValueError, match='the model has no CaCModule'):
        WeightingMapsHook().before_run(SimpleNamespace(model=model))


@pytest.mark.parametrize('suffixes, image, label', [
    (('.jpg', '.png'), 'a.jpg', 'a.png'),
    (('.jpg', '.png'), 'a.b.png', 'a.b.png'),
    (('_image.png', '_label.png'), 'a_image.png', 'a_label.png'),
])
def test_label_maps_are_named_as_in_the_data_set(files, suffixes, image,
                                                 label):
    reader = Reader(dataset_without_data(load_config(files / 'config.py')))
    reader.suffixes = suffixes
    assert reader.label_path(f'images/{image}', 'labels') == f'labels/{label}'


def test_the_hook_counts_images_though_the_last_batch_is_smaller(
        files, monkeypatch):
    names = []
    monkeypatch.setattr('cac_mmseg.drawing.page.page', lambda *args: None)
    monkeypatch.setattr(pictures, 'is_main_process', lambda: True)
    monkeypatch.setattr(pictures, 'read_rgb', lambda *_: None)
    runner = SimpleNamespace(
        model=None,
        iter=1,
        val_dataloader=SimpleNamespace(batch_size=2, dataset=None),
        visualizer=SimpleNamespace(
            dataset_meta={}, add_image=lambda name, *_: names.append(name)))
    hook = WeightingMapsHook(num_images=3)
    for index, size in enumerate((2, 1)):
        hook.after_val_iter(runner, index, dict(inputs=[0] * size),
                            [SimpleNamespace(img_path='')] * size)
    assert names == [f'weighting_maps_{i}' for i in range(3)]
