"""The cost command against figures that can be derived by hand."""
import torch

from cac_mmseg import CaCModule, ChannelAttentionModule
from cac_mmseg.__main__ import main
from cac_mmseg.commands.cost import measure
from cac_mmseg.stack.analysis import saved_bytes


def test_parameters_and_multiply_adds_by_hand():
    c, h, w, s, sets = 64, 8, 16, 3, 3
    n = h * w
    rows = {row['name']: row for row in measure(c, h, w)}
    cac = rows['CaCModule']
    query, key = sets * s * s * (c + 1), sets * c * (c + 1)
    assert cac['parameters'] == query + key + 2 * sets * c
    # queries, their products with X, keys of those, and the convolutions; BN
    # adds a little
    expected = 2 * n * c * sets * s * s + sets * c * c * s * s \
        + sets * s * s * n * c
    assert expected <= cac['multiply_adds'] <= 1.02 * expected

    full = rows['FCKernelModule']
    weights = sets * c * c * s * s
    assert full['parameters'] == (c + 1) * weights + 2 * sets * c
    assert full['multiply_adds'] == c * weights + n * weights
    assert rows['IdentityModule (FCN)']['parameters'] == 0


def test_saved_bytes_counts_what_autograd_keeps():
    x = torch.randn(2, 8, 6, 6, requires_grad=True)
    n = x.numel() * 4
    assert saved_bytes(torch.nn.ReLU(), x) == n  # its output
    assert saved_bytes(torch.nn.Conv2d(8, 8, 1), x) == 0  # x and parameters
    two = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 1))
    assert saved_bytes(two, x) == n  # one tensor, kept by both
    # the channel weights, before and after the sigmoid: nothing of x's size
    assert saved_bytes(ChannelAttentionModule(8), x) < n / 4
    assert saved_bytes(CaCModule(8), x) > 0


def test_prints_a_table(capsys):
    main(['cost', '--channels', '32', '--size', '8', '16'])
    heading, _, *rows = capsys.readouterr().out.splitlines()
    assert 'parameters' in heading and len(rows) == 7
    assert rows[0].startswith('| CaCModule ')
