"""Carry out runs, each in its own process, and show their progress.

A process of its own for each run and not a pool's: where one is killed, as for
its memory, those of concurrent.futures and joblib give up all others, too.
"""
import os
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Dict, Iterator, List, Sequence

import torch
from rich.progress import Progress, TimeElapsedColumn

from cac_mmseg.stack.files import make_folder, new_file
from cac_mmseg.stack.words import counted
from .plan import Run
from .results import load_run

POLL = 1.0  # seconds


def execute(runs: Sequence[Run], jobs: int) -> List[Run]:
    """Carry out runs, ``jobs`` at a time, and show the time that is left.

    SIGINT and SIGTERM end the runs, then this process.

    Args:
        runs: Those to be carried out; what is in their folders is removed.
        jobs: Processes. Without a GPU they share the processor's cores, or
            have ``OMP_NUM_THREADS`` threads each, if that is set; with several
            GPUs they are spread over them.

    Returns:
        The runs that failed; each has a ``log.txt``.
    """
    stopped = Event()
    todo = iter(runs)  # from which each slot takes its next one
    progress = Progress(
        *Progress.get_default_columns(),
        TimeElapsedColumn(),
        speed_estimate_period=600)
    total = progress.add_task(
        counted(len(runs), 'run'), total=sum(run.iterations for run in runs))

    def carry_out(run: Run, slot: int) -> None:
        task, done = progress.add_task(str(run), total=run.iterations), 0
        for iteration in _run(run, _share(slot, jobs), stopped):
            progress.update(task, completed=iteration)
            progress.advance(total, iteration - done)
            done = iteration
        progress.remove_task(task)
        if not stopped.is_set():
            progress.console.print(f'{run}: {_outcome(run)}')

    def work(slot: int) -> None:
        try:
            for run in todo:
                carry_out(run, slot)
        except Exception:  # as of a full disk
            stopped.set()
            raise

    previous = {
        number: signal.signal(number, lambda *_: stopped.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        with progress, ThreadPoolExecutor(jobs) as pool:
            [*pool.map(work, range(jobs))]  # raises what one has raised
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if stopped.is_set():
        sys.exit('stopped: the same command goes on with what is missing')
    return [run for run in runs if not run.result_file.is_file()]


def _run(run: Run, environment: Dict[str, str],
         stopped: Event) -> Iterator[int]:
    """Run a process to its end, or until ``stopped`` is set.

    Yields:
        How many iterations it has logged, every now and then, and at its end
        all of them, as a run that failed is done with, too.
    """
    if stopped.is_set():
        return
    shutil.rmtree(run.folder, ignore_errors=True)
    make_folder(run.folder)
    with new_file(run.config_file) as file:
        run.config.dump(file)
    line = [
        sys.executable, '-m', f'{__package__}.worker',
        str(run.folder),
        str(run.result_file)
    ]
    with open(
            run.folder / 'log.txt', 'w', encoding='utf-8'
    ) as log, subprocess.Popen(
            line,
            stdin=subprocess.PIPE,  # closes with this process: the worker ends
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | environment) as process:
        try:
            while process.poll() is None and not stopped.wait(POLL):
                yield _iteration(run)
        finally:
            process.kill()  # nothing, if it has ended
    yield run.iterations


def _iteration(run: Run) -> int:
    """Return the last iteration that a run has logged."""
    return max((int(step)
                for log in run.folder.glob('work_dir/*/vis_data/scalars.json')
                for step in re.findall('"step": ([0-9]+)', log.read_text())),
               default=0)


def _outcome(run: Run) -> str:
    if not run.result_file.is_file():
        return f'failed, see {run.folder / "log.txt"}'
    result = load_run(run.result_file)
    return (f'mIoU {result["curve"][-1][1]:.2f}, '
            f'{result["seconds_per_iteration"]:.3f} s an iteration')


def _share(slot: int, jobs: int) -> Dict[str, str]:
    """Return the environment of a process: its threads, or its GPU."""
    count = torch.cuda.device_count()
    if not count:
        # the user's value wins: two studies at a time share the cores as well
        threads = os.environ.get('OMP_NUM_THREADS') or str(
            max(1,
                torch.get_num_threads() // jobs))
        return dict(OMP_NUM_THREADS=threads)
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    names = visible.split(',') if visible else [*map(str, range(count))]
    return dict(CUDA_VISIBLE_DEVICES=names[slot % count])
