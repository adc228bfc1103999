"""What people expect of a command line: where options stand, which times it takes and shows."""

import re
import shutil
import time
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.servers.mounts import another_zone
from tests.servers.unprivileged import PREFIX, PYTHON, installed_for_everybody
from tests.site import Site, login, when
from tests.test_cli import sapd

NOW = int(time.time())


@pytest.mark.makemap
def test_options_before_and_behind_the_command(site: Site) -> None:
    site.write(login("192.0.2.10"))
    path = str(site.config)
    wrong = {"SAPD_CONFIG": "/nonexistent"}
    for args in (
        ["-c", path, "run", "-v"], ["-v", "run", "-c", path], ["-v", "-c", path, "run"],
        ["-c", "/nonexistent", "run", "-v", "-c", path],
    ):  # fmt: skip
        done = sapd(*args, env=wrong)
        assert (done.returncode, done.stderr) == (0, ""), args
        assert done.stdout != ""
    assert "read " in sapd("-v", "-c", path, "run", "-v").stdout  # -vv
    assert sapd("-c", "/nonexistent", "list").returncode == 78


@pytest.mark.makemap
def test_run_says_that_nothing_is_new(site: Site) -> None:
    site.write(login("192.0.2.10"))
    assert "nothing new" not in site.sapd("run", "-v").stdout
    assert site.sapd("run", "-v").stdout == "nothing new\n"
    assert site.sapd("run").stdout == ""
    site.log.unlink()
    assert "nothing new" not in site.sapd("run", "-v").stdout


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("now", 0),
        ("NOW", 0),
        ("-10m", 600),
        ("-2h", 7200),
        ("today", None),
        ("yesterday 14:00", None),
        ("00:00", None),
        ("2026-11-22", None),
        ("Nov 22 10:41:05", None),
        ("2026-11-22T10:41:05+0100", None),
    ],
)
def test_moments_that_people_type(site: Site, text: str, ago: int | None) -> None:
    done = site.sapd("who", "192.0.2.1", "--at", text)
    assert (done.returncode, done.stderr) == (0, "")
    if ago is not None:
        shown = datetime.fromisoformat(done.stdout.split("at ")[1].split(": ")[0])
        assert 0 <= time.time() - ago - shown.timestamp() < 30


@pytest.mark.parametrize(
    "text", ["10m", "9.3.2026", "3/9/2026", "14", "tomorrow", "yesterdayish", "today x", "2026", ""]
)
def test_moments_are_not_guessed(site: Site, text: str) -> None:
    done = site.sapd("list", "--at", text)
    assert (done.returncode, done.stdout) == (2, "")
    assert f'"{text}" is not a time; write "2026-11-22 10:41", ' in done.stderr
    assert done.stderr.count("\n") == 1


def test_who_does_not_tell_the_future(site: Site) -> None:
    future = when(time.time() + 60)
    for asked in ("192.0.2.1", "bob"):
        done = site.sapd("who", asked, "--at", future)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{future} is in the future; sapd list --at" in done.stderr
    assert site.sapd("list", "--at", future).returncode == 0


@pytest.mark.servers
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/St_Johns"])
def test_times_are_shown_in_the_systems_zone_and_can_be_pasted(site: Site, zone: str) -> None:
    there = another_zone(zone)
    site.configure(log_settings='timezone = "Asia/Tokyo"')
    site.write(login("192.0.2.10", at=NOW - 60))
    offset = datetime.fromtimestamp(NOW, ZoneInfo(zone)).isoformat()[-6:]
    shown = set()
    for command in ("run -v", "list", "who 192.0.2.10", "who bob", f"match {site.log}"):
        done = site.sapd(*command.split(), prefix=there)
        assert (done.returncode, done.stderr) == (0, "")
        said = done.stdout.replace(" | ", "\0").partition("\0")[0]
        found = re.findall(r"\d{4}-\d\d-\d\dT[\d:]+\S*", said)
        assert found, command
        assert all(one.rstrip("):,").endswith(offset) for one in found), said
        shown |= {one.rstrip("):,") for one in found}
    assert "Z" in site.sapd("list", "--json", prefix=there).stdout
    for moment in shown:
        done = site.sapd("who", "192.0.2.10", "--at", moment, prefix=there)
        assert moment in done.stdout + done.stderr  # of one that is to come, that it is


