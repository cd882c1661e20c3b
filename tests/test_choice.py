"""Which implementation a GPU gets; there need not be one."""
import sys
from types import SimpleNamespace

import pytest
import torch

from cac_mmseg import ops
from cac_mmseg.ops import choice

GPU = torch.device('cuda', 0)


@pytest.fixture
def machine(monkeypatch):
    """An H100 with all that Triton needs."""
    monkeypatch.delenv(choice.VARIABLE, raising=False)
    monkeypatch.setattr(choice, '_obstacle', choice._obstacle.__wrapped__)
    monkeypatch.setattr(torch.version, 'hip', None)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda _: (9, 0))
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda _: 'NVIDIA H100')
    monkeypatch.setitem(sys.modules, 'triton',
                        SimpleNamespace(__version__='3.6.0'))
    monkeypatch.setattr(choice.shutil, 'which', lambda name: f'/bin/{name}')
    monkeypatch.setattr(choice.Path, 'is_file', lambda _: True)
    return monkeypatch


def test_triton_where_there_is_all_that_it_needs(machine):
    assert choice.why_not_triton(GPU) is None
    assert choice.why_not_triton(torch.device('cpu')) == 'not a GPU'


@pytest.mark.parametrize('where, name, value, word', [
    (torch.version, 'hip', '6.2', 'not measured on NVIDIA H100'),
    (torch.cuda, 'get_device_capability', lambda _: (8, 0), 'not measured on'),
    (choice.shutil, 'which', lambda _: None, 'install gcc'),
    (choice.Path, 'is_file', lambda _: False, 'install python3-dev'),
])
def test_what_is_missing_is_named(machine, where, name, value, word):
    machine.delenv('CC', raising=False)
    machine.setattr(where, name, value)
    assert word in choice.why_not_triton(GPU)
    machine.setenv(choice.VARIABLE, '1')  # then Triton names it, if at all
    assert choice.why_not_triton(GPU) is None


def test_the_variable_decides(machine):
    machine.setenv(choice.VARIABLE, '0')
    assert choice.why_not_triton(GPU) == 'CAC_MMSEG_TRITON=0'
    machine.setenv(choice.VARIABLE, 'yes')
    with pytest.raises(ValueError, match="must be 1 .* got 'yes'"):
        choice.why_not_triton(GPU)


@pytest.mark.parametrize('module, words', [
    (None, 'pip install triton'),
    (SimpleNamespace(__version__='3.2.0'), 'Triton 3.2.0, below 3.6'),
])
def test_triton_has_to_be_there_and_new(machine, module, words):
    machine.setitem(sys.modules, 'triton', module)
    assert words in choice.why_not_triton(GPU)


def test_kernels_that_cannot_be_imported_say_what_they_need(monkeypatch):
    monkeypatch.setattr(choice, 'why_not_triton', lambda *_: None)
    monkeypatch.setitem(sys.modules, 'cac_mmseg.ops.triton_pooling', None)
    with pytest.raises(ImportError, match='Triton 3.6 or newer .*TRITON=0'):
        ops.pool_queries(
            torch.rand(1, 2, 3, 3), torch.rand(1, 2), torch.rand(1))


def test_more_taps_than_were_measured_need_the_variable(machine):
    assert choice.why_not_triton(GPU, 27) is None
    assert '36 taps' in choice.why_not_triton(GPU, 36)
    machine.setenv(choice.VARIABLE, '1')
    assert choice.why_not_triton(GPU, 36) is None


@pytest.mark.parametrize('value, line', [
    ('', 'ok    kernels: Triton'),
    ('0', 'note  kernels: PyTorch calls: CAC_MMSEG_TRITON=0'),
])
def test_doctor_names_the_choice(machine, cli, value, line):
    machine.setenv(choice.VARIABLE, value)
    machine.setattr(torch.cuda, 'is_available', lambda: True)
    machine.setattr(torch.cuda, 'device_count', lambda: 1)
    assert line in cli('doctor')[1]
