"""With no rights but those that the README names, in no folder but its own, whoever starts it."""

import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.faults.tracing import Trace
from tests.servers.machine import Machine
from tests.servers.rsyslog import SHIPPED as RSYSLOG_RULES
from tests.servers.rsyslog import wait_until
from tests.servers.sendmail import Sendmail
from tests.servers.unprivileged import NOBODY, PYTHON, installed_for_everybody
from tests.site import Site, login, noise

pytestmark = pytest.mark.servers

ROOT = Path(__file__).parents[2]
CLIENT, STRANGER = "198.51.100.7", "198.51.100.8"
SEPARATE = (ROOT / "examples" / "sendmail" / "separate-map.mc").read_text()
ADM = 4
USER = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", f"--groups={ADM}")
STRANGER_TO_THE_LOG = (*USER[:-1], "--clear-groups")


def after_the_window() -> tuple[str, str]:
    return "--at", (datetime.now(UTC) + timedelta(minutes=31)).isoformat()


# The set-up without root, as the README and the examples tell it.


def job_without_root() -> tuple[str, str]:
    """The user and the command of the line in cron/sapd that is for a separate map."""
    found = re.search(r"^#\* \* \* \* \* (\w+) (.*)$", (ROOT / "cron" / "sapd").read_text(), re.M)
    assert found
    return found[1], found[2]


def configuration_without_root() -> str:
    """The shipped one, with the settings of separate-map.mc in place of its own."""
    _, settings = SEPARATE.split("[access]\n")
    settings = "\n".join(re.findall(r"^dnl +((?:database|self_closing) = .*)$", settings, re.M))
    text = (ROOT / "examples" / "sapd.toml").read_text()
    return re.sub(r"^source = .*\n\n(#.*\n)*database = .*", settings, text, flags=re.M)


class Newcomer:
    """A machine with rsyslogd and sendmail, set up by somebody who does what is written."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.user, self.job = job_without_root()

    def sh(self, script: str, status: int = 0) -> "subprocess.CompletedProcess[str]":
        done = self.machine.run(["sh", "-c", script], check=False, capture_output=True, text=True)
        assert done.returncode == status, (done.stdout, done.stderr)
        return done

    def as_user(self, command: str, status: int = 0) -> "subprocess.CompletedProcess[str]":
        """As cron starts a job: the user's groups, and next to no environment."""
        bare = "env -i SHELL=/bin/sh PATH=/usr/local/bin:/usr/bin:/bin LOGNAME=sapd"
        become = f"setpriv --reuid={self.user} --regid={self.user} --init-groups {bare}"
        return self.sh(f"cd / && {become} sh -c '{command}'", status)

    def log_in(self, address: str) -> None:
        """What qpopper says by syslog(3)."""
        message = f'(v4.1.0) POP login by user "scanner" at (scanner.example.com) {address}'
        self.sh(f"logger --id=4242 -p local0.info -t popper '{message}'")
        wait_until(lambda: f" {address}\n" in self.sh("cat /var/log/qpopper").stdout)

    def code(self, client: str) -> int:
        return self.machine.probe(client).code

    def about(self, path: str) -> str:
        return self.sh(f"stat -c '%a %U %G' {path}").stdout.strip()


@pytest.fixture
def newcomer(folder: Path) -> Iterator[Newcomer]:
    (folder / "machine").mkdir()
    library = installed_for_everybody(folder)
    (folder / "sapd.toml").write_text(configuration_without_root())
    machine = Machine(folder / "machine", [CLIENT, STRANGER], rules=RSYSLOG_RULES.read_text())
    with machine, ExitStack() as stack:
        newcomer = Newcomer(machine)
        (folder / "state").mkdir()
        environment = " ".join(f"{name}={value}" for name, value in library.items())
        program = f'#!/bin/sh\\nexec env {environment} {PYTHON} -m sapd "$@"\\n'
        newcomer.sh(
            f"mkdir -p /var/lib/sapd && mount --bind {folder}/state /var/lib/sapd &&"
            f"install -D -m 644 {folder}/sapd.toml /etc/sapd/sapd.toml &&"
            f"printf '{program}' >/usr/local/bin/sapd && chmod 755 /usr/local/bin/sapd"
        )
        sendmail = stack.enter_context(Sendmail(machine, folder, SEPARATE))
        sendmail.makemap("", sendmail.mail / "access.db")
        as_named = f"sed 's#{sendmail.state}#/var/lib/sapd#' {sendmail.configuration}"
        newcomer.sh(f"mkdir -p /etc/mail && {as_named} >/etc/mail/sendmail.cf")
        for command in re.findall(r"^dnl +((?:useradd|install) .*)$", SEPARATE, re.M):
            newcomer.sh(command)
        yield newcomer


