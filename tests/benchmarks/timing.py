"""Commands timed in alternation, in processor time: that of others at work is not in it."""

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Took(NamedTuple):
    """One command's processor time in seconds, and its peak memory in MiB.

    Of the programs that it starts, time is added up, and memory is that of the largest.
    """

    seconds: float
    memory: float


_STARTER = """
import os, sys
pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, ended, usage = os.wait4(pid, 0)
seconds = usage.ru_utime + usage.ru_stime
os.write(int(sys.argv[1]), b"%d %f %d" % (ended, seconds, usage.ru_maxrss))
"""
"""A small process that starts the command: its memory counts as the command's until that begins."""


def run(command: Sequence[str], status: int = 0) -> Took:
    """Run a command to its end; what it prints goes through a pipe, as grep counts faster else."""
    heard, said = os.pipe()
    starter = [sys.executable, "-S", "-c", _STARTER, str(said), *command]
    with subprocess.Popen(starter, stdout=subprocess.PIPE, pass_fds=[said]) as process:
        os.close(said)
        assert process.stdout is not None
        process.stdout.read()
    with open(heard, "rb") as file:
        ended, seconds, memory = file.read().split()
    if os.waitstatus_to_exitcode(int(ended)) != status:
        sys.exit(f"{' '.join(command)}: status {ended.decode()}")
    return Took(float(seconds), int(memory) / 1024)


class Side(NamedTuple):
    """A command, and what is to be done before each time, untimed."""

    command: Sequence[str]
    before: Callable[[], object] = lambda: None


class Result(NamedTuple):
    """What two sides took, pair by pair."""

    ours: list[Took]
    peers: list[Took]

    @property
    def ratios(self) -> list[float]:
        """Ours to the peer's, pair by pair."""
        pairs = zip(self.ours, self.peers, strict=True)
        return [ours.seconds / peer.seconds for ours, peer in pairs]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def worst(self) -> float:
        return max(self.ratios)

    @property
    def memory(self) -> float:
        return max(took.memory for took in self.ours)


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
