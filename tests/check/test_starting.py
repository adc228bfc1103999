"""Whether what starts sapd does so: its program, its user, its daemon, how often."""

import os
import pwd
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from sapd import check, config
from sapd.check.finding import Finding
from sapd.events import formats
from tests.folders import as_nobody, put
from tests.site import Site, login

pytestmark = [pytest.mark.makemap, pytest.mark.root]

SAPD = Path(sys.executable).with_name("sapd")


@pytest.fixture
def root(tmp_path: Path, site: Site) -> Path:
    """A folder in the place of /, on a site that lacks no more than a schedule."""
    site.write(login("192.0.2.10"))
    site.run()
    return tmp_path / "root"


def crontab(root: Path, line: str, head: str = "") -> str:
    return f"{put(root / 'etc/cron.d/sapd', f'{head}{line}{chr(10)}')}:{1 + head.count(chr(10))}"


def found(site: Site, root: Path) -> list[Finding]:
    return list(check.findings(config.load(str(site.config)), str(root)))


def problems(site: Site, root: Path) -> list[str]:
    return [finding.text for finding in found(site, root) if finding.status]


REMEDY = "sapd init --cron, or --systemd, prints a schedule with the right one"


def test_a_program_that_runs(site: Site, root: Path) -> None:
    where = crontab(root, f"* * * * * root {SAPD} run -c {site.config}")
    assert problems(site, root) == []
    assert Finding(0, f"{where}: {SAPD} runs as root") in found(site, root)


@pytest.mark.parametrize("guard", ["", "[ -x {0} ] && "])
@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("/nowhere/bin/sapd", "is missing"),
        ("sapd", "is not on its PATH"),
        ("{folder}/plain/sapd", "can't be run"),
    ],
)
def test_a_program_that_is_not_there(
    site: Site, root: Path, guard: str, program: str, said: str
) -> None:
    put(site.folder / "plain/sapd", "#!/bin/sh\n")
    program = program.replace("{folder}", str(site.folder))
    guard = guard.format(program)
    where = crontab(root, f"* * * * * root {guard}{program} run -c {site.config}")
    expected = f"{where}: the program that it starts, {program}, {said}; {REMEDY}"
    assert problems(site, root) == [expected]


def test_a_program_that_does_not_run(site: Site, root: Path) -> None:
    for script in ("#!/nowhere/python\n", "#!/bin/sh\nexit 1\n", "#!/bin/sh\necho something\n"):
        program = put(site.folder / "bin/sapd", script, 0o755)
        where = crontab(root, f"* * * * * root {program} run -c {site.config}")
        assert problems(site, root) == [f"{where}: {program} does not run as root; {REMEDY}"]


def test_the_path_of_the_crontab_counts(site: Site, root: Path) -> None:
    line = f"* * * * * root sapd run -c {site.config}"
    crontab(root, line, f"PATH=/usr/bin:{SAPD.parent}\n")
    assert problems(site, root) == []


def test_a_user_who_is_none_or_may_not_run_it(site: Site, root: Path) -> None:
    where = crontab(root, f"* * * * * nosuch {SAPD} run -c {site.config}")
    assert problems(site, root) == [
        f"{where}: has no user nosuch to start it as; name one that is there"
    ]
    program = put(site.folder / "bin/sapd", f'#!/bin/sh\nexec {SAPD} "$@"\n', 0o700)
    where = crontab(root, f"* * * * * daemon {program} run -c {site.config}")
    assert f"{where}: {program} does not run as daemon; {REMEDY}" in problems(site, root)


def test_a_program_of_another_user(site: Site, root: Path) -> None:
    program = put(site.folder / "bin/sapd", f'#!/bin/sh\nexec {SAPD} "$@"\n', 0o755)
    os.chown(program, pwd.getpwnam("daemon").pw_uid, 0)
    where = crontab(root, f"* * * * * root {program} run -c {site.config}")
    assert problems(site, root) == []
    said = [finding.text for finding in found(site, root)]
    assert f"{where}: {program} belongs to daemon, and is run by root; install it as root" in said


