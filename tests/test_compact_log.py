"""The terminal of a training: few lines, then the first loss."""
import logging

from mmseg.registry import RUNNERS
from toy_runs import short_run

from cac_mmseg.hooks.compact_log import is_brief


def test_the_first_loss_comes_after_few_lines(tmp_path, capfd):
    cfg = short_run(tmp_path / 'work', 3)
    cfg.default_hooks.logger.interval = 3
    # with a line for each option of each parameter
    cfg.optim_wrapper.paramwise_cfg = dict(norm_decay_mult=0.)
    runner = RUNNERS.build(cfg)
    runner.train()
    lines = capfd.readouterr().out.splitlines()
    first = next(i for i, line in enumerate(lines) if 'loss:' in line)
    assert first <= 30 and '[1/3]' in lines[first] and 'eta' in lines[first]
    assert sum('Iter(train)' in line for line in lines) == 2
    assert any('| background |' in line for line in lines)  # IoU of classes
    log, = (tmp_path / 'work').glob('*/*.log')
    text = log.read_text()
    assert str(log.parent) in '\n'.join(lines[:first])
    for part in ('System environment', 'Config:', 'Hooks will be executed'):
        assert part in text and part not in '\n'.join(lines)
    assert text.count('paramwise_options') > 10


def test_warnings_and_short_messages_are_shown():

    def shown(level, text):
        return is_brief(
            logging.LogRecord('mmengine', level, '', 0, text, (), None))

    assert shown(logging.INFO, 'Load weights')
    assert not shown(logging.INFO, 'paramwise_options -- a:lr=1')
    assert not shown(logging.INFO, 'a\n' * 10)
    assert shown(logging.WARNING, 'a\n' * 10)
    assert shown(logging.WARNING, 'Load nothing')


def test_a_run_that_failed_leaves_no_filter(tmp_path):
    for _ in range(2):  # loggers are shared by their name
        cfg = short_run(tmp_path, 1, experiment_name='same')
        runner = RUNNERS.build(cfg)
    runner._hooks.clear()
    runner.call_hook('before_test_iter')
    assert not any(is_brief in handler.filters
                   for handler in runner.logger.handlers)
