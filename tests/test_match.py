"""`sapd match`: what each line of a log means."""

import bz2
import gzip
import importlib
import json
import lzma
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from sapd.reading import excerpt
from tests.site import Site, login, noise, utc, when
from tests.test_cli import sapd

NOW = int(time.time())

LOG = (
    "Nov 22 10:41:05 mx1 sm-mta[1]: noise\n"
    + login("192.0.2.10", at=NOW)
    + "Nov 22 10:41:05 mx1 popper[1]: Stats: b\x9bb 0 0 0 0 h 2001:DB8::7\n\n"
    + login("999.0.0.1", at=NOW)
    + login("192.0.2.11", at=NOW).rstrip("\n")
)


def meanings(said: str) -> list[str]:
    """What is said of each line, without its text."""
    return [row.partition(" | ")[0] for row in said.splitlines()]


def test_match() -> None:
    stamp = when(NOW)
    done = sapd("match", "--format", "qpopper", text=LOG, env={"TZ": "UTC"})
    assert done.returncode == 0
    third = done.stdout.splitlines()[2]
    assert third.startswith("3: logout 2001:db8::7 b\\x9bb 20")
    assert third.endswith(" qpopper | " + LOG.splitlines()[2].replace("\x9b", "\\x9b"))
    assert meanings(done.stdout) == [
        "1: nothing",
        f"2: login 192.0.2.10 bob {stamp} qpopper",
        third.partition(" | ")[0],
        "4: nothing",
        "5: nothing",
        f"6: login 192.0.2.11 bob {stamp} qpopper",
        "6 lines: 2 logins, 1 logout, 0 connects, 3 ignored",
        "frame traditional",
        "format qpopper: 2 logins, 1 logout",
        "ignored, by program: sm-mta 1, popper 1, not syslog lines 1",
        "not counted as evidence: 1 with a bad address",
    ]


def test_match_counts_what_is_no_evidence() -> None:
    head = "Nov 22 10:41:05 mx1 pop3d:"
    text = (
        f"{head} LOGIN, user=bo{head} LOGIN, user=x, ip=[::ffff:192.0.2.1]\n"
        f"{head} LOGIN, user=bo\0b, ip=[::ffff:192.0.2.1]\n"
        f"{head} LOGIN FAILED, user={'A' * 486}\n"
        f"{head} LOGIN, user=bob, ip=[::ffff:192.0.2.1]\n"
    )
    last = "not counted as evidence: 1 cut short, 2 torn"
    for args in ([], ["--summary"]):
        done = sapd("match", "--format", "courier", *args, text=text)
        assert done.stdout.splitlines()[-1] == last


def test_match_summary() -> None:
    done = sapd("match", "--summary", text=LOG)
    assert done.stdout.splitlines() == [
        "6 lines: 2 logins, 1 logout, 0 connects, 3 ignored",
        "frame traditional",
        "format qpopper: 2 logins, 1 logout",
        "ignored, by program: sm-mta 1, popper 1, not syslog lines 1",
        "not counted as evidence: 1 with a bad address",
    ]
    done = sapd("match", "--summary", "--json", text=LOG)
    assert done.returncode == 2
    assert "--summary and --json exclude each other" in done.stderr
    done = sapd("match", "--summary", "--explain", text=LOG)
    assert "--summary and --explain exclude each other" in done.stderr


