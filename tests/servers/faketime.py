"""Programs that are told another time: libfaketime, as Debian's package faketime brings it."""

import shutil
import subprocess
import time

from tests.impossible import impossible

ENVIRONMENT = {"TZ": "UTC", "NO_FAKE_STAT": "1"}
"""Only the clock is false: the times of files are as they stand."""


def told(epoch: float) -> tuple[str, ...]:
    """The prefix of a command for which it is `epoch` when it starts."""
    if shutil.which("faketime") is None:
        impossible("faketime", "there is no faketime")
    return ("faketime", "-f", time.strftime("@%Y-%m-%d %H:%M:%S", time.gmtime(epoch)))


def library() -> str:
    """What LD_PRELOAD names, so that a program's clock is what FAKETIME_TIMESTAMP_FILE says."""
    told(0)  # there is a faketime
    command = ["faketime", "-f", "+0s", "sh", "-c", 'printf %s "$LD_PRELOAD"']
    return subprocess.check_output(command, text=True)
