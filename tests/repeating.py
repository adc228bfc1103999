"""`sapd run --for`, beside a test."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers.rsyslog import wait_until
from tests.site import Site

_REPEAT = (
    "import sys; from sapd import messages; from sapd.repeat import repeat\n"
    "path, duration, every = sys.argv[1], *map(float, sys.argv[2:])\n"
    "sys.exit(messages.status_of(lambda: repeat(path, duration, every)))"
)


class Repeated:
    """Passes on a site, from `with` to its end; `every` and `duration` in seconds.

    The command line takes whole seconds only, which would have every test wait.
    """

    def __init__(
        self,
        site: Site,
        every: float = 0.05,
        duration: float = 30,
        *,
        prefix: tuple[str, ...] = (),
        python: str = sys.executable,
        env: dict[str, str] | None = None,
    ) -> None:
        self.site = site
        self.prefix = prefix
        numbers = (str(duration), str(every))
        # Whatever the caller of the tests ignores, as `nohup` and `&` have it.
        self.command = [
            "env",
            "--default-signal",
            *prefix,
            python,
            "-c",
            _REPEAT,
            str(site.config),
            *numbers,
        ]
        self.env = {**os.environ, **(env or {})}

    def __enter__(self) -> Self:
        """Start it."""
        self.process = subprocess.Popen(
            self.command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.env,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        """End it; if the test was content, it must have been silent up to what was asked for."""
        if self.process.poll() is None:
            if kind is None:
                self.end()
            self.process.kill()
        self.process.communicate()

    def ends(self, status: int = 0) -> list[str]:
        """Wait for its end, which must be with `status`; the lines that it said."""
        said, complaints = self.process.communicate(timeout=20)
        assert (self.process.returncode, said) == (status, ""), complaints
        return complaints.splitlines()

    def end(self, status: int = 0) -> list[str]:
        """Have it end, once it has begun a pass: from then on a signal waits for its end."""
        wait_until((self.site.state.parent / "lock").exists)
        if not self.prefix:  # the lock may be another's
            wait_until(self._waits_for_signals)
        self.process.send_signal(signal.SIGTERM)
        return self.ends(status)

    def _waits_for_signals(self) -> bool:
        """Whether the process has SIGTERM blocked; proc(5)."""
        about = Path(f"/proc/{self.process.pid}/status").read_text()
        blocked = int(about.split("SigBlk:")[1].split()[0], 16)
        return bool(blocked >> signal.SIGTERM - 1 & 1)
