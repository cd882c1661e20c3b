"""visualize: the pages show what the modules do, and what does not fit."""
import os
from types import SimpleNamespace

import cv2
import mmengine.fileio as fileio
import numpy as np
import pytest
import torch
from mmseg.apis import init_model

from cac_mmseg import WeightingMapsHook
from cac_mmseg.__main__ import main
from cac_mmseg.attribution.context import (Context, capture_context,
                                           choose_channels)
from cac_mmseg.drawing.reader import Reader, find_images
from cac_mmseg.hooks import pictures
from cac_mmseg.stack.checkpoint import load_model
from cac_mmseg.stack.config import dataset_without_data, load_config


def write_images(folder):
    """Images and label maps of ContextShapes as files of the same names."""
    for kind in ('image', 'label'):
        (folder / kind).mkdir()
        for i in range(2):
            content = fileio.get(f'contextshapes://{kind}/val/0/{i:06d}.png')
            # in its data set the two differ in their suffix
            suffix = 'jpg' if kind == 'image' else 'png'
            (folder / kind / f'{i}.{suffix}').write_bytes(content)


@pytest.fixture
def files(tmp_path, configs):
    """A config, weights of it, images and label maps."""
    config = tmp_path / 'config.py'
    config.write_text(f"_base_ = '{configs}/cac_r18_contextshapes.py'\n"
                      'model = dict(decode_head=dict(num_heads=2))\n')
    model = init_model(str(config), device='cpu').train()
    model(torch.randn(2, 3, 64, 96))  # statistics of the norms
    torch.save(model.state_dict(), tmp_path / 'weights.pth')
    write_images(tmp_path)
    return tmp_path


def visualize(files, *arguments):
    main([
        'visualize', f'{files}/config.py', *map(str, arguments), '--out',
        f'{files}/out', '--device', 'cpu'
    ])


def test_a_page_for_each_image(files, capsys):
    visualize(files, files / 'weights.pth', files / 'image', '--labels',
              files / 'label', '--channels', 5, 9)
    assert sorted(os.listdir(files / 'out')) == ['0.png', '1.png']
    assert f'2 pages in {files}/out' in capsys.readouterr().out
    pages = [cv2.imread(f'{files}/out/{i}.png') for i in range(2)]
    assert pages[0].shape == pages[1].shape
    # the first third of the first row is the image
    image = cv2.imread(f'{files}/image/0.jpg')
    tile = cv2.resize(pages[0][30:280, 5:395], image.shape[1::-1])
    assert np.corrcoef(tile.ravel(), image.ravel())[0, 1] > 0.8
    assert (pages[0] != pages[1]).mean() > 0.1
    without = files / 'plain'
    main([
        'visualize', f'{files}/config.py', f'{files}/weights.pth',
        f'{files}/image/0.jpg', '--out',
        str(without), '--device', 'cpu'
    ])
    assert f'1 page in {without}' in capsys.readouterr().out
    page = cv2.imread(f'{without}/0.png')
    assert (page.shape != pages[0].shape)  # two pictures in place of three


def test_maps_are_what_the_modules_multiply_with(files):
    model = load_model(files / 'config.py', files / 'weights.pth')
    model.test_cfg = dict(mode='slide', crop_size=(64, 64), stride=(32, 32))
    reader = Reader(dataset_without_data(model.cfg))
    data = reader.batch(reader.read(f'{files}/image/0.jpg'))
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


def test_the_most_varying_channels_are_chosen():
    maps = torch.zeros(2, 1, 5, 4, 4)
    maps[0, 0, 3, :2] = 1  # varies most
    maps[1, 0, 1, :2] = 0.5
    maps[1, 0, 4] = 9  # large, but constant
    contexts = [
        Context(f'm{i}', (1, ), torch.zeros(1, 5, 3, 3), maps[i])
        for i in range(2)
    ]

    def names(blocks):
        return [(context.name, channels) for context, channels in blocks]

    assert names(choose_channels(contexts, 1)) == [('m0', [3])]
    assert names(choose_channels(contexts, 2)) == [('m0', [3]), ('m1', [1])]
    assert names(choose_channels(contexts, 1, [2, 0])) == [('m0', [2, 0]),
                                                           ('m1', [2, 0])]