def test_who_does_what_is_written_needs_no_root(newcomer: Newcomer) -> None:
    assert newcomer.code(CLIENT) == 550
    newcomer.log_in(CLIENT)
    dry = newcomer.as_user("sapd run -n")
    assert (dry.stdout.count("\n"), dry.stderr) == (2, "")
    assert newcomer.code(CLIENT) == 550
    done = newcomer.as_user(newcomer.job)
    assert (done.stdout, done.stderr) == ("", "")
    assert [newcomer.code(CLIENT), newcomer.code(STRANGER)] == [250, 550]
    assert CLIENT in newcomer.as_user("sapd list").stdout
    assert "login 1" in newcomer.as_user("sapd match /var/log/qpopper").stdout
    user, job = job_without_root()
    newcomer.sh(f"rm -rf /etc/cron.d/*; echo '* * * * * {user} {job}' >/etc/cron.d/sapd")
    check = newcomer.as_user("sapd check", status=78)
    assert "/var/lib/sapd: the state can be saved" in check.stdout
    problems = [line for line in check.stdout.splitlines() if line.startswith("problem: ")]
    assert problems == ["problem: /etc/cron.d/sapd:1: cron does not run; service cron start"]
    newcomer.log_in(STRANGER)
    byhand = newcomer.sh(
        "umask 077; /usr/local/bin/sapd run"
    )  # root, who reads the log by the user's groups
    assert (byhand.stdout, byhand.stderr) == ("", "")
    assert newcomer.code(STRANGER) == 250
    late = newcomer.as_user(f"sapd run {' '.join(after_the_window())}")
    assert (late.stdout, late.stderr) == ("", "")
    assert [newcomer.code(CLIENT), newcomer.code(STRANGER)] == [550, 550]
    assert newcomer.about("/var/log/qpopper") == "640 root adm"
    for name, mode in (
        ("", 755),
        ("state.json", 600),
        ("lock", 600),
        ("audit.jsonl", 600),
        ("relay.db", 644),
    ):
        assert newcomer.about(f"/var/lib/sapd/{name}") == f"{mode} sapd sapd"


def test_cutting_needs_the_mode_that_is_written(newcomer: Newcomer) -> None:
    newcomer.sh("sed -i '0,/^#keep_lines.*/s//keep_lines = 1/' /etc/sapd/sapd.toml")
    for number in range(1, 8):
        newcomer.log_in(f"192.0.2.{number}")
    newcomer.log_in(CLIENT)
    denied = newcomer.as_user(newcomer.job, status=77)
    assert denied.stderr == "sapd: error: /var/log/qpopper: can't be written: Permission denied\n"
    assert newcomer.code(CLIENT) == 250
    (mode,) = re.findall(r'fileCreateMode="(\d+)"', SEPARATE)
    newcomer.sh(f"chmod {mode} /var/log/qpopper")
    newcomer.as_user(newcomer.job)
    assert newcomer.sh("wc -l </var/log/qpopper").stdout == "2\n"
    assert newcomer.about("/var/log/qpopper") == "660 root adm"


# A right that is lacking.


@pytest.fixture
def separate(folder: Path) -> Site:
    """A site with a separate map, whose folder and state belong to nobody, and a log of adm's."""
    site = Site(folder)
    site.database = folder / "map" / "relay.db"
    site.config.write_text(
        site.config.read_text()
        .replace('source = "access"', "")
        .replace("access.db", "map/relay.db")
    )
    for path in (site.database.parent, site.state.parent):
        path.mkdir()
        os.chown(path, NOBODY, NOBODY)
    site.log.chmod(0o640)
    os.chown(site.log, 0, ADM)
    return site


