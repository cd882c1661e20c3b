"""adopt: what it writes for configs of several families, and what it refuses.
"""
import random

import pytest
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from cac_mmseg import config_path
from cac_mmseg.__main__ import main
from cac_mmseg.commands.adopt.derive import choose_maps
from cac_mmseg.stack.config import MMSEG_CONFIGS, load_config
from tools.checks import adopt_check

SMALL = 'crop_size = (64, 128)\n'  # costs are counted at this size


def user_config(folder, name, more=''):
    """A config of a user, in a folder of its own, on one of mmseg's."""
    base, = MMSEG_CONFIGS.glob(f'*/{name}.py')
    path = folder / 'mine.py'
    path.write_text(f"_base_ = '{base}'\n{SMALL}{more}")
    return path


def adopted(tmp_path, monkeypatch, name, *options, more=''):
    """What a user gets who adopts a config, which was checked to run."""
    path = user_config(tmp_path, name, more)
    monkeypatch.chdir(tmp_path)
    main(['adopt', 'mine.py', *options])
    text = (tmp_path / 'cac_mine.py').read_text()
    assert text.startswith("_base_ = 'mine.py'\n")
    return load_config(path), load_config(tmp_path / 'cac_mine.py')


def test_one_feature_map(tmp_path, monkeypatch, capsys):
    more = ("custom_imports = dict(imports='math')\n"
            "norm_cfg = dict(type='BN', requires_grad=True)\n"
            'model = dict(decode_head=dict(\n'
            "    norm_cfg=norm_cfg, ignore_index=7, sampler=dict(\n"
            "        type='OHEMPixelSampler', thresh=0.7, min_kept=100)))\n")
    before, after = adopted(
        tmp_path,
        monkeypatch,
        'pspnet_r18-d8_4xb2-80k_cityscapes-512x1024',
        '--channels',
        '32',
        '--heads',
        '2',
        more=more)
    old, new = before.model.decode_head, after.model.decode_head
    assert new == dict(
        type='CaCHead',
        in_channels=512,
        in_index=3,
        channels=32,
        num_heads=2,
        **{
            key: old[key]
            for key in ('num_classes', 'dropout_ratio', 'norm_cfg',
                        'loss_decode', 'ignore_index', 'sampler',
                        'align_corners')
        })
    assert after.custom_imports.imports == ['math', 'cac_mmseg']
    hooks = {
        hook.type
        for name, hook in after.default_hooks.items()
        if name not in before.default_hooks
    }
    assert hooks == {'PreflightHook', 'PredictionPictureHook'}
    for key in before:
        if key not in ('model', 'custom_imports', 'default_hooks'):
            assert after[key] == before[key]
    for key in before.model:
        if key != 'decode_head':
            assert after.model[key] == before.model[key]
    out = capsys.readouterr().out
    assert 'PreflightHook and PredictionPictureHook come with it' in out
    assert out.endswith('mim train mmsegmentation cac_mine.py\n')
    rows = out.splitlines()
    head = MODELS.build(ConfigDict(new, norm_cfg=dict(type='BN')))
    count = sum(p.numel() for p in head.parameters())
    assert any(
        row.startswith('| CaCHead') and f'{count:,}' in row for row in rows)


def test_hooks_may_be_left_out_and_paths_have_spaces(tmp_path, monkeypatch,
                                                     capsys):
    folder = tmp_path / 'für mich'
    folder.mkdir()
    path = user_config(folder, 'fast_scnn_8xb4-160k_cityscapes-512x1024')
    monkeypatch.chdir(tmp_path)
    out = 'für mich/mit Kontext.py'
    main(['adopt', str(path), '--no-hooks', '--out', out])
    assert f"mim train mmsegmentation '{out}'" in capsys.readouterr().out
    assert load_config(out).default_hooks == load_config(path).default_hooks
    # what has them gets no second ones
    (tmp_path / 'ours.py').write_text(
        f"_base_ = '{config_path('cac_r50_cityscapes')}'\n{SMALL}"
        "model = dict(decode_head=dict(_delete_=True, type='FCNHead', "
        'in_channels=2048, channels=64, num_classes=19))\n')
    main(['adopt', 'ours.py'])
    assert 'default_hooks' not in (tmp_path / 'cac_ours.py').read_text()


def test_cascade(tmp_path, monkeypatch, capsys):
    before, after = adopted(tmp_path, monkeypatch,
                            'ocrnet_hr18s_4xb2-40k_cityscapes-512x1024')
    assert after.model.type == 'EncoderDecoder'
    assert 'num_stages' not in after.model
    assert after.model.auxiliary_head == [before.model.decode_head[0]]
    assert after.model.decode_head.input_transform == 'resize_concat'
    for key in ('backbone', 'data_preprocessor', 'pretrained', 'test_cfg'):
        assert after.model[key] == before.model[key]
    assert 'auxiliary head now' in capsys.readouterr().out


def test_several_feature_maps(tmp_path, monkeypatch, capsys):
    _, after = adopted(tmp_path, monkeypatch,
                       'segformer_mit-b0_8xb2-160k_ade20k-512x512')
    head = after.model.decode_head
    assert head.in_index == [1, 2, 3] and head.in_channels == [64, 160, 256]
    assert head.num_classes == 150
    assert 'not those below stride 8' in capsys.readouterr().out