def test_without_weights_or_modules_it_says_so(files, configs, capsys):
    main([
        'visualize', f'{configs}/fcn_r18_contextshapes.py',
        f'{files}/image/0.jpg', '--out', f'{files}/out', '--device', 'cpu'
    ])
    out = capsys.readouterr().out
    assert 'the weights are random' in out and 'no CaCModule' in out
    assert os.listdir(files / 'out') == ['0.png']


def refuse(files, capsys, *arguments):
    with pytest.raises(SystemExit) as error:
        visualize(files, *arguments)
    assert error.value.code == 2
    assert not [*files.glob('out/*')]
    return capsys.readouterr().err


def test_what_does_not_fit_is_named(files, configs, capsys):
    weights, image = files / 'weights.pth', files / 'image/0.jpg'
    assert 'no IMAGE is given' in refuse(files, capsys, weights)
    assert 'gone.png is not a file' in refuse(files, capsys, weights, image,
                                              files / 'gone.png')
    (files / 'empty').mkdir()
    assert 'empty holds no image' in refuse(files, capsys, files / 'empty')
    assert 'gone.pth is not a file' in refuse(files, capsys,
                                              files / 'gone.pth', image)
    (files / 'text.png').write_text('no image')
    assert 'text.png cannot be read: ' in refuse(files, capsys,
                                                 files / 'text.png')
    assert 'would both be written to 0.png' in refuse(files, capsys, image,
                                                      files / 'label/0.png')
    assert 'channels must be 0 to 63' in refuse(files, capsys, image,
                                                '--channels', 64)
    assert '--top: must be >= 1' in refuse(files, capsys, image, '--top', 0)
    os.remove(files / 'label/0.png')
    assert '1 label map missing' in refuse(files, capsys, image, '--labels',
                                           files / 'label')
    (files / 'label/0.png').write_text('no label map')
    assert 'label/0.png cannot be read' in refuse(files, capsys, image,
                                                  '--labels', files / 'label')
    cv2.imwrite(f'{files}/label/0.png', np.zeros((5, 5), np.uint8))
    assert 'is of the size (5, 5)' in refuse(files, capsys, image, '--labels',
                                             files / 'label')
    (files / 'out').rmdir()
    (files / 'out').write_text('in the way')
    with pytest.raises(SystemExit):
        visualize(files, image)
    assert 'cannot be made a folder' in capsys.readouterr().err


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
def test_configs_that_are_none_are_named(files, configs, capsys, content,
                                         words):
    base = f"_base_ = '{configs}/cac_r18_contextshapes.py'\n"
    (files / 'config.py').write_text(content.replace('{base}', base))
    assert words in refuse(files, capsys, files / 'image/0.jpg')


def test_weights_of_another_model_are_named(files, configs):
    with pytest.raises(ValueError, match='weights.pth does not belong to'):
        load_model(configs / 'cac_r18_contextshapes.py', files / 'weights.pth')


def test_folders_give_their_images_in_order(files):
    (files / 'image/notes.txt').touch()
    folder = f'{files}/image'
    assert find_images([folder]) == [f'{folder}/0.jpg', f'{folder}/1.jpg']


@pytest.mark.parametrize('name', ['num_images', 'num_channels'])
def test_the_hook_names_a_bad_argument(name):
    with pytest.raises(ValueError, match=f'{name} must be >= 1, got 0'):
        WeightingMapsHook(**{name: 0})


def test_the_hook_refuses_a_model_without_modules(configs):
    model = init_model(str(configs / 'fcn_r18_contextshapes.py'), device='cpu')

    class Runner:
        pass

    Runner.model = model
    with pytest.raises(ValueError, match='the model has no CaCModule'):
        WeightingMapsHook().before_run(Runner)


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