def run_as(
    site: Site, prefix: tuple[str, ...], *options: str
) -> "subprocess.CompletedProcess[str]":
    env = {"PYTHONPATH": str(site.folder / "library"), "PYTHONSAFEPATH": "1"}
    return site.sapd("run", *options, prefix=prefix, env=env, python=PYTHON)


def roots_alone(*paths: str) -> Callable[[Site], None]:
    def take(site: Site) -> None:
        for path in paths:
            os.chown(site.folder / path, 0, 0)
            if not (site.folder / path).is_dir():
                (site.folder / path).chmod(0o600)

    return take


def cut_from_now_on(site: Site) -> None:
    site.write(noise(1), noise(2), noise(3))
    site.config.write_text(site.config.read_text().replace("[access]", "keep_lines = 1\n[access]"))


RIGHTS: dict[str, tuple[Callable[[Site], None], tuple[str, ...], int, str, bool]] = {
    "the log's group": (lambda _: None, STRANGER_TO_THE_LOG, 66, "qpopper", True),
    "the log": (roots_alone("qpopper"), USER, 66, "qpopper", True),
    "writing the log": (cut_from_now_on, USER, 77, "qpopper", True),
    "the state's folder": (roots_alone("state"), USER, 77, "state/state.json", True),
    "the state": (roots_alone("state/state.json"), USER, 77, "state/state.json", True),
    "the lock": (roots_alone("state/lock"), USER, 77, "state/lock", False),
    "the map's folder": (roots_alone("map"), USER, 77, "map/relay.db", False),
    "the map": (roots_alone("map/relay.db"), USER, 77, "map/relay.db", False),
    "the configuration": (roots_alone("sapd.toml"), USER, 77, "sapd.toml", False),
}


@pytest.mark.parametrize(
    ("take", "who", "status", "subject", "closes"), RIGHTS.values(), ids=RIGHTS
)
def test_a_right_that_is_lacking_is_said_in_one_line_and_opens_nothing(
    separate: Site,
    take: Callable[[Site], None],
    who: tuple[str, ...],
    status: int,
    subject: str,
    closes: bool,
) -> None:
    installed_for_everybody(separate.folder)
    separate.write(login(CLIENT))
    done = run_as(separate, USER)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert separate.relaying() == {CLIENT}
    take(separate)
    done = run_as(separate, who, *after_the_window())
    assert done.returncode == status
    assert re.fullmatch(
        rf"sapd: error: {re.escape(str(separate.folder))}/{subject}: .*[Pp]ermission denied.*\n",
        done.stderr,
    )
    assert separate.relaying() == (set() if closes else {CLIENT})


# Modes.


FINAL_MODES = {"state": 0o755} | dict.fromkeys(
    ("lock", "last-pass", "state.json", "state.json.new", "audit.jsonl"), 0o600
)


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777], ids=oct)
@pytest.mark.parametrize(
    ("separate", "before", "final"),
    [(False, None, 0o640), (True, None, 0o640), (False, 0o600, 0o600), (True, 0o604, 0o604)],
    ids=["new", "new and separate", "there", "there and separate"],
)
def test_no_file_is_ever_more_open_than_in_the_end(
    site: Site,
    tmp_path_factory: pytest.TempPathFactory,
    umask: int,
    separate: bool,
    before: int | None,
    final: int,
) -> None:
    """A first run, then one with a damaged state and a log to cut."""
    modes = FINAL_MODES | {"access.db": final, "access.sapd-new.db": final}
    site.configure(log_settings="keep_lines = 1")
    if separate:
        site.config.write_text(site.config.read_text().replace('source = "access"', ""))
        site.source.unlink()
    if before is not None:
        site.database.touch()
        site.database.chmod(before)
    site.log.chmod(0o640)
    given = set()
    for status in (0, 65):
        site.write(*(login(f"192.0.2.{number}") for number in range(1, 9)))
        trace = Trace(tmp_path_factory.mktemp("trace") / "of")
        masked = ("sh", "-c", f'umask {umask:03o} && exec "$@"', "sh")
        done = site.sapd("run", prefix=trace.prefix + masked)
        assert done.returncode == status, done.stderr
        for path, got in trace.modes(umask):
            name = Path(path).name
            if path.startswith(str(site.folder)) and "__pycache__" not in path:
                assert got & ~modes[name] == 0, (path, oct(got))
                given.add(name)
        site.state.write_text("damaged")
    site.state.unlink()
    assert given >= {"state", "lock", "state.json.new", "audit.jsonl", "access.sapd-new.db"}
    for file in site.folder.rglob("*"):
        wanted = modes.get(file.name, 0o600 if "damaged" in file.name else None)
        if wanted is not None:
            assert stat.S_IMODE(file.stat().st_mode) == wanted, file
    assert stat.S_IMODE(site.log.stat().st_mode) == 0o640
    assert list(site.state.parent.glob("state.json.damaged-*"))


