"""Commands, options, messages and exit statuses."""

import json
import subprocess
import sys
import time

import click
import pytest

from sapd import cli, state
from sapd.decision import Closed, Decision, Reason
from sapd.relay import Stamp
from tests.site import Site, noise, utc, when

NOW = int(time.time())


def sapd(
    *args: str, text: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sapd", *args],
        input=text, capture_output=True, text=True, check=False, timeout=60, env=env,
    )  # fmt: skip


COMMANDS = ["run", "list", "who", "close", "match", "check"]  # those that have a configuration
ARGUMENTS = {"who": ["192.0.2.1"], "close": ["192.0.2.1"]}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_version(command: str) -> None:
    for option in ("--help", "-h"):
        done = sapd(command, option)
        assert (done.returncode, done.stderr) == (0, "")
        for word in ("--config", "SAPD_CONFIG", "--verbose", "--version"):
            assert word in done.stdout
    assert sapd(command, "--version").stdout.startswith("sapd, version ")


@pytest.mark.parametrize("args", [[], ["--help"]])
def test_help_names_every_command_and_page(args: list[str]) -> None:
    done = sapd(*args)
    assert (done.returncode, done.stderr) == (0, "")
    assert isinstance(cli.sapd, click.Group)
    for name, command in cli.sapd.commands.items():
        assert command.help is not None
        summary = command.help.splitlines()[0].removesuffix(".")
        assert f"  {name:<5}  {summary}\n" in done.stdout  # whole, and on one line
    assert "sapd(8)" in done.stdout
    assert "sapd.toml" in done.stdout
    assert sapd("--version").returncode == 0


@pytest.mark.parametrize(
    "args",
    [
        ["rum"], ["run", "--foo"], ["run", "extra"], ["run", "-c"], ["match", "a", "b"],
        ["match", "--format", "qpoper", "/dev/null"], ["list", "--at"],
        ["match", "log", "--journal", "_UID=0"], ["match", ""], ["who", ""],
        ["who", "192.0.2.0/24"], ["close", "scanner"], ["init", "--sendmail", "--exim"],
        ["init", "--cron", "--systemd", "timer"],
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
        assert '"yesterdayish" is not a time' in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_bad_configuration_is_78(site: Site) -> None:
    site.config.write_text("windw = 3")
    for command in COMMANDS:
        done = site.sapd(command, *ARGUMENTS.get(command, []))
        assert done.returncode == 78
        said = done.stderr.splitlines()
        assert said[0].startswith(f"sapd: error: {site.config}: line 1: windw is not a setting")
        assert said[1].startswith(f"sapd: error: {site.config}: log is missing")
        assert (len(said), done.stdout) == (2, "192.0.2.1 was not open\n" * (command == "close"))


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
    assert (done.stdout.partition(" | ")[0], done.stderr) == ("1: nothing", "")
    assert done.stdout.count("\n") == 1


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
    at = when(NOW)
    done = site.sapd("list", "--json", "--at", at)
    assert json.loads(done.stdout) == [
        {
            "address": "192.0.2.10",
            "accounts": ["bob", "eve\u001b[31m\udcff"],
            "since": utc(NOW - 91),
            "until": utc(NOW + 1740),
            "seconds_left": 1740,
        },
        {
            "address": "2001:db8::7",
            "accounts": ["eve"],
            "since": utc(NOW - 30),
            "until": utc(NOW + 1770),
            "seconds_left": 1770,
        },
    ]
    done = site.sapd("list", "--at", at)
    header, first, second = done.stdout.splitlines()
    assert header.split() == ["ADDRESS", "SINCE", "UNTIL", "LEFT", "ACCOUNTS"]
    assert first.split() == [
        "192.0.2.10", when(NOW - 91), when(NOW + 1740), "29m00s", "bob,", "eve\\x1b[31m\\udcff",
    ]  # fmt: skip
    assert second.split()[0] == "2001:db8::7"


def test_list_of_nobody(site: Site) -> None:
    assert json.loads(site.sapd("list", "--json").stdout) == []
    assert site.sapd("list").stdout == "no address is open\n"


@pytest.mark.makemap
def test_a_damaged_state_names_the_remedy(site: Site) -> None:
    site.run()
    site.state.write_text("{")
    for command in (["list"], ["who", "bob"]):
        done = site.sapd(*command)
        assert (done.returncode, done.stdout) == (65, "")
        assert done.stderr.startswith(f"sapd: error: {site.state}: ")
        assert done.stderr.endswith("; sapd run rebuilds it from the log\n")
        assert done.stderr.count("\n") == 1


@pytest.mark.servers
def test_man_says_that_its_output_is_lost() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "sapd", "man"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 74
