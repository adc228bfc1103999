"""Pass after pass in one process, so that nobody waits for cron's next minute.

Where nothing happened a turn costs what looking at a dozen files does (`idle`). Configuration and
state are read again only when they look different. Each pass takes the lock for itself, so that
another run, by hand or of the next minute, is never in the way.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from sapd import config, errors, files, messages, run
from sapd.events import formats
from sapd.idle import Snapshot, nothing_happened
from sapd.report import Report
from sapd.state import SavedState

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def repeat(path: str, duration: float, every: float, *, verbose: int = 0) -> int:
    """Run a pass now and `every` so many seconds, until `duration` is over or a signal comes.

    `path` is the configuration's. A signal waits for the end of a pass. What a pass complains of is
    said when the one before did not. It ends early where another turn would be of no use, and a new
    process is: see `_Passes.turn`. Returns the last pass's exit status; 75 if others held the lock
    all the time.
    """
    ending = {number for number in _ENDING if signal.getsignal(number) != signal.SIG_IGN}  # nohup
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    passes = _Passes(path, verbose)
    start, turn = time.monotonic(), 0
    while turn * every <= duration:
        pause = max(start + turn * every - time.monotonic(), 0)
        if signal.sigtimedwait(ending, pause) is not None or not passes.turn():
            break
        turn = max(turn + 1, int((time.monotonic() - start) / every))
    return passes.status


class _Passes:
    def __init__(self, path: str, verbose: int) -> None:
        self.status = 0
        self._path = path
        self._verbose = verbose
        self._user = os.geteuid()
        self._config: config.Config | None = None
        self._saved: SavedState | None = None
        self._told: set[str] = set()
        self._locked_out = True

    def turn(self) -> bool:
        """Run a pass if anything happened; whether another turn is of use.

        It is not if the configuration changed since root became another user, who may have no
        right to read it; nor if the state can't be used: each pass would read the logs from the
        window's edge, and tell the trail everything again.
        """
        report, useful = Report(), True
        try:
            if not nothing_happened(self._path):
                settings = self._settings()
                if settings is None:
                    return False
                if self._saved is None or self._saved.directory != settings.state_directory:
                    self._saved = SavedState(settings.state_directory)
                report = run.once(settings, saved=self._saved)
                useful = self._saved.snapshot is not None
        except files.Locked as locked:
            if locked.complaint:
                messages.complain("error", locked.complaint)
            if self._locked_out:
                self.status = errors.LOCKED
            return True
        except config.Mistake as mistake:
            report = self._close_only(mistake)
            useful = os.geteuid() == self._user
        except errors.SapdError as problem:
            report.problems.append(problem)
            useful = os.geteuid() == self._user
        self._locked_out = False
        self.status = report.status
        self._told = messages.tell_what_is_new(report, self._told, verbose=self._verbose)
        return useful

    def _close_only(self, mistake: config.Mistake) -> Report:
        from sapd.closing import close_only

        with suppress(files.Locked):
            return close_only(self._path, mistake)
        report = Report()
        report.problems += [mistake, *mistake.others]
        return report

    def _settings(self) -> config.Config | None:
        """The configuration as it is; None if it changed, and may not be readable any more."""
        known = self._config
        if known is not None:
            if known.snapshot.unchanged():
                return known
            if os.geteuid() != self._user:
                return known if known.snapshot == Snapshot(known.snapshot) else None
        formats.load.cache_clear()
        self._config = config.load(self._path)
        return self._config