@pytest.mark.parametrize(
    ("window", "times", "said"),
    [
        ("30m", "*/15 * * * *", None),
        ("30m", "*/20 * * * *", "every 20 minutes, and a window of 30 minutes is over"),
        ("30m", "@hourly", "every 60 minutes"),
        ("90s", "* * * * *", "every 1 minutes, and a window of 1.5 minutes"),
    ],
)
def test_how_often(site: Site, root: Path, window: str, times: str, said: str | None) -> None:
    site.configure(window)
    where = crontab(root, f"{times} root {SAPD} run -c {site.config}")
    found = problems(site, root)
    if said is None:
        assert found == []
    else:
        (problem,) = found
        assert problem.startswith(f"{where}: starts sapd {said}")
        assert problem.endswith("; start it every minute")


def test_the_shortest_window_counts(site: Site, root: Path) -> None:
    text = site.config.read_text()
    site.config.write_text(f'{text}\n[[network]]\nnetworks = ["10.0.0.0/8"]\nwindow = "5m"\n')
    crontab(root, f"*/5 * * * * root {SAPD} run -c {site.config}")
    assert "a window of 5 minutes is over" in problems(site, root)[0]


def test_a_program_of_another_version_and_one_that_needs_the_callers_environment(
    site: Site, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = put(site.folder / "bin/sapd", "#!/bin/sh\necho sapd, version 0.0.1\n", 0o755)
    where = crontab(root, f"* * * * * root {program} run -c {site.config}")
    said = f"{where}: {program} is version 0.0.1, and this is {version('sapd')}; {REMEDY}"
    assert [one.text for one in found(site, root) if "is version" in one.text] == [said]
    monkeypatch.setenv("WANTED", "sapd")
    put(program, "#!/bin/sh\necho ${WANTED?}\n", 0o755)
    assert problems(site, root) == [f"{where}: {program} does not run as root; {REMEDY}"]


def test_another_user_is_told_whose_run_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readable = shutil.copytree(formats._SHIPPED, folder / "popformats")  # unlike a user's checkout
    monkeypatch.setattr(formats, "_SHIPPED", str(readable))
    site = Site(folder)
    site.write(login("192.0.2.10"))
    site.run()
    root = folder / "root"
    crontab(root, f"* * * * * root {SAPD} run -c {site.config}")
    settings = config.load(str(site.config))
    with as_nobody():
        said = [one.text for one in check.findings(settings, str(root))]
    assert said[-1] == "a run goes on as root, who may meet other things; try sudo sapd check"
    assert not any("runs as root" in text or "chown" in text for text in said)


# ---- Who heeds the schedule ----


def process(root: Path, name: str) -> None:
    put(root / f"proc/{100 + len(name)}/comm", f"{name}\n")


def test_a_cron_that_does_not_run(site: Site, root: Path) -> None:
    where = crontab(root, f"* * * * * root {SAPD} run -c {site.config}")
    process(root, "rsyslogd")
    install = "apt-get install cron, or sapd init --systemd"
    assert problems(site, root) == [f"{where}: cron does not run; {install}"]
    put(root / "usr/sbin/cron", "")
    assert problems(site, root) == [f"{where}: cron does not run; service cron start"]
    process(root, "crond")
    assert problems(site, root) == []


def test_systemd_may_be_cron(site: Site, root: Path) -> None:
    crontab(root, f"* * * * * root {SAPD} run -c {site.config}")
    process(root, "systemd")
    put(root / "usr/lib/systemd/system-generators/systemd-crontab-generator", "")
    assert len(problems(site, root)) == 1
    (root / "run/systemd/system").mkdir(parents=True)
    assert problems(site, root) == []


@pytest.mark.servers
def test_a_timer_without_systemd(site: Site, root: Path) -> None:
    units = root / "etc/systemd/system"
    put(units / "sapd.timer", "[Timer]\nOnCalendar=minutely\n")
    service = f"[Service]\nUser=daemon\nExecStart=/nowhere/sapd run -c {site.config}\n"
    put(units / "sapd.service", service)
    (units / "timers.target.wants").mkdir()
    (units / "timers.target.wants/sapd.timer").symlink_to(units / "sapd.timer")
    where = units / "timers.target.wants/sapd.timer"
    process(root, "runit")
    missing = f"{where}: the program that it starts, /nowhere/sapd, is missing; {REMEDY}"
    assert missing in problems(site, root)
    reason = "systemd does not run here, and so starts nothing; see sapd init --cron"
    assert f"{where}: {reason}" in problems(site, root)
    (root / "run/systemd/system").mkdir(parents=True)
    assert f"{where}: {reason}" not in problems(site, root)
