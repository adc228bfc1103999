"""The shipped schedules: cron's, by Debian's cron itself, and systemd's."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from email import message_from_string
from pathlib import Path

import pytest

from tests.servers.cron import OFTEN, SAPD, SHIPPED, Cron
from tests.servers.rsyslog import wait_until

PATIENCE = 90.0  # seconds: the minute must turn, and a run must end
CLIENT = "198.51.100.7"
CONFIG = """\
[[log]]
path = "{folder}/qpopper.log"
formats = ["qpopper"]
[access]
source = "{folder}/access"
database = "{folder}/access.db"
[state]
directory = "{folder}/state"
"""


def shipped_jobs(shipped: Path = SHIPPED) -> list[str]:
    lines = shipped.read_text().splitlines()
    return [
        line for line in lines if line and line[0] not in "#" and not re.match(r"[A-Z]+=", line)
    ]


def set_up(folder: Path) -> Path:
    folder.mkdir()
    (folder / "access").write_text("Connect:192.0.2.1\tRELAY\n")
    (folder / "sapd.toml").write_text(CONFIG.format(folder=folder))
    (folder / "state").mkdir()
    return folder


@pytest.fixture(scope="module")
def crons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Cron]]:
    """Some that wait for the same minute: one has a log with a login, the next one has no log.

    The third starts a run that goes on, with a log that is empty as yet.
    """
    folder = tmp_path_factory.mktemp("cron")
    well, ill, often = (set_up(folder / name) for name in ("well", "ill", "often"))
    (well / "qpopper.log").write_text(login())
    (often / "qpopper.log").touch()
    with ExitStack() as stack:
        yield [stack.enter_context(cron) for cron in (Cron(well), Cron(ill), Cron(often, OFTEN))]


def login() -> str:
    return (
        f"{datetime.now(UTC).isoformat()} mx1 popper[4117]: "
        f'(v4.1.0) POP login by user "scanner" at (scanner.example.com) {CLIENT}\n'
    )


def relays(cron: Cron) -> bool:
    database = cron.folder / "access.db"
    if not database.exists():
        return False
    dump = subprocess.check_output(["makemap", "-u", "hash", str(database)], text=True)
    return f"connect:{CLIENT}" in dump.lower()


@pytest.mark.servers
def test_cron_opens_the_relay_and_has_nothing_to_mail(crons: list[Cron]) -> None:
    cron = crons[0]
    cron.wait_for_job((cron.folder / "access.db").exists, PATIENCE)
    assert relays(cron)
    assert cron.mails() == []


@pytest.mark.servers
def test_a_run_that_goes_on_opens_the_relay_within_its_minute(crons: list[Cron]) -> None:
    cron = crons[2]
    wait_until((cron.folder / "access.db").exists, PATIENCE)
    with (cron.folder / "qpopper.log").open("a") as log:
        log.write(login())
    wait_until(lambda: relays(cron), 10)
    cron.end_jobs()
    cron.wait_for_job(lambda: True, PATIENCE)
    assert cron.mails() == []


@pytest.mark.servers
def test_cron_mails_one_line_when_the_log_is_missing(crons: list[Cron]) -> None:
    cron = crons[1]
    cron.wait_for_job(cron.mails, PATIENCE)
    [mail] = cron.mails()
    message = message_from_string(mail)
    assert message["To"] == "root"
    content = message.get_payload(decode=True)  # Debian 13's cron folds what is long
    assert isinstance(content, bytes)
    body = content.decode()
    assert body.count("\n") == 1
    assert body.startswith(f"sapd: error: {cron.folder}/qpopper.log: ")


@pytest.mark.parametrize("shipped", [SHIPPED, OFTEN], ids=lambda path: path.name)
def test_cron_accepts_the_name_and_the_lines_of_the_file(shipped: Path) -> None:
    # cron passes over names with other characters than these, and a last line without its end.
    assert re.fullmatch("[A-Za-z0-9_-]+", shipped.name)
    assert shipped.read_text().endswith("\n")
    [job] = shipped_jobs(shipped)
    assert job.startswith("* * * * * root ")
    assert re.search(r"(?<!\\)%", job) is None  # cron would make it a line's end


def test_the_crontabs_differ_in_their_options_alone() -> None:
    [job], [often] = shipped_jobs(), shipped_jobs(OFTEN)
    assert often.replace(" --for 1m --every 1s;", ";") == job


def run_as_cron_does(command: str) -> "subprocess.CompletedProcess[str]":
    path = re.search("^PATH=(.*)$", SHIPPED.read_text(), re.MULTILINE)
    assert path
    environment = {"SHELL": "/bin/sh", "PATH": path[1], "HOME": "/root", "LOGNAME": "root"}
    return subprocess.run(
        ["/bin/sh", "-c", command], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("absent", ["program", "configuration", "venv"])
def test_the_job_is_silent_where_sapd_is_absent(tmp_path: Path, absent: str) -> None:
    program, config = tmp_path / "sapd", tmp_path / "sapd.toml"
    if absent == "venv":
        program.symlink_to(tmp_path / "removed" / "sapd")
    elif absent != "program":
        program.symlink_to(SAPD)
    if absent != "configuration":
        config.touch()
    job = shipped_jobs()[0].removeprefix("* * * * * root ")
    result = run_as_cron_does(
        job.replace("/usr/local/bin/sapd", str(program)).replace("/etc/sapd/sapd.toml", str(config))
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_the_job_runs_in_crons_bare_environment(tmp_path: Path) -> None:
    program, config = tmp_path / "sapd", tmp_path / "sapd.toml"
    config.touch()
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    job = shipped_jobs()[0].removeprefix("* * * * * root ")
    result = run_as_cron_does(
        job.replace("/usr/local/bin/sapd", str(program)).replace("/etc/sapd/sapd.toml", str(config))
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "run\n", "")


@pytest.mark.servers
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    for unit in ("sapd.service", "sapd.timer"):
        text = (SHIPPED.parent / unit).read_text()
        (tmp_path / unit).write_text(text.replace("/usr/local/bin/sapd", str(SAPD)))
    result = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "sapd.service", tmp_path / "sapd.timer"],
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
