"""adopt: what it writes for configs of several families, and what it refuses.
"""
import random

import pytest
from conftest import SEED, build
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope

from cac_mmseg import config_path
from cac_mmseg.commands.adopt.derive import choose_maps
from cac_mmseg.stack.config import MMSEG_CONFIGS, load_config
from tools.checks import adopt_check

SMALL = 'crop_size = (64, 128)\n'  # costs are counted at this size
FAST = 'fast_scnn_8xb4-160k_cityscapes-512x1024'


def user_config(folder, name, more=''):
    """A config of a user, in a folder of its own, on one of mmseg's."""
    base, = MMSEG_CONFIGS.glob(f'*/{name}.py')
    path = folder / 'mine.py'
    path.write_text(f"_base_ = '{base}'\n{SMALL}{more}")
    return path


@pytest.fixture
def adopt(tmp_path, monkeypatch, cli):
    """What a user gets who adopts a config, which was checked to run."""
    monkeypatch.chdir(tmp_path)

    def run(name, *options, more=''):
        path = user_config(tmp_path, name, more)
        code, out = cli('adopt mine.py', *options)
        assert code == 0, out
        text = (tmp_path / 'cac_mine.py').read_text()
        assert text.startswith("_base_ = 'mine.py'\n")
        return load_config(path), load_config(tmp_path / 'cac_mine.py'), out

    return run


def test_one_feature_map(adopt):
    more = ("custom_imports = dict(imports='math')\n"
            "norm_cfg = dict(type='BN', requires_grad=True)\n"
            'model = dict(decode_head=dict(\n'
            '    norm_cfg=norm_cfg, ignore_index=7, sampler=dict(\n'
            "        type='OHEMPixelSampler', thresh=0.7, min_kept=100)))\n")
    before, after, out = adopt(
        'pspnet_r18-d8_4xb2-80k_cityscapes-512x1024',
        *'--channels 32 --heads 2'.split(),
        more=more)
    old, new = before.model.decode_head, after.model.decode_head
    kept = ('num_classes', 'dropout_ratio', 'norm_cfg', 'loss_decode',
            'ignore_index', 'sampler', 'align_corners')
    assert new == dict(
        {key: old[key] for key in kept}, type='CaCHead', in_channels=512,
        in_index=3, channels=32, num_heads=2)  # yapf: disable
    assert after.custom_imports.imports == ['math', 'cac_mmseg']
    hooks = {*after.default_hooks} - {*before.default_hooks}
    assert {after.default_hooks[name].type for name in hooks} == {
        'PreflightHook', 'ReportHook'}  # yapf: disable
    for key in {*before} - {'model', 'custom_imports', 'default_hooks'}:
        assert after[key] == before[key]
    for key in {*before.model} - {'decode_head'}:
        assert after.model[key] == before.model[key]
    assert 'PreflightHook and ReportHook come with it' in out
    assert out.endswith('mim train mmsegmentation cac_mine.py\n')
    head = build(ConfigDict(new, norm_cfg=dict(type='BN')))
    count = sum(p.numel() for p in head.parameters())
    row, = (row for row in out.splitlines() if row.startswith('| CaCHead'))
    assert f'{count:,}' in row


def test_hooks_may_be_left_out_and_paths_have_spaces(tmp_path, monkeypatch,
                                                     cli):
    folder = tmp_path / 'für mich'
    folder.mkdir()
    # in a batch of one, the pooled branch cannot have BN
    more = ('train_dataloader = dict(batch_size=1)\n'
            "model = dict(decode_head=dict(norm_cfg=dict(type='BN')))\n")
    path = user_config(folder, FAST, more)
    monkeypatch.chdir(tmp_path)
    name = 'für mich/mit Kontext.py'
    out = cli('adopt --no-hooks', path, '--out', name)[1]
    assert f"mim train mmsegmentation '{name}'" in out
    adopted = load_config(name)
    assert adopted.default_hooks == load_config(path).default_hooks
    assert adopted.model.decode_head.pool_norm_cfg is None
    # what has them gets no second ones
    (tmp_path / 'ours.py').write_text(
        f"_base_ = '{config_path('cac_r50_cityscapes')}'\n{SMALL}"
        "model = dict(decode_head=dict(_delete_=True, type='FCNHead', "
        'in_channels=2048, channels=64, num_classes=19))\n')
    cli('adopt ours.py')
    assert 'default_hooks' not in (tmp_path / 'cac_ours.py').read_text()


