"""A terminal that shows how a training goes; the log file has the rest."""
import logging
from typing import Any

from mmengine.hooks import LoggerHook
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from mmseg.registry import HOOKS, RUNNERS

LINES = 6  # of a message that is shown before the first iteration
NOISE = 'paramwise_options'  # messages that start so: several a parameter
# from where on all is shown: tables of results are long, too
STARTED = 'before_train_iter', 'before_val_iter', 'before_test_iter'


def is_brief(record: logging.LogRecord) -> bool:
    """Return whether a message is shown: a warning, or a short one."""
    text = record.getMessage()
    return record.levelno > logging.INFO or not (text.count('\n') >= LINES
                                                 or text.startswith(NOISE))


@RUNNERS.register_module()
class CompactRunner(Runner):
    """mmengine's Runner, whose terminal stays readable.

    Until the first iteration, environment, config, hooks, layers and options
    of each parameter, over 600 lines, go to the log file only.
    To turn it on: ``runner_type = 'CompactRunner'``.
    """

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """See :meth:`mmengine.runner.Runner.build_logger`."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:  # no file
                handler.addFilter(is_brief)
        logger.info(f'Config, environment and all messages: {self._log_dir}')
        return logger

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """See :meth:`mmengine.runner.Runner.call_hook`."""
        if fn_name in STARTED:
            for handler in self.logger.handlers:
                handler.removeFilter(is_brief)
        super().call_hook(fn_name, **kwargs)


@HOOKS.register_module()
class FirstIterationLoggerHook(LoggerHook):
    """mmengine's LoggerHook, which also logs the first iteration of a run.

    A loss and the time left are seen at once, not after ``interval``
    iterations.
    """
    first = True

    def after_train_iter(self, *args: Any, **kwargs: Any) -> None:
        """See :meth:`mmengine.hooks.LoggerHook.after_train_iter`."""
        interval = self.interval
        if self.first:
            self.first, self.interval = False, 1
        super().after_train_iter(*args, **kwargs)
        self.interval = interval