@pytest.mark.makemap
def test_who_of_an_account(site: Site) -> None:
    site.configure(top='[policy]\ndeny_accounts = ["eve"]')
    site.write(
        login("192.0.2.10", at=NOW - 60),
        login("192.0.2.11", "Bob@default.example", at=NOW - 30),
        login("192.0.2.12", "bobby", at=NOW - 30),
        login("192.0.2.13", "eve", at=NOW - 30),
    )
    site.run()
    first, second, *trail = site.sapd("who", "bob").stdout.splitlines()
    assert first.startswith("192.0.2.10 is open until ")
    assert second.startswith("192.0.2.11 is open until ")
    assert [row.split()[1:4] for row in trail] == [
        ["open", "192.0.2.10", "bob,"],
        ["open", "192.0.2.11", "Bob@default.example,"],
    ]
    assert len(site.sapd("who", "bob@default.example").stdout.splitlines()) == 2
    site.sapd("close", "192.0.2.10")
    assert "192.0.2.10 is closed: sapd close closed it at " in site.sapd("who", "BOB").stdout
    said = site.sapd("who", "eve").stdout.splitlines()
    assert said[0] == 'eve opens nothing: policy.deny_accounts has "eve"'
    assert site.sapd("who", "nobody").stdout == (
        "nobody has no login within the window that could open an address; "
        "fetch mail first, or see what sapd match says of the log\n"
    )
    past = site.sapd("who", "bob", "--at", "now").stdout.splitlines()
    assert past[0].startswith("192.0.2.10 was closed at ")
    assert past[1].startswith("192.0.2.11 was open at ")
    long_ago = site.sapd("who", "bob", "--at", "-10h").stdout
    assert "bob at " in long_ago
    assert ": not known, the trail begins at " in long_ago


@pytest.mark.root
@pytest.mark.makemap
@pytest.mark.parametrize("command", ["list", "who 192.0.2.10", "who bob", "close --all"])
def test_what_this_user_may_not_read_needs_sudo(folder: Path, command: str) -> None:
    site = Site(folder)
    site.write(login("192.0.2.10"))
    site.run()
    done = site.sapd(
        *command.split(), prefix=PREFIX, env=installed_for_everybody(folder), python=PYTHON
    )
    assert done.returncode == 77
    assert done.stderr.endswith("; try it with sudo\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(site: Site, shell: str) -> None:
    script = sapd(env={"_SAPD_COMPLETE": f"{shell}_source"})
    assert script.returncode == 0
    assert "_SAPD_COMPLETE" in script.stdout
    words = "sapd match --format qp"
    done = sapd(
        env={
            "_SAPD_COMPLETE": f"{shell}_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": "3" if shell != "fish" else "qp",
            "SAPD_CONFIG": str(site.config),
        }
    )
    assert "dovecot" not in done.stdout
    assert set(re.findall(r"qpopper[-a-z]*", done.stdout)) == {
        "qpopper", "qpopper-stats", "qpopper-patched"
    }  # fmt: skip


@pytest.mark.servers
@pytest.mark.parametrize("page", ["sapd", "sapd.toml"])
def test_a_manual_page_where_no_program_can_set_it(page: str) -> None:
    done = sapd("man", page, env={"PATH": "/nonexistent"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("NAME\n    sapd")
    assert not re.search(r"\\[fe&(-]|^\.", done.stdout, re.MULTILINE)
    assert "DESCRIPTION\n" in done.stdout
    assert ("\\S+" in done.stdout) == (page == "sapd.toml")


@pytest.mark.servers
@pytest.mark.parametrize("program", ["man", "mandoc"])
def test_a_manual_page_is_set_by_the_systems_program(tmp_path: Path, program: str) -> None:
    found = shutil.which(program)
    assert found is not None
    (tmp_path / program).symlink_to(found)
    path = str(tmp_path) if program == "mandoc" else f"{tmp_path}:/usr/bin:/bin"
    done = sapd("man", env={"PATH": path})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("SAPD(8)")
