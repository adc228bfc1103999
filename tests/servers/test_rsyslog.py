"""qpopper's lines through real rsyslogd and its shipped rules, and real logrotate, into sapd."""

import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.folders import PACKAGE
from tests.servers.rsyslog import SHIPPED, Rsyslog, read, wait_until

ROOT = SHIPPED.parents[2]
TEMPLATES = [
    "RSYSLOG_TraditionalFileFormat",
    "RSYSLOG_FileFormat",  # RFC 3339
    "RSYSLOG_SyslogProtocol23Format",  # RFC 5424
]
CONFIG = """\
[[log]]
path = "qpopper"
formats = ["qpopper"]
[[log]]
path = "rest"
formats = ["qpopper"]
[access]
database = "access.db"
[state]
directory = "state"
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="sapd-") as name:
        folder = Path(name)
        (folder / "sapd.toml").write_text(CONFIG)
        (folder / "state").mkdir()
        yield folder


def login(address: str, account: str = "scanner") -> str:
    return f'(v4.1.0) POP login by user "{account}" at (client.example.com) {address}'


def sapd(folder: Path, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "sapd", *arguments, "-c", str(folder / "sapd.toml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stderr == ""
    assert result.returncode == 0
    return result.stdout


def opened(folder: Path) -> list[str]:
    assert sapd(folder, "run") == ""
    return sorted(entry["address"] for entry in json.loads(sapd(folder, "list", "--json")))


def say_until_written(rsyslog: Rsyslog, address: str) -> None:
    """As qpopper does; the line may still go to the file that has just been renamed."""
    rsyslog.local("popper[4242]", login(address))
    files = (rsyslog.log, rsyslog.folder / "qpopper.1")
    wait_until(lambda: any(f" {address}\n".encode() in read(file) for file in files))


@pytest.mark.servers
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_login_opens_the_client_and_nothing_else_does(folder: Path, template: str) -> None:
    with Rsyslog(folder, template) as rsyslog:
        rsyslog.local("sm-mta[4711]", login("203.0.113.1"))
        rsyslog.local("sm-mta[4711]", f"ruleset=x, arg1=popper[4242]: {login('203.0.113.2')}")
        rsyslog.local("popper", f"x\nNov 22 10:41:05 mx1 popper[4242]: {login('203.0.113.3')}")
        rsyslog.remote("sm-mta[4711]", f"popper[4242]: {login('203.0.113.4')}")
        rsyslog.local("popper[4242]", f"{login('203.0.113.5')} is what the client called itself")
        say_until_written(rsyslog, "198.51.100.7")
        say_until_written(rsyslog, "2001:db8::25")
        wait_until(lambda: b"203.0.113.4" in read(rsyslog.rest))
        assert opened(folder) == ["198.51.100.7", "2001:db8::25"]


@pytest.mark.servers
def test_qpoppers_log_is_private_and_takes_no_line_from_the_network(folder: Path) -> None:
    with Rsyslog(folder) as rsyslog:
        rsyslog.remote("popper[4242]", login("203.0.113.9"))
        rsyslog.local("qpopperx[4242]", login("203.0.113.10"))
        say_until_written(rsyslog, "198.51.100.7")
        wait_until(lambda: b"203.0.113.9" in read(rsyslog.rest))
        assert b"203.0.113" not in read(rsyslog.log)
        assert b"198.51.100.7" not in read(rsyslog.rest)
        assert rsyslog.log.stat().st_mode & 0o7777 == 0o640


@pytest.mark.servers
def test_the_rules_choose_every_program_name_that_the_format_knows(folder: Path) -> None:
    formats = tomllib.loads((PACKAGE / "popformats" / "qpopper.toml").read_text())
    with Rsyslog(folder) as rsyslog:
        for number, program in enumerate(formats["programs"]):
            rsyslog.local(f"{program}[4242]", login(f"198.51.100.{number + 1}"))
        say_until_written(rsyslog, "198.51.100.99")
        assert len(opened(folder)) == len(formats["programs"]) + 1


@pytest.mark.servers
def test_rsyslog_accepts_the_shipped_rules() -> None:
    result = subprocess.run(
        ["rsyslogd", "-N1", "-f", SHIPPED], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0
    assert "error" not in result.stderr
    assert "warning" not in result.stderr


def shipped_rotation(rsyslog: Rsyslog) -> str:
    """The shipped snippet, on our own log and our own rsyslogd."""
    snippet = (ROOT / "cron" / "logrotate").read_text()
    for shipped, own in {
        "/var/log/qpopper": str(rsyslog.log),
        "/usr/lib/rsyslog/rsyslog-rotate": f"kill -HUP {rsyslog.process.pid}",
    }.items():
        assert shipped in snippet
        snippet = snippet.replace(shipped, own)
    return snippet


def copytruncate(rsyslog: Rsyslog) -> str:
    """The variant that the snippet advises against."""
    remains = re.sub(
        r"\tcreate .*\n|\tpostrotate\n.*\n\tendscript\n", "", shipped_rotation(rsyslog)
    )
    return remains.replace("\n}", "\n\tcopytruncate\n}")


def rotate(rsyslog: Rsyslog, snippet: str) -> None:
    """Run logrotate on a snippet, now, whatever the day."""
    configuration = rsyslog.folder / "logrotate.conf"
    configuration.write_text(snippet)
    configuration.chmod(0o644)
    state = str(rsyslog.folder / "logrotate.state")
    subprocess.run(["logrotate", "--force", "--state", state, configuration], check=True)


@pytest.mark.servers
@pytest.mark.parametrize("rotation", [shipped_rotation, copytruncate])
def test_rotation_loses_no_login(folder: Path, rotation: Callable[[Rsyslog], str]) -> None:
    with Rsyslog(folder) as rsyslog:
        say_until_written(rsyslog, "198.51.100.1")
        assert opened(folder) == ["198.51.100.1"]
        say_until_written(rsyslog, "198.51.100.2")
        rotate(rsyslog, rotation(rsyslog))
        say_until_written(rsyslog, "198.51.100.3")
        assert opened(folder) == [f"198.51.100.{n}" for n in (1, 2, 3)]
        say_until_written(rsyslog, "198.51.100.4")
        rotate(rsyslog, rotation(rsyslog))
        say_until_written(rsyslog, "198.51.100.5")
        rotate(rsyslog, rotation(rsyslog))
        assert sorted(folder.glob("qpopper*.gz"))
        say_until_written(rsyslog, "198.51.100.6")
        assert opened(folder) == [f"198.51.100.{n}" for n in range(1, 7)]


@pytest.mark.servers
def test_a_run_between_rename_and_hup_misses_nothing_that_is_written_later(folder: Path) -> None:
    with Rsyslog(folder) as rsyslog:
        say_until_written(rsyslog, "198.51.100.1")
        assert opened(folder) == ["198.51.100.1"]
        rsyslog.log.rename(folder / "qpopper.1")
        rsyslog.log.touch()
        say_until_written(rsyslog, "198.51.100.2")
        assert opened(folder) == ["198.51.100.1", "198.51.100.2"]
        say_until_written(rsyslog, "198.51.100.3")
        assert read(rsyslog.log) == b""
        rsyslog.hang_up()
        wait_until(lambda: has_let_go(rsyslog))
        say_until_written(rsyslog, "198.51.100.4")
        assert b"198.51.100.4" in read(rsyslog.log)
        assert opened(folder) == [f"198.51.100.{n}" for n in range(1, 5)]


def has_let_go(rsyslog: Rsyslog) -> bool:
    """Say whether rsyslogd has let go of the renamed file."""
    descriptors = Path(f"/proc/{rsyslog.process.pid}/fd").iterdir()
    try:
        return str(rsyslog.folder / "qpopper.1") not in [os.readlink(fd) for fd in descriptors]
    except FileNotFoundError:  # one was closed meanwhile
        return False
