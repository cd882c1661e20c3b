"""The cost command: figures by hand, and heads of configs side by side."""
import pytest
import torch
from mmseg.registry import MODELS
from test_new_style import CONFIG

from cac_mmseg.__main__ import main
from cac_mmseg.commands.cost import measure
from cac_mmseg.stack.analysis import saved_bytes
from cac_mmseg.stack.config import find_config, load_config

OURS = 'cac_mit-b2_ade20k'


def rows_of(output):
    """The cells of the last table that was printed."""
    lines = [line for line in output.splitlines() if line.startswith('|')]
    return [[cell.strip() for cell in line.strip('|').split('|')]
            for line in lines]


def test_parameters_and_multiply_adds_by_hand():
    c, n, sets, taps = 64, 8 * 16, 3, 27
    rows = {row['name']: row for row in measure(c, 8, 16)}
    cac, full = rows['CaCModule'], rows['FCKernelModule']
    # queries, keys, norm
    assert cac['parameters'] == taps * (c + 1) + sets * c * (c + 1) + 6 * c
    # queries, their products with X, keys of those, and the convolutions; BN
    # adds a little
    expected = 2 * n * c * taps + taps * c * c + taps * n * c
    assert expected <= cac['multiply_adds'] <= 1.02 * expected
    assert full['parameters'] == (c + 1) * taps * c * c + 6 * c
    assert full['multiply_adds'] == (c + n) * taps * c * c
    assert rows['IdentityModule (FCN)']['parameters'] == 0


def test_saved_bytes_counts_what_autograd_keeps():
    x = torch.randn(2, 8, 6, 6, requires_grad=True)
    relu, conv = torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 1)
    assert saved_bytes(relu, x) == x.numel() * 4  # its output
    assert saved_bytes(conv, x) == 0  # x and parameters
    # one tensor, kept by both
    assert saved_bytes(torch.nn.Sequential(relu, conv), x) == x.numel() * 4


def test_heads_of_configs_are_timed_beside_the_first(tmp_path, monkeypatch,
                                                     capsys):
    monkeypatch.setenv('FORCE_COLOR', '1')  # as to a terminal
    (tmp_path / 'new.py').write_text(CONFIG)  # which has classes for names
    pid, ocr = ('pidnet-s_2xb6-120k_1024x1024-cityscapes',
                'ocrnet_hr18s_4xb2-40k_cityscapes-512x1024')
    main(['cost', OURS, pid, ocr, f'{tmp_path}/new.py'] +
         '--size 32 64 --time --rounds 1'.split())
    out, err = capsys.readouterr()
    heading, _, first, refused, cascade, new = rows_of(out)
    assert heading[0] == 'decode head, 32 x 64' and refused[0] == pid
    assert first[0] == f'CaCHead, {OURS}' and new[0] == 'FCNHead, new'
    assert cascade[0] == f'FCNHead+OCRHead, {ocr}'
    assert 'PIDNet has other feature maps' in refused[-1]
    head = load_config(find_config(OURS)[0]).model.decode_head
    head.norm_cfg.type = 'BN'
    count = sum(p.numel() for p in MODELS.build(head).parameters())
    assert first[1] == f'{count:,}'
    column = heading.index('step over the first')
    assert first[column] == '1.00' and float(cascade[column]) > 0
    assert 'measuring' in err and f'torch {torch.__version__}' in out


def test_a_head_that_does_not_train_is_named_beside_its_size(capsys):
    with pytest.raises(SystemExit):  # as none runs
        main(['cost', OURS, *'--size 32 32 --time --batch 1'.split()])
    heading, _, row = rows_of(capsys.readouterr().out)
    assert heading[1] == 'parameters' and int(row[1].replace(',', ''))
    assert heading[-1] == 'does not run here' and 'ValueError: ' in row[-1]


def test_without_a_config_the_re_weightings_are_listed(capsys):
    main(['cost', '--channels', '32', '--size', '8', '16'])
    heading, _, *rows = rows_of(capsys.readouterr().out)
    assert heading[0] == 're-weighting' and len(rows) == 7
    with pytest.raises(SystemExit):
        main(['cost', '--time'])
    assert '--time needs a CONFIG' in capsys.readouterr().err
