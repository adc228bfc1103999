"""Passes in the tests' own process, where hundreds take seconds, and under any clock."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from sapd import config, run
from sapd.report import Report
from tests.site import Site

OWN = "198.51.100.9"
"""The entry of the administrator's in a `Site`, which is there whatever happens."""


class Passes:
    """Makes passes of a site, and says whom the map then lets in."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.config = config.load(str(site.config))
        self.report = Report()

    def at(self, now: float | None = None) -> set[str]:
        """A pass as of now, or as with `--at`; it must end without problems."""
        self.report = run.once(self.config, now)
        assert self.report.problems == []
        return self.relaying()

    def by_clock(self, now: float) -> set[str]:
        """A pass on a machine whose clock says `now`."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run, "time", wall_clock(lambda: now))
            return self.at()

    def relaying(self) -> set[str]:
        """Whom the map lets in, without the administrator's own."""
        return self.site.relaying() - {OWN}

    def write(self, clock: float, *lines: str) -> None:
        """Append to the log as of a clock, which the file's time then shows."""
        self.site.write(*lines)
        os.utime(self.site.log, (clock, clock))


def wall_clock(says: Callable[[], float]) -> SimpleNamespace:
    """The module `time`, with another wall clock; what a reading may take goes by the real one."""
    return SimpleNamespace(time=says, monotonic=time.monotonic)


@contextmanager
def site_in_memory() -> Iterator[Site]:
    """A site whose files need no disk: where nothing hangs on it, passes are faster so."""
    with tempfile.TemporaryDirectory(prefix="sapd-test-", dir="/dev/shm") as folder:
        yield Site(Path(folder))