def test_match_explains() -> None:
    head = "Nov 22 10:41:05 mx1"
    lines = [
        "nothing\n",
        f"{head} sshd[7]: nothing\n",
        f'{head} popper[7]: (v4) POP login by user "b b" at (h) 192.0.2.1\n',
        f'{head} popper[7]: (v4) POP login by user "bob" at (h) 999.0.2.1\n',
        f'{head} popper[7]: (v4) POP login by user "bob" at (h) 192.0.2.1\n',
        f"{head} popper[7]: hello\n",
    ]
    done = sapd("match", "--format", "qpopper", "--explain", text="".join(lines))
    said = meanings(done.stdout)
    assert said[:4] == [
        "1: nothing (it does not begin as a line of syslog does: "
        '"Nov 22 10:41:05 host program[123]: ", or with an RFC 3339 stamp, or as in RFC 5424)',
        '2: nothing (its program, "sshd", is none of popper, qpopper, in.qpopper, popper-s, '
        "qpopper-s, in.qpopper-s, popper -s, qpopper -s, in.qpopper -s)",
        '3: nothing (it is qpopper\'s, but not a login because of " b" at (h) 192.0.2.1"; '
        'one reads: (v4.0.5) POP login by user "bob" at (h.example.net) 192.0.2.10 '
        "[pop_log.c:244])",
        '4: nothing ("999.0.2.1" is not an address)',
    ]
    assert said[4].startswith("5: login 192.0.2.1 bob ")
    assert said[5] == "6: nothing (it is qpopper's, but none of its events)"
    done = sapd("match", "--format", "popa3d", "--explain", "--json", text="".join(
        [f"{head} popa3d[7]: Authentication passed for bob\n", f"{head} popa3d[7]: hello\n"]
    ))  # fmt: skip
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert (first["event"], first["address"], first["account"]) == ("login", None, "bob")
    assert first["why"] == "neither it nor an earlier line of the same process names an address"
    assert second["event"] is None
    assert second["why"] == "it is popa3d's, but none of its events"


def test_match_explains_why_a_login_opens_nothing(site: Site) -> None:
    site.configure("8h", top='[[network]]\nnetworks = ["192.0.2.7"]\nwindow = "1m"')
    site.config.write_text(site.config.read_text() + '[policy]\nnever = ["192.0.2.66"]\n')
    now = time.time()
    site.write(
        login("192.0.2.1", at=now - 3600),
        login("192.0.2.1", at=now - 9 * 3600),
        login("192.0.2.7", at=now - 3600),
        login("192.0.2.1", at=now + 3600),
        login("192.0.2.66", at=now),
    )
    said = meanings(site.sapd("match", "--explain", str(site.log)).stdout)
    older, ahead = "(its window is over)", "(its stamp is ahead of now; check the clock"
    assert said[0].endswith(" qpopper")
    assert said[1].endswith(older)
    assert said[2].endswith(older)
    assert ahead in said[3]
    assert said[4].endswith("(policy.never has it, or it can be no client's)")
    assert "(" not in "".join(meanings(site.sapd("match", str(site.log)).stdout))


def test_match_explains_what_was_cut() -> None:
    head = "Nov 22 10:41:05 mx1 pop3d: "
    text = f"{head}LOGIN FAILED, user=A\n{head}LOGIN, user=b, ip=[192.0.2.1], port=[7]\n"
    said = meanings(sapd("match", "--explain", text=text).stdout)
    assert said[0] == "1: nothing (it was cut, so what follows may be a stranger's words)"
    assert said[1] == "2: nothing (it may be the rest of a message whose head a stranger wrote)"


def test_match_knows_all_formats_where_nothing_is_configured() -> None:
    head = "Nov 22 10:41:05 mx1"
    text = (
        f"{head} popa3d[7]: Session from 192.0.2.1\n"
        f"{head} popa3d[7]: Authentication passed for bob\n"
        f"{head} pop3d: LOGIN, user=eve, ip=[::ffff:192.0.2.2], port=[1]\n"
        f'{head} popper[7]: (v4) POP login by user "eve" at (h) 192.0.2.3\n'
    )
    said = meanings(sapd("match", text=text).stdout)
    assert said[1].startswith("2: login 192.0.2.1 bob ")
    assert said[2].startswith("3: login 192.0.2.2 eve ")
    assert said[3].startswith("4: login 192.0.2.3 eve ")
    assert said[4:] == [
        "4 lines: 3 logins, 0 logouts, 1 connect, 0 ignored",
        "frame traditional",
        "format courier: 1 login",
        "format popa3d: 1 login, 1 connect",
        "format qpopper: 1 login",
    ]


