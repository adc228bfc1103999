"""Commands, options, messages and exit statuses."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from sapd import state
from sapd.decision import Closed, Decision, Reason
from sapd.relay import Stamp
from tests.site import Site, login, noise

NOW = int(time.time())


def sapd(
    *args: str, text: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sapd", *args],
        input=text, capture_output=True, text=True, check=False, timeout=60, env=env,
    )  # fmt: skip


COMMANDS = ["run", "list", "who", "close", "match", "check"]
ARGUMENTS = {"who": ["192.0.2.1"], "close": ["192.0.2.1"]}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_version(command: str) -> None:
    for option in ("--help", "-h"):
        done = sapd(command, option)
        assert (done.returncode, done.stderr) == (0, "")
        for word in ("--config", "SAPD_CONFIG", "--verbose", "--version"):
            assert word in done.stdout
    assert sapd(command, "--version").stdout.startswith("sapd, version ")


def test_help_names_every_command() -> None:
    assert all(f"  {command} " in sapd("--help").stdout for command in COMMANDS)
    assert sapd("--version").returncode == 0


@pytest.mark.parametrize(
    "args",
    [
        [], ["rum"], ["run", "--foo"], ["run", "extra"], ["run", "-c"], ["match", "a", "b"],
        ["match", "--format", "qpoper", "/dev/null"], ["list", "--at"],
    ],
)  # fmt: skip
def test_usage(args: list[str]) -> None:
    done = sapd(*args)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("sapd: error: ")
    assert done.stderr.count("\n") == 1


def test_a_time_that_is_none_is_usage(site: Site) -> None:
    for command in ("run", "list"):
        done = site.sapd(command, "--at", "yesterdayish")
        assert done.returncode == 2
        assert '"yesterdayish" is no time' in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_bad_configuration_is_78(site: Site) -> None:
    site.config.write_text("windw = 3")
    for command in COMMANDS:
        done = site.sapd(command, *ARGUMENTS.get(command, []))
        assert done.returncode == 78
        said = done.stderr.splitlines()
        assert said[0].startswith(f"sapd: error: {site.config}: windw is no setting")
        assert said[1].startswith(f"sapd: error: {site.config}: log is missing")
        assert (len(said), done.stdout) == (2, "")


def test_the_configuration_from_the_environment(site: Site) -> None:
    done = sapd("list", env={"SAPD_CONFIG": str(site.config)})
    assert (done.returncode, done.stdout) == (0, "no address is open\n")


def test_a_bug_is_one_line_and_70(site: Site) -> None:
    code = (
        "import sys; from sapd import __main__, run\n"
        "def once(*args, **more): raise RuntimeError('boom\\nbang')\n"
        "run.once = once\n"
        f"sys.argv = ['sapd', 'run', '-c', {str(site.config)!r}]\n"
        "__main__.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 70
    assert done.stderr.startswith("sapd: error: a bug in sapd, please report it: RuntimeError: ")
    assert "boom\\nbang at <string>:2 (once)" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_reader_that_leaves_is_no_error(site: Site) -> None:
    site.write(*(noise(number) for number in range(5000)))
    command = f"{sys.executable} -m sapd match -c {site.config} {site.log} | head -n 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("1: nothing\n", "")


@pytest.mark.makemap
def test_a_full_standard_output_is_said(site: Site) -> None:
    site.run()
    command = f"{sys.executable} -m sapd list -c {site.config} > /dev/full"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 74
    assert done.stderr == "sapd: error: standard output: No space left on device\n"


def test_problems_are_said_though_nobody_reads_the_rest(site: Site) -> None:
    site.log.unlink()
    site.source.write_text("")
    command = f"{sys.executable} -m sapd run -nvv -c {site.config}; echo $? >&2"
    done = subprocess.run(
        ["sh", "-c", f"({command}) | true"], capture_output=True, text=True, check=False
    )
    assert done.stderr.endswith("\n66\n")
    assert done.stderr.count("\n") == 2


def test_nowhere_to_complain(site: Site) -> None:
    site.log.unlink()
    command = f"{sys.executable} -m sapd run -n -c {site.config} 2>/dev/full"
    assert subprocess.run(["sh", "-c", command], capture_output=True, check=False).returncode == 66


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_do_no_harm(site: Site, closed: str) -> None:
    site.state.parent.write_text("a file, so that there is something to complain of")
    command = f"{sys.executable} -m sapd run -n -c {site.config} {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 73
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == (0 if "2>&-" in closed else 1)


def state_with(site: Site, claims: dict[str, dict[str, float]], refused: set[str]) -> None:
    site.state.parent.mkdir()
    why = Closed(Reason.REFUSED, "192.0.2 REJECT")
    closed = {address: dict.fromkeys(claims[address], why) for address in refused}
    saved = state.empty()._replace(time=NOW, decision=Decision({}, closed))
    saved.ledger.claims = {
        address: {account: Stamp(login, login) for account, login in accounts.items()}
        for address, accounts in claims.items()
    }
    site.state.write_text(state.to_text(saved))


def test_list(site: Site) -> None:
    state_with(
        site,
        {
            "192.0.2.10": {"bob": NOW - 60, "eve\u001b[31m\udcff": NOW - 90.5},
            "2001:db8::7": {"eve": NOW - 30},
            "192.0.2.11": {"bob": NOW - 4000},
            "192.0.2.12": {"bob": NOW},
        },
        {"192.0.2.12"},
    )
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW))

    def stamp(epoch: float) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))

    done = site.sapd("list", "--json", "--at", at)
    assert json.loads(done.stdout) == [
        {
            "address": "192.0.2.10",
            "accounts": ["bob", "eve\u001b[31m\udcff"],
            "since": stamp(NOW - 91),
            "until": stamp(NOW + 1740),
            "seconds_left": 1740,
        },
        {
            "address": "2001:db8::7",
            "accounts": ["eve"],
            "since": stamp(NOW - 30),
            "until": stamp(NOW + 1770),
            "seconds_left": 1770,
        },
    ]
    done = site.sapd("list", "--at", at)
    header, first, second = done.stdout.splitlines()
    assert header.split() == ["ADDRESS", "SINCE", "UNTIL", "LEFT", "ACCOUNTS"]
    assert first.split() == [
        "192.0.2.10", stamp(NOW - 91), stamp(NOW + 1740), "29m00s", "bob,", "eve\\x1b[31m\\udcff",
    ]  # fmt: skip
    assert second.split()[0] == "2001:db8::7"


def test_list_of_nobody(site: Site) -> None:
    assert json.loads(site.sapd("list", "--json").stdout) == []
    assert site.sapd("list").stdout == "no address is open\n"


LOG = (
    "Nov 22 10:41:05 mx1 sm-mta[1]: noise\n"
    + login("192.0.2.10", at=NOW)
    + "Nov 22 10:41:05 mx1 popper[1]: Stats: b\x9bb 0 0 0 0 h 2001:DB8::7\n\n"
    + login("999.0.0.1", at=NOW)
    + login("192.0.2.11", at=NOW).rstrip("\n")
)


def test_match() -> None:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW))
    done = sapd("match", "--format", "qpopper", text=LOG, env={"TZ": "UTC"})
    assert done.returncode == 0
    third = done.stdout.splitlines()[2]
    assert third.startswith("3: logout 2001:db8::7 b\\x9bb 20")
    assert done.stdout.splitlines() == [
        "1: nothing",
        f"2: login 192.0.2.10 bob {stamp} qpopper",
        third,
        "4: nothing",
        "5: nothing",
        f"6: login 192.0.2.11 bob {stamp} qpopper",
        "lines 6: login 2, logout 1, connect 0, nothing 3",
        "format qpopper: login 2, logout 1",
        "no evidence: address 1, stamp 0, cut 0, torn 0; logins without an address 0",
    ]


def test_match_counts_what_is_no_evidence() -> None:
    head = "Nov 22 10:41:05 mx1 pop3d:"
    text = (
        f"{head} LOGIN, user=bo{head} LOGIN, user=x, ip=[::ffff:192.0.2.1]\n"
        f"{head} LOGIN, user=bo\0b, ip=[::ffff:192.0.2.1]\n"
        f"{head} LOGIN FAILED, user={'A' * 486}\n"
        f"{head} LOGIN, user=bob, ip=[::ffff:192.0.2.1]\n"
    )
    last = "no evidence: address 0, stamp 0, cut 1, torn 2; logins without an address 0"
    for args in ([], ["--summary"]):
        done = sapd("match", "--format", "courier", *args, text=text)
        assert done.stdout.splitlines()[-1] == last


def test_match_summary() -> None:
    done = sapd("match", "--summary", text=LOG)
    assert done.stdout.splitlines() == [
        "lines 6: login 2, logout 1, connect 0, nothing 3",
        "format qpopper: login 2, logout 1",
        "no evidence: address 1, stamp 0, cut 0, torn 0; logins without an address 0",
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
    said = done.stdout.splitlines()
    assert said[:4] == [
        "1: nothing (it does not begin as a line of syslog does: "
        '"Nov 22 10:41:05 host program[123]: ", or with an RFC 3339 stamp, or as in RFC 5424)',
        '2: nothing (its program, "sshd", is none of popper, qpopper, in.qpopper, popper-s, '
        "qpopper-s, in.qpopper-s, popper -s, qpopper -s, in.qpopper -s)",
        '3: nothing (it is qpopper\'s, but no login because of " b" at (h) 192.0.2.1"; one reads: '
        '(v4.0.5) POP login by user "bob" at (h.example.net) 192.0.2.10 [pop_log.c:244])',
        '4: nothing ("999.0.2.1" is no address)',
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
    said = site.sapd("match", "--explain", str(site.log)).stdout.splitlines()
    older, ahead = "(its window is over)", "(its stamp is ahead of now; check the clock"
    assert said[0].endswith(" qpopper")
    assert said[1].endswith(older)
    assert said[2].endswith(older)
    assert ahead in said[3]
    assert said[4].endswith("(policy.never has it, or it can be no client's)")
    assert "(" not in site.sapd("match", str(site.log)).stdout


def test_match_explains_what_was_cut() -> None:
    head = "Nov 22 10:41:05 mx1 pop3d: "
    text = f"{head}LOGIN FAILED, user=A\n{head}LOGIN, user=b, ip=[192.0.2.1], port=[7]\n"
    said = sapd("match", "--explain", text=text).stdout.splitlines()
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
    said = sapd("match", text=text).stdout.splitlines()
    assert said[1].startswith("2: login 192.0.2.1 bob ")
    assert said[2].startswith("3: login 192.0.2.2 eve ")
    assert said[3].startswith("4: login 192.0.2.3 eve ")
    assert said[4:] == [
        "lines 4: login 3, logout 0, connect 1, nothing 0",
        "format courier: login 1",
        "format popa3d: login 1, connect 1",
        "format qpopper: login 1",
        "no evidence: address 0, stamp 0, cut 0, torn 0; logins without an address 0",
    ]


def on_a_terminal(command: list[str], **env: str) -> bytes:
    """What a command writes whose standard output and error are a terminal."""
    terminal, end = os.openpty()
    done = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=end, stderr=end, env={**os.environ, **env}
    )
    os.close(end)
    said = b""
    with suppress(OSError):  # EIO: the last writer is gone
        while data := os.read(terminal, 65536):
            said += data
    os.close(terminal)
    assert done.wait(60) == 0
    return said


def test_match_in_colours_on_a_terminal(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text(LOG)
    command = [sys.executable, "-m", "sapd", "match", str(file)]
    said = on_a_terminal(command)
    assert b"\x1b[32m2: login 192.0.2.10 bob " in said
    assert b"\x1b[2m1: nothing\x1b[0m" in said
    assert b"b\\x9bb" in said  # the log's own escapes stay out
    assert b"\x1b" not in on_a_terminal(command, NO_COLOR="1")
    assert "\x1b" not in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_match_shows_its_progress_through_a_big_file(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text(login("192.0.2.1") * 120_000)
    command = [sys.executable, "-m", "sapd", "match", "--summary", str(file)]
    said = on_a_terminal(command)
    assert b"100%" in said
    assert b"lines 120000: login 120000" in said
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
    }  # fmt: skip
    assert rows[1] == {
        "line": 2, "event": "login", "format": "qpopper", "address": "192.0.2.10",
        "account": "bob", "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW)),
    }  # fmt: skip
    assert rows[2]["event"] == "logout"


def test_match_as_configured(site: Site) -> None:
    site.configure(log_settings='formats = ["qpopper-stats"]\ntimezone = "Asia/Tokyo"')
    site.write("Jan 22 10:41:05 mx1 popper[1]: Stats: bob 0 0 0 0 h 192.0.2.10\n")
    done = site.sapd("match", str(site.log))
    assert "1: login 192.0.2.10 bob " in done.stdout
    assert "-01-22T01:41:05Z qpopper-stats" in done.stdout


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
    assert done.stdout.startswith("1: nothing\n")


def test_match_takes_anything(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_bytes(b"\0" * 3_000_000 + b"\n\xff\xfe\r\n\r" + login("192.0.2.10").encode())
    done = sapd("match", str(file))
    assert done.stdout.splitlines()[:3] == ["1: nothing", "2: nothing", "3: nothing"]
    assert done.returncode == 0