# Everybody's folders, and the caller's environment.


@pytest.fixture
def elsewhere() -> Iterator[Site]:
    """A site that does not itself lie in everybody's folder."""
    with tempfile.TemporaryDirectory(prefix="sapd-test-", dir="/var/lib") as name:
        Path(name).chmod(0o755)
        site = Site(Path(name), log_settings="keep_lines = 1")
        site.write(*(login(f"192.0.2.{number}") for number in range(1, 9)))
        yield site


COMMANDS = (["run"], ["run", "-n"], ["list"], ["check"], ["match", "--summary"])


def test_everybodys_folders_are_never_used(elsewhere: Site, tmp_path: Path) -> None:
    env = installed_for_everybody(elsewhere.folder)
    scratch = elsewhere.folder / "everybodys"
    scratch.mkdir(0o1777)
    shared = [Path(folder) for folder in ("/tmp", "/var/tmp", "/dev/shm", scratch)]  # noqa: S108
    started = set()
    for number, command in enumerate(COMMANDS):
        trace = Trace(tmp_path / str(number))
        name, *options = command
        if name == "match":
            options.append(str(elsewhere.log))
        done = elsewhere.sapd(
            name, *options, prefix=trace.prefix, env={**env, "TMPDIR": str(scratch)}, python=PYTHON
        )
        assert done.stderr == ""
        for process in trace.processes():
            for call in process:
                if call.name == "execve":
                    started.add(Path(call.paths[0]).name)
                for path in map(Path, call.paths):
                    assert not any(folder in path.parents for folder in shared), call
                    # makemap's library looks whether there is such a folder, and leaves it at that
                    assert path not in shared or "stat" in call.name, call
    assert started >= {"python3", "makemap"}
    assert os.listdir(scratch) == []


ENVIRONMENTS: dict[str, dict[str, str]] = {
    "nothing is where it says": {
        "TMPDIR": "/nonexistent",
        "HOME": "/nonexistent",
        "PATH": ".",
        "DB_HOME": "/nonexistent",
        "LD_LIBRARY_PATH": "/nonexistent:",
        "LD_BIND_NOW": "1",
        "TZ": ":/etc/shadow",
    },
    "a terminal from hell": {
        "LANG": "xx_XX.bogus",
        "LC_ALL": "C",
        "LANGUAGE": "%s%n",
        "PYTHONIOENCODING": "ascii",
        "PYTHONUTF8": "0",
        "COLUMNS": "1",
        "LINES": "0",
        "TERM": "dumb",
        "FORCE_COLOR": "1",
    },
    "a strict Python": {
        "PYTHONWARNINGS": "error",
        "PYTHONOPTIMIZE": "2",
        "PYTHONDEVMODE": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
    },
}


@pytest.mark.parametrize("environment", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_the_callers_environment_changes_nothing(site: Site, environment: dict[str, str]) -> None:
    site.write(login(CLIENT), noise(1))
    later = after_the_window()
    said = [
        [
            (done.returncode, done.stdout, done.stderr)
            for command, *options in (["run", "-n"], ["list", *later], ["match", str(site.log)])
            for done in [site.sapd(command, *options, env=env)]
        ]
        for env in ({}, environment)
    ]
    assert said[0] == said[1]
    done = site.sapd("run", env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert site.relaying() == {"198.51.100.9", CLIENT}


def test_an_empty_environment_is_enough(folder: Path) -> None:
    site = Site(folder)
    env = installed_for_everybody(folder)
    site.write(login(CLIENT))
    bare = ("env", "-i", *(f"{name}={value}" for name, value in env.items()))
    done = site.sapd("run", prefix=bare, python=PYTHON)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert site.relaying() == {"198.51.100.9", CLIENT}