def test_a_map_that_is_not_read_leaves_parameters_unused(
        tmp_path, monkeypatch, capsys):
    _, after = adopted(
        tmp_path, monkeypatch,
        'swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512')
    assert after.find_unused_parameters
    out = capsys.readouterr().out
    assert 'reaches backbone.norm0.weight, backbone.norm0.bias\n' in out


@pytest.mark.slow
def test_iterations_and_position_embeddings(tmp_path, monkeypatch):
    """K-Net's last stages go; a transformer without norm gets SyncBN."""
    _, after = adopted(tmp_path, monkeypatch,
                       'segmenter_vit-s_mask_8xb1-160k_ade20k-512x512')
    head = after.model.decode_head
    assert head.in_channels == 384 and head.norm_cfg.type == 'SyncBN'
    (tmp_path / 'cac_mine.py').unlink()
    before, after = adopted(
        tmp_path, monkeypatch,
        'knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512')
    generate = before.model.decode_head.kernel_generate_head
    assert after.model.decode_head.channels == generate.channels
    assert after.model.auxiliary_head == before.model.auxiliary_head


def test_batch_of_one_has_no_norm_of_the_pooled_branch(tmp_path, monkeypatch):
    more = ('train_dataloader = dict(batch_size=1)\n'
            "model = dict(decode_head=dict(norm_cfg=dict(type='BN')))\n")
    _, after = adopted(
        tmp_path,
        monkeypatch,
        'fast_scnn_8xb4-160k_cityscapes-512x1024',
        more=more)
    assert after.model.decode_head.pool_norm_cfg is None


def test_name_dry_run_and_existing_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = 'fast_scnn_8xb4-160k_cityscapes-512x1024'
    main(['adopt', name, '--dry-run'])
    out = capsys.readouterr().out
    assert not [*tmp_path.iterdir()]
    path, = MMSEG_CONFIGS.glob(f'*/{name}.py')
    assert f"_base_ = '{path}'" in out
    written = tmp_path / f'cac_{name}.py'
    written.write_text('kept')
    with pytest.raises(SystemExit):
        main(['adopt', name])
    assert 'exists' in capsys.readouterr().err
    assert written.read_text() == 'kept'


REFUSED = {
    'mask2former_r50_8xb2-90k_cityscapes-512x1024': 'matched with segments',
    'pointrend_r50_4xb2-80k_cityscapes-512x1024': 'point by point',
    'san-vit-b16_coco-stuff164k-640x640': 'compares images with text',
    'vpd_sd_4xb8-25k_nyu-480x480': 'estimates depth',
    'pidnet-s_2xb6-120k_1024x1024-cityscapes': 'in training than in',
    'dpt_vit-b16_8xb2-160k_ade20k-512x512': 'no list of feature maps',
    'cac_r50_cityscapes': 'a CaCHead already',
    'pspnet_r51': 'no config is named',
    'none/pspnet.py': 'none/pspnet.py is not a file',
}


@pytest.mark.parametrize('name', REFUSED)
def test_refused_in_one_line(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(['adopt', name])
    message = capsys.readouterr().err.splitlines()[-1]
    assert REFUSED[name] in message
    assert not [*tmp_path.iterdir()]


def test_choice_of_feature_maps():
    strides = random.choices((4, 8, 16, 32), k=4)
    maps = [(random.randint(1, 99), stride) for stride in strides]
    indices = random.sample(range(4), k=random.randint(1, 4))
    reads, why = choose_maps(dict(type='Old', in_index=indices), maps)
    chosen = reads['in_index']
    chosen = chosen if isinstance(chosen, list) else [chosen]
    channels = [maps[i][0] for i in chosen]
    assert reads['in_channels'] in (channels, channels[0])
    assert ('input_transform' in reads) == (len(chosen) > 1)
    assert bool(why) == (len(indices) > 1)
    if len({strides[i] for i in indices}) == 1:
        assert chosen == indices[-1:]
    else:
        assert chosen == [i for i in indices if strides[i] >= 8]
    old = dict(type='Old', in_index=indices, input_transform='resize_concat')
    kept = choose_maps(old, maps)[0]['in_index']
    assert kept == (indices if len(indices) > 1 else indices[0])
    with pytest.raises(ValueError, match='in_index of the Old is 4'):
        choose_maps(dict(type='Old', in_index=4), maps)


def test_a_model_that_does_not_run_is_no_adoption(tmp_path, monkeypatch,
                                                  capsys):
    path = user_config(
        tmp_path, 'fast_scnn_8xb4-160k_cityscapes-512x1024',
        'model = dict(decode_head=dict('
        "loss_decode=dict(_delete_=True, type='BoundaryLoss')))\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(['adopt', path.name])
    assert 'the adopted model does not run' in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.slow
def test_every_kind_of_config_of_mmseg():
    init_default_scope('mmseg')
    paths = adopt_check.all_configs()
    assert len(paths) > 600
    outcomes = [*adopt_check.survey(paths, quick=True)]
    print(adopt_check.tables(outcomes))
    assert len(outcomes) > 70
    assert not [o for o in outcomes if o.state == 'failed']
    # a refusal has a reason that has been thought of
    reasons = {o.detail.split()[0] for o in outcomes if o.state == 'refused'}
    assert reasons <= {
        'DDRNet', 'DepthEstimator', 'Failed', 'Mask2FormerHead', 'its',
        'MaskFormerHead', 'MultimodalEncoderDecoder', 'PIDNet', 'PointHead',
        'VisionTransformer'
    }
    adopted = sum(o.state == 'adopted' for o in outcomes)
    assert adopted > 0.7 * len(outcomes)
