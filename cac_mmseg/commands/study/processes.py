"""Runs in processes of their own, and how far they are."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import Dict, List, Sequence

import torch
from rich.progress import (BarColumn, MofNCompleteColumn, Progress, TaskID,
                           TextColumn, TimeElapsedColumn, TimeRemainingColumn)

from ...utils.files import make_folder, new_file
from .plan import Run

POLL = 1.0  # seconds


def execute(runs: Sequence[Run], jobs: int) -> List[Run]:
    """Carry out runs, ``jobs`` at a time, and show the time that is left.

    Args:
        runs: Those to be carried out; what is in their folders is removed.
        jobs: Processes. Without a GPU they share the processor's cores; with
            several GPUs they are spread over them.

    Returns:
        The runs that failed; each has a ``log.txt``.
    """
    # noted, not raised: amid the start of a process it would be left behind
    stopped: List[int] = []
    previous = {
        number: signal.signal(number, lambda *_: stopped.append(1))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    waiting, failed = list(runs), []
    running: Dict[int, _Process] = {}
    progress = Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        'iterations',
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        speed_estimate_period=600)
    total = progress.add_task(
        f'{len(runs)} runs', total=sum(run.iterations for run in runs))
    done = 0
    with progress:
        try:
            while (waiting or running) and not stopped:
                for slot in range(jobs):
                    if waiting and slot not in running:
                        running[slot] = _Process(
                            waiting.pop(0), slot, jobs, progress)
                time.sleep(POLL)
                for slot, process in [*running.items()]:
                    if process.poll():
                        del running[slot]
                        done += process.run.iterations
                        failed += [] if process.succeeded else [process.run]
                progress.update(
                    total,
                    completed=done + sum(process.iteration
                                         for process in running.values()))
        finally:
            for process in running.values():
                process.stop()
            for number, handler in previous.items():
                signal.signal(number, handler)
    if stopped:
        sys.exit('stopped: the same command goes on with what is missing')
    return failed


class _Process:
    """A run that is under way."""

    def __init__(self, run: Run, slot: int, jobs: int,
                 progress: Progress) -> None:
        self.run = run
        self.iteration = 0
        self.progress = progress
        self.task: TaskID = progress.add_task(str(run), total=run.iterations)
        shutil.rmtree(run.folder, ignore_errors=True)
        make_folder(run.folder)
        with new_file(run.config_file) as file:
            run.config.dump(file)
        with open(run.folder / 'log.txt', 'w') as log:
            self.process = subprocess.Popen([
                sys.executable, '-m', f'{__package__}.worker',
                str(run.folder)
            ],
                                            stdout=log,
                                            stderr=subprocess.STDOUT,
                                            env={
                                                **os.environ,
                                                **_share(slot, jobs)
                                            })

    def poll(self) -> bool:
        """Look how far it is; return whether it has ended."""
        for log in self.run.folder.glob('work_dir/*/vis_data/scalars.json'):
            lines = log.read_text().splitlines()
            # the last one may be half written
            for line in lines[-1:-3:-1]:
                try:
                    self.iteration = json.loads(line)['step']
                    break
                except ValueError:
                    continue
        self.progress.update(self.task, completed=self.iteration)
        if self.process.poll() is None:
            return False
        self.progress.remove_task(self.task)
        self.progress.console.print(f'{self.run}: {self._outcome()}')
        return True

    def _outcome(self) -> str:
        if not self.succeeded:
            return f'failed, see {self.run.folder / "log.txt"}'
        result = json.loads(self.run.result_file.read_text())
        return (f'mIoU {result["curve"][-1][1]:.2f}, '
                f'{result["seconds_per_iteration"]:.3f} s an iteration')

    @property
    def succeeded(self) -> bool:
        """Whether it has come to its end."""
        return self.run.result_file.is_file()

    def stop(self) -> None:
        """End it now."""
        self.process.terminate()
        self.process.wait()


def _share(slot: int, jobs: int) -> Dict[str, str]:
    """Environment of a process: its threads, or its GPU."""
    count = torch.cuda.device_count()
    if not count:
        cores = len(os.sched_getaffinity(0)) if hasattr(
            os, 'sched_getaffinity') else os.cpu_count()
        return dict(OMP_NUM_THREADS=str(max(1, cores // jobs)))
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    names = visible.split(',') if visible else [*map(str, range(count))]
    return dict(CUDA_VISIBLE_DEVICES=names[slot % count])