def on_a_terminal(
    command: list[str], stdin: int | None = subprocess.DEVNULL, status: int = 0, **env: str
) -> bytes:
    """What a command writes whose standard output and error are a terminal; None: input, too."""
    terminal, end = os.openpty()
    done = subprocess.Popen(
        command,
        stdin=end if stdin is None else stdin,
        stdout=end,
        stderr=end,
        env={**os.environ, **env},
    )
    os.close(end)
    said = b""
    with suppress(OSError):  # EIO: the last writer is gone
        while data := os.read(terminal, 65536):
            said += data
    os.close(terminal)
    assert done.wait(60) == status
    return said


def test_match_in_colours_on_a_terminal(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text(LOG)
    command = [sys.executable, "-m", "sapd", "match", str(file)]
    said = on_a_terminal(command)
    assert b"\x1b[32m2: login 192.0.2.10 bob " in said
    assert b"1: nothing" not in said  # on a terminal only what means something
    assert b"ignored, by program: sm-mta 1, popper 1, not syslog lines 1" in said
    assert b"b\\x9bb" in said  # the log's own escapes stay out
    assert b"\x1b" not in on_a_terminal(command, NO_COLOR="1")
    assert "\x1b" not in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_match_shows_its_progress_through_a_big_file(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text(login("192.0.2.1") * 120_000)
    command = [sys.executable, "-m", "sapd", "match", "--summary", str(file)]
    said = on_a_terminal(command)
    assert b"100%" in said
    assert b"120,000 lines: 120,000 logins" in said
    file.write_text(login("192.0.2.1"))
    assert b"%" not in on_a_terminal(command)


def test_match_json(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text(LOG)
    done = sapd("match", "--json", str(file))
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["line"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[0] == {
        "line": 1, "event": None, "format": None, "address": None, "account": None, "time": None,
        "text": "Nov 22 10:41:05 mx1 sm-mta[1]: noise", "log": str(file),
    }  # fmt: skip
    assert rows[1] == {
        "line": 2, "event": "login", "format": "qpopper", "address": "192.0.2.10",
        "account": "bob", "time": utc(NOW),
        "text": LOG.splitlines()[1], "log": str(file),
    }  # fmt: skip
    assert rows[2]["event"] == "logout"


def test_match_as_configured(site: Site) -> None:
    site.configure(log_settings='formats = ["qpopper-stats"]\ntimezone = "Asia/Tokyo"')
    site.write("Jan 22 10:41:05 mx1 popper[1]: Stats: bob 0 0 0 0 h 192.0.2.10\n")
    done = site.sapd("match", str(site.log))
    assert "1: login 192.0.2.10 bob " in done.stdout
    assert "-01-22T01:41:05+00:00 qpopper-stats |" in done.stdout


@pytest.mark.parametrize("path", ["/nonexistent/log", "/"])
def test_match_without_a_file(path: str) -> None:
    done = sapd("match", path)
    assert done.returncode == 66
    assert done.stderr.startswith(f"sapd: error: {path}: can't be read: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("stamp", ["9999-12-31T23:59:60Z", "0001-01-01T00:00:00+14:00"])
def test_match_at_the_ends_of_time(stamp: str) -> None:
    done = sapd("match", text=f"{stamp} {login('192.0.2.1').split(' ', 1)[1]}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("1: nothing | ")


def test_match_takes_anything(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_bytes(b"\0" * 3_000_000 + b"\n\xff\xfe\r\n\r" + login("192.0.2.10").encode())
    done = sapd("match", str(file))
    assert meanings(done.stdout)[:3] == ["1: nothing", "2: nothing", "3: nothing"]
    assert len(done.stdout) < 10_000
    assert done.returncode == 0


def numbers(said: str) -> list[str]:
    return [row.partition(":")[0] for row in said.splitlines() if re.match(r"\d+: ", row)]


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ("", "123456"), ("--hits", "236"), ("--misses", "145"), ("--hits --misses", "123456"),
        ("--summary", ""), ("--hits --explain", "236"), ("--misses --json", ""),
    ],
)  # fmt: skip
def test_match_shows_hits_or_misses(options: str, shown: str) -> None:
    assert "".join(numbers(sapd("match", *options.split(), text=LOG).stdout)) == shown


def test_match_json_of_misses() -> None:
    rows = map(json.loads, sapd("match", "--misses", "--json", text=LOG).stdout.splitlines())
    assert [row["line"] for row in rows] == [1, 4, 5]


def test_match_explains_all_on_a_terminal(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text(LOG)
    said = on_a_terminal([sys.executable, "-m", "sapd", "match", "--explain", str(file)])
    assert b"1: nothing (its program, " in said


def test_match_names_the_programs_of_the_rest() -> None:
    head = "Nov 22 10:41:05 mx1"
    lines = [f"{head} p{n}[1]: x\n" * (20 - n) for n in range(12)]
    said = sapd("match", "--summary", text="".join(lines)).stdout.splitlines()
    assert said[2].startswith("ignored, by program: p0 20, p1 19, ")
    assert said[2].endswith(", p8 12, others 30")


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_match_reads_what_was_packed(tmp_path: Path, suffix: str) -> None:
    file, text = tmp_path / f"log.1.{suffix}", LOG.encode()
    packed = {"gz": gzip.compress(text), "bz2": bz2.compress(text), "xz": lzma.compress(text)}
    file.write_bytes(packed[suffix])
    assert numbers(sapd("match", "--hits", str(file)).stdout) == ["2", "3", "6"]
    file.write_bytes(file.read_bytes()[:-20])
    done = sapd("match", str(file))
    assert done.returncode == 66
    assert done.stderr.startswith(f"sapd: error: {file}: can't be read: ")
    file.write_text(LOG)
    done = sapd("match", str(file))
    assert (done.returncode, done.stderr.count("\n")) == (66, 1)


def test_match_without_a_file_on_a_terminal_reads_the_configured_logs(site: Site) -> None:
    """Of each the last 10,000 lines: not a standard input of which nobody knows that it waits."""
    other = site.folder / "other"
    site.config.write_text(site.config.read_text() + f'[[log]]\npath = "{other}"\n')
    site.write(login("192.0.2.1"), *(noise(number) for number in range(9_999)), login("192.0.2.2"))
    other.write_text(login("192.0.2.3"))
    command = [sys.executable, "-m", "sapd", "match", "-c", str(site.config)]
    said = on_a_terminal(command, stdin=None, NO_COLOR="1").decode()
    assert f"{site.log}: the last 10,000 lines\r\n10000: login 192.0.2.2 " in said
    assert "192.0.2.1 " not in said
    assert "10,000 lines: 1 login, " in said
    assert f"{other}: the last 10,000 lines\r\n1: login 192.0.2.3 " in said


@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("count", [1, 9_999, 10_000, 10_001, 30_000])
@pytest.mark.parametrize("length", [1, 100])
def test_the_last_lines(tmp_path: Path, end: str, count: int, length: int) -> None:
    file = tmp_path / "log"
    rows = [f"{number:0{length}d}" for number in range(count)]
    file.write_text("\n".join(rows) + end)
    found = [line.decode().rstrip("\n") for line in excerpt.last_lines(str(file))]
    assert found == rows[-10_000:]


def test_match_on_a_terminal_without_a_log(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sapd", "match"]
    said = on_a_terminal(command, stdin=None, status=2)
    assert b"Name a file, or - for standard input" in said


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--journal", "_COMM=dovecot"], "Invalid value for --journal: "),
        (["--journal", "_SYSTEMD_UNIT=dovecot.service", "log"], "A file and --journal exclude"),
        (["--journal", "_SYSTEMD_UNIT=dovecot.service", "-"], "A file and --journal exclude"),
    ],
)
def test_match_refuses_a_journal_that_proves_nothing(args: list[str], said: str) -> None:
    done = sapd("match", *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"sapd: error: {said}")


@pytest.mark.parametrize("module", ["gzip", "bz2", "lzma"])
def test_match_unpacks_by_the_first_bytes(tmp_path: Path, module: str) -> None:
    file = tmp_path / "log.1"
    file.write_bytes(importlib.import_module(module).compress(LOG.encode()))
    done = sapd("match", "--summary", str(file))
    assert done.stdout.startswith("6 lines: 2 logins, 1 logout, ")