def test_cascade(adopt):
    before, after, out = adopt('ocrnet_hr18s_4xb2-40k_cityscapes-512x1024')
    assert after.model.type == 'EncoderDecoder'
    assert 'num_stages' not in after.model
    assert after.model.auxiliary_head == [before.model.decode_head[0]]
    assert after.model.decode_head.input_transform == 'resize_concat'
    for key in ('backbone', 'data_preprocessor', 'pretrained', 'test_cfg'):
        assert after.model[key] == before.model[key]
    assert 'auxiliary head now' in out


def test_several_feature_maps(adopt):
    """A map that is not read leaves parameters unused."""
    _, after, out = adopt(
        'swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512')
    head = after.model.decode_head
    assert head.in_index == [1, 2, 3] and head.in_channels == [192, 384, 768]
    assert head.num_classes == 150 and after.find_unused_parameters
    assert 'not those below stride 8' in out
    assert 'reaches backbone.norm0.weight, backbone.norm0.bias\n' in out


@pytest.mark.slow
def test_iterations_and_position_embeddings(adopt, tmp_path):
    """K-Net's last stages go; a transformer without norm gets SyncBN."""
    _, after, _ = adopt('segmenter_vit-s_mask_8xb1-160k_ade20k-512x512')
    head = after.model.decode_head
    assert head.in_channels == 384 and head.norm_cfg.type == 'SyncBN'
    (tmp_path / 'cac_mine.py').unlink()
    before, after, _ = adopt(
        'knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512')
    generate = before.model.decode_head.kernel_generate_head
    assert after.model.decode_head.channels == generate.channels
    assert after.model.auxiliary_head == before.model.auxiliary_head


def test_name_dry_run_and_existing_file(tmp_path, monkeypatch, cli):
    monkeypatch.chdir(tmp_path)
    out = cli(f'adopt {FAST} --dry-run')[1]
    assert not [*tmp_path.iterdir()]
    path, = MMSEG_CONFIGS.glob(f'*/{FAST}.py')
    assert f"_base_ = '{path}'" in out
    written = tmp_path / f'cac_{FAST}.py'
    written.write_text('kept')
    code, out = cli(f'adopt {FAST}')
    assert code == 2 and 'exists' in out
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
def test_refused_in_one_line(name, tmp_path, monkeypatch, cli):
    monkeypatch.chdir(tmp_path)
    code, out = cli(f'adopt {name}')
    assert code == 2 and REFUSED[name] in out.splitlines()[-1]
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


def test_a_model_that_does_not_run_is_no_adoption(tmp_path, monkeypatch, cli):
    loss = "loss_decode=dict(_delete_=True, type='BoundaryLoss')"
    more = f'model = dict(decode_head=dict({loss}))\n'
    path = user_config(tmp_path, FAST, more)
    monkeypatch.chdir(tmp_path)
    code, out = cli('adopt mine.py')
    assert code == 2 and 'the adopted model does not run' in out
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.slow
def test_kinds_of_config_of_mmseg():
    """Other ones in every run; adopt_check itself takes all of them."""
    init_default_scope('mmseg')
    paths = adopt_check.all_configs()
    assert len(paths) > 600
    paths = random.Random(SEED).sample(paths, 30)
    outcomes = [*adopt_check.survey(paths, quick=True)]
    print(adopt_check.tables(outcomes))
    assert len(outcomes) > 10
    assert not [o for o in outcomes if o.state == 'failed']
    # a refusal has a reason that has been thought of
    reasons = {o.detail.split()[0] for o in outcomes if o.state == 'refused'}
    assert reasons <= {
        'DDRNet', 'DepthEstimator', 'Failed', 'Mask2FormerHead', 'its',
        'MaskFormerHead', 'MultimodalEncoderDecoder', 'PIDNet', 'PointHead',
        'VisionTransformer'
    }
    assert sum(o.state == 'adopted' for o in outcomes) > len(outcomes) / 2
