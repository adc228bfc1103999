"""Commands timed in alternation."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Took(NamedTuple):
    """One command's seconds, and its peak memory in MiB."""

    seconds: float
    memory: float


def run(command: Sequence[str], status: int = 0) -> Took:
    """Run a command to its end; what it prints goes through a pipe, as grep counts faster else."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read()
        _, ended, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(ended)
    if process.returncode != status:
        sys.exit(f"{' '.join(command)}: status {process.returncode}")
    return Took(seconds, usage.ru_maxrss / 1024)


class Side(NamedTuple):
    """A command, and what is to be done before each time, untimed."""

    command: Sequence[str]
    before: Callable[[], object] = lambda: None


class Result(NamedTuple):
    """The medians, and the spread, of two sides."""

    ours: list[Took]
    peers: list[Took]

    @property
    def ratio(self) -> float:
        return median(self.ours) / median(self.peers)

    @property
    def memory(self) -> float:
        return max(took.memory for took in self.ours)


def median(times: list[Took]) -> float:
    return statistics.median(took.seconds for took in times)


def spread(times: list[Took]) -> str:
    """Median, least and most, in seconds or milliseconds."""
    found = [median(times), min(times).seconds, max(times).seconds]
    unit, factor = ("s", 1) if found[0] >= 1 else ("ms", 1000)
    middle, least, most = (f"{seconds * factor:.3g}" for seconds in found)
    return f"{middle} ({least} to {most}) {unit}"


def against(ours: Side, peer: Side, rounds: int, warm_up: int = 1) -> Result:
    """Time both in alternation, `warm_up` times before for nothing."""
    result = Result([], [])
    for number in range(warm_up + rounds):
        for side, times in ((ours, result.ours), (peer, result.peers)):
            side.before()
            took = run(side.command)
            if number >= warm_up:
                times.append(took)
    return result
