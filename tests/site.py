"""A private site: configuration, log, the administrator's map and state in one folder."""

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests import needs

MAKEMAP = "/usr/sbin/makemap"


def login(address: str, account: str = "bob", at: float | None = None, pid: int = 4242) -> str:
    """A qpopper login line, stamped in UTC to the second, newline included."""
    stamp = datetime.fromtimestamp(int(time.time() if at is None else at), UTC).isoformat()
    return (
        f'{stamp} mx1 popper[{pid}]: (v4.0.5) POP login by user "{account}" '
        f"at (client.example.net) {address} [pop_log.c:244]\n"
    )


def logout(address: str, account: str = "bob", at: float | None = None, pid: int = 4242) -> str:
    """The line that qpopper writes at the end of such a session."""
    head = login(address, account, at, pid).partition(" (v4.0.5) ")[0]
    return f"{head} Stats: {account} 0 0 3 4310 client.example.net {address} [pop_updt.c:195]\n"


def when(epoch: float) -> str:
    """A moment as `--at` and sapd's own words have it."""
    return datetime.fromtimestamp(int(epoch), UTC).astimezone().isoformat()


def utc(epoch: float) -> str:
    """The same as files and `--json` have it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))


def noise(number: int, at: float | None = None) -> str:
    """A line of another program, about as long as a login."""
    stamp = datetime.fromtimestamp(int(time.time() if at is None else at), UTC).isoformat()
    return f"{stamp} mx1 sm-mta[77]: 4AMBf{number:07d}: from=<a@example.net>, size=1234, nrcpts=1\n"


class Site:
    """Runs sapd as cron would, on files of its own.

    The administrator's entries and the map are in ``mail``, by default the folder of all the rest.
    """

    def __init__(
        self,
        folder: Path,
        window: str = "30m",
        log_settings: str = "",
        mail: Path | None = None,
    ) -> None:
        self.folder = folder
        self.log = folder / "qpopper"
        self.source = (mail or folder) / "access"
        self.database = (mail or folder) / "access.db"
        self.state = folder / "state" / "state.json"
        self.audit = folder / "state" / "audit.jsonl"
        self.config = folder / "sapd.toml"
        self.log.touch()
        self.source.write_text("Connect:198.51.100.9\tRELAY\n")
        self.configure(window, log_settings)

    def configure(
        self, window: str = "30m", log_settings: str = "", access_settings: str = "", top: str = ""
    ) -> None:
        mail = "" if self.source.parent == self.folder else f"{self.source.parent}/"
        self.config.write_text(
            f'window = "{window}"\n{top}\n'
            f'[[log]]\npath = "qpopper"\n{log_settings}\n'
            f'[access]\nsource = "{mail}access"\ndatabase = "{mail}access.db"\n{access_settings}\n'
            '[state]\ndirectory = "state"\n'
        )

    def write(self, *lines: str) -> None:
        with self.log.open("a") as file:
            file.write("".join(lines))

    def sapd(
        self,
        *args: str,
        env: dict[str, str] | None = None,
        prefix: tuple[str, ...] = (),
        python: str = sys.executable,
    ) -> subprocess.CompletedProcess[str]:
        command, *rest = args
        before = self._look()
        done = subprocess.run(
            [*prefix, python, "-m", "sapd", command, "-c", str(self.config), *rest],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={**os.environ, **(env or {})},
        )
        if self._look() != before:
            needs.ask("makemap", "has sapd start makemap")
        return done

    def _look(self) -> os.stat_result | None:
        return self.database.stat() if self.database.exists() else None

    def run(self, *args: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """`sapd run` that must end with `status`; without problems it must be silent."""
        done = self.sapd("run", *args)
        assert done.returncode == status, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        if status == 0 and not args:
            assert (done.stdout, done.stderr) == ("", "")
        return done

    def open_addresses(self) -> set[str]:
        """The addresses that `sapd list` calls open."""
        rows: list[dict[str, Any]] = json.loads(self.sapd("list", "--json").stdout)
        return {row["address"] for row in rows}

    def entries(self) -> dict[str, str]:
        """What the database holds, by makemap's own reading."""
        dump = subprocess.run(
            [MAKEMAP, "-u", "hash", str(self.database)], capture_output=True, text=True, check=True
        )
        return dict(line.split("\t", 1) for line in dump.stdout.splitlines())

    def relaying(self) -> set[str]:
        """The addresses whose entries in the database say RELAY, the administrator's included."""
        return {
            key.removeprefix("connect:")
            for key, value in self.entries().items()
            if value == "RELAY"
        }

    def rewrite_state(self, **changes: object) -> None:
        self.state.write_text(json.dumps({**json.loads(self.state.read_text()), **changes}))
