"""Whether the user as whom a run goes on may do what it must, asked by root."""

import json
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sapd import check, config
from tests.folders import put
from tests.servers.unprivileged import PYTHON, installed_for_everybody
from tests.site import Site, login

pytestmark = [pytest.mark.makemap, pytest.mark.root]

DAEMON = pwd.getpwnam("daemon")


@pytest.fixture
def site(folder: Path) -> Site:
    """A site whose runs go on as daemon, to whom the folder of its separate map belongs."""
    made = Site(folder)
    text = made.config.read_text().replace('source = "access"', "")
    made.config.write_text(text.replace('database = "access.db"', 'database = "state/relay.db"'))
    made.source.unlink()
    made.log.chmod(0o644)
    (folder / "state").mkdir()
    shutil.chown(folder / "state", "daemon", "daemon")
    made.write(login("192.0.2.10"))
    return made


def problems(site: Site, root: Path | None = None) -> list[str]:
    settings = config.load(str(site.config))
    found = check.findings(settings, str(root or site.folder / "root"))
    # The tests' own Python may lie where daemon can't read it.
    apart = ("nothing starts sapd", "has no map of that file", "install Python and sapd where")
    return [
        finding.text
        for finding in found
        if finding.status and not any(words in finding.text for words in apart)
    ]


def run(site: Site) -> None:
    environment = installed_for_everybody(site.folder)
    assert site.sapd("run", env=environment, python=PYTHON).returncode == 0


def test_a_sound_one(site: Site) -> None:
    run(site)
    assert (site.folder / "state/state.json").stat().st_uid == DAEMON.pw_uid
    assert problems(site) == []


@pytest.mark.parametrize("name", ["state.json", "lock", "audit.jsonl", "relay.db"])
def test_a_file_of_another_owner(site: Site, name: str) -> None:
    run(site)
    path = site.folder / "state" / name
    os.chown(path, 0, 0)
    path.chmod(0o600)
    assert problems(site) == [
        f"{path}: belongs to root, and a run goes on as daemon; chown daemon {path}"
    ]


def test_a_map_in_another_ones_folder(tmp_path: Path, site: Site) -> None:
    """The crontab's user is not the one to whom the folder belongs."""
    text = site.config.read_text().replace('directory = "state"', 'directory = "own"')
    site.config.write_text(text)
    (site.folder / "own").mkdir()
    shutil.chown(site.folder / "own", "bin", "bin")
    program = Path(sys.executable).with_name("sapd")
    root = tmp_path / "root"
    put(root / "etc/cron.d/sapd", f"* * * * * bin {program} run -c {site.config}\n")
    folder = site.folder / "state"
    reason = f"{folder}: belongs to daemon, and a run goes on as bin; chown bin {folder}"
    assert reason in problems(site, root)


def test_all_of_another_owner_is_one_finding(site: Site) -> None:
    run(site)
    state = site.folder / "state"
    for name in ("state.json", "lock"):
        os.chown(state / name, 0, 0)
    assert problems(site) == [
        f"{state}/state.json: belongs to root, and a run goes on as daemon; chown -R daemon {state}"
    ]


def test_a_log_that_he_may_not_read(site: Site) -> None:
    run(site)
    shutil.chown(site.log, "root", "adm")
    site.log.chmod(0o640)
    reason = "can't be read by daemon, as whom a run goes on"
    assert problems(site) == [f"{site.log}: {reason}; usermod -aG adm daemon"]
    site.log.chmod(0o600)
    assert problems(site) == [
        f"{site.log}: {reason}; setfacl -m u:daemon:r {site.log}, or chmod o+r it"
    ]
    locked = site.folder / "locked"
    locked.mkdir(0o700)
    text = site.config.read_text().replace('path = "qpopper"', 'path = "locked/qpopper"')
    site.config.write_text(text)
    site.log.rename(locked / "qpopper")
    assert problems(site) == [f"{locked}/qpopper: {reason}; let him pass {locked}"]


def test_a_log_that_he_may_not_cut(site: Site) -> None:
    text = site.config.read_text().replace("[[log]]", "[[log]]\nkeep_lines = 1000")
    site.config.write_text(text)
    run(site)
    assert problems(site) == [
        f"{site.log}: can't be cut by daemon, as whom a run goes on; "
        "let him write to it, or take keep_lines out"
    ]


def test_the_user_of_the_crontab(tmp_path: Path, site: Site) -> None:
    """Root's own files in a folder that is another's: the crontab says whose run it is."""
    run(site)
    state = site.folder / "state"
    for path in (state, *state.glob("*[!b]")):  # but for the map
        os.chown(path, 0, 0)
    root = tmp_path / "root"
    program = Path(sys.executable).with_name("sapd")
    put(root / "etc/cron.d/sapd", f"* * * * * root {program} run -c {site.config}\n")
    assert problems(site, root) == []
    put(root / "etc/cron.d/sapd", f"* * * * * daemon {program} run -c {site.config}\n")
    reason = f"{state}: belongs to root, and a run goes on as daemon; chown -R daemon {state}"
    assert reason in problems(site, root)
    crontab = Path(put(root / "var/spool/cron/crontabs/daemon", ""))
    (root / "etc/cron.d/sapd").unlink()
    crontab.write_text(f"* * * * * {program} run -c {site.config}\n")
    assert reason in problems(site, root)


def test_a_state_that_he_can_not_make(tmp_path: Path, site: Site) -> None:
    text = site.config.read_text().replace('directory = "state"', 'directory = "elsewhere"')
    site.config.write_text(text)
    state = site.folder / "elsewhere"
    assert f"{state}: is missing, and daemon, as whom a run goes on, can't make it; " in "\n".join(
        problems(site)
    )


def test_as_json(site: Site) -> None:
    run(site)
    (site.folder / "state/lock").chmod(0o600)
    os.chown(site.folder / "state/lock", 0, 0)
    done = site.sapd("check", "--json")
    rows = json.loads(done.stdout)
    assert {tuple(row) for row in rows} == {("state", "text", "remedy", "status")}
    assert {row["state"] for row in rows} == {"ok", "note", "problem"}
    assert all(bool(row["status"]) == (row["state"] == "problem") for row in rows)
    assert done.returncode == next(row["status"] for row in rows if row["status"])
    lock = site.folder / "state/lock"
    assert {
        "state": "problem",
        "text": f"{lock}: belongs to root, and a run goes on as daemon",
        "remedy": f"chown daemon {lock}",
        "status": 77,
    } in rows
    site.config.write_text("x = 1\nwindow = 3\n")
    done = site.sapd("check", "--json")
    assert (done.returncode, done.stderr) == (78, "")
    assert {row["status"] for row in json.loads(done.stdout)} == {78}
    plain = subprocess.run(
        [sys.executable, "-m", "sapd", "check", "-c", str(site.config)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (plain.returncode, plain.stdout) == (78, "")
