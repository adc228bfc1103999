"""Whatever stands where sapd writes, and whoever owns the folder: no foreign file comes to harm."""

import os
import re
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sapd import files
from tests.faults.tracing import Trace
from tests.servers.unprivileged import NOBODY, PYTHON, installed_for_everybody
from tests.site import MAKEMAP, Site, login

pytestmark = pytest.mark.makemap

CLIENT = "198.51.100.7"
LOGINS = [login(f"192.0.2.{number}") for number in range(1, 9)]
SECRET = "only root may read or write this\n"  # noqa: S105


@contextmanager
def unharmed(path: Path) -> Iterator[None]:
    """A file of root's at `path`; wherever it is in the end, it is what it was."""
    path.write_text(SECRET)
    path.chmod(0o600)
    with path.open() as file:
        before = os.fstat(file.fileno())
        yield
        after = os.fstat(file.fileno())
        assert file.read() == SECRET
    for what in ("st_uid", "st_gid", "st_mode", "st_size", "st_mtime_ns"):
        assert getattr(after, what) == getattr(before, what), what


# What may stand at a name. The target of a link is root's.

KINDS: dict[str, Callable[[Path, Path], object]] = {
    "symlink": lambda path, secret: path.symlink_to(secret),
    "dangling": lambda path, secret: path.symlink_to(secret.with_name("absent")),
    "hard link": lambda path, secret: path.hardlink_to(secret),
    "fifo": lambda path, _: os.mkfifo(path),
    "folder": lambda path, _: path.mkdir(),
    "device": lambda path, _: os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3)),
}

# The statuses of a run, kind by kind in the order above. A lock need not be a file to be locked.
STATUSES: dict[str, list[int | None]] = {
    "state/lock": [73, 73, 0, 0, 0, 0],
    "state/state.json": [65, 65, 65, 65, 65, 65],
    "state/state.json.new": [0, 0, 0, 0, 73, 0],
    "state/audit.jsonl": [73, 73, 73, 73, 73, 73],
    "access.db": [73, 73, 73, 73, 73, 73],
    "access.sapd-new.db": [0, 0, 0, 0, 73, 0],
    "qpopper": [None, 66, None, 66, 66, 66],  # what links do to a log has a test of its own
}


@pytest.mark.root
@pytest.mark.parametrize(
    ("name", "kind", "status"),
    [
        (name, kind, status)
        for name, statuses in STATUSES.items()
        for kind, status in zip(KINDS, statuses, strict=True)
        if status is not None
    ],
)
def test_nothing_is_written_through_what_was_planted(
    site: Site, name: str, kind: str, status: int
) -> None:
    site.configure(log_settings="keep_lines = 1")
    site.state.parent.mkdir()
    site.write(*LOGINS)
    planted, secret = site.folder / name, site.folder / "secret"
    with unharmed(secret):
        planted.unlink(missing_ok=True)
        KINDS[kind](planted, secret)
        done = site.run(status=status)
    assert done.stderr.count("\n") == (status != 0)
    assert not (site.folder / "absent").exists()
    if status in (0, 65) or name == "state/audit.jsonl":
        assert "192.0.2.1" in site.relaying()


@pytest.mark.parametrize("kind", ["symlink", "hard link"])
def test_a_log_behind_a_link_is_not_cut(site: Site, kind: str) -> None:
    site.configure(log_settings="keep_lines = 1")
    site.write(*LOGINS)
    real = site.log.rename(site.folder / "real")
    KINDS[kind](site.log, real)
    before = real.read_bytes()
    assert site.run(status=73).stderr.count("\n") == 1
    assert real.read_bytes() == before
    assert "192.0.2.1" in site.relaying()


@pytest.mark.root
@pytest.mark.parametrize("kind", ["symlink", "dangling", "hard link", "fifo", "device"])
def test_what_stands_at_the_name_for_a_damaged_state_goes(site: Site, kind: str) -> None:
    """Of every second that this run can take."""
    site.run()
    site.state.write_text("damaged")
    secret = site.folder / "secret"
    with unharmed(secret):
        now = datetime.now(UTC)
        for second in range(60):
            stamp = (now + timedelta(seconds=second)).strftime("%Y%m%dT%H%M%SZ")
            KINDS[kind](site.state.with_name(f"state.json.damaged-{stamp}"), secret)
        (aside,) = re.findall(r"set aside as (\S+),", site.run(status=65).stderr)
    assert not site.state.with_name(aside).is_symlink()
    assert site.state.with_name(aside).read_text() == "damaged"


@pytest.mark.root
@pytest.mark.parametrize("kind", ["dangling", "hard link", "fifo", "device"])
def test_a_state_folder_that_is_none_is_refused(site: Site, kind: str) -> None:
    with unharmed(site.folder / "secret"):
        KINDS[kind](site.state.parent, site.folder / "secret")
        assert site.run(status=73).stderr.count("\n") == 1
    assert not (site.folder / "absent").exists()


def test_a_state_folder_behind_a_link_is_the_administrators_choice(site: Site) -> None:
    (site.folder / "elsewhere").mkdir()
    site.state.parent.symlink_to("elsewhere")
    site.write(*LOGINS)
    site.run()
    assert (site.folder / "elsewhere" / "state.json").is_file()


# Root in another user's folder.


@pytest.fixture
def foreign(folder: Path) -> Site:
    """A site with a separate map, whose folder, with the state, belongs to nobody."""
    installed_for_everybody(folder)
    site = Site(folder)
    site.database = site.state.with_name("relay.db")
    site.config.write_text(
        site.config.read_text()
        .replace('source = "access"', 'makemap = "makemap"')
        .replace("access.db", "state/relay.db")
    )
    site.state.parent.mkdir()
    os.chown(site.state.parent, NOBODY, NOBODY)
    (folder / "makemap").symlink_to(MAKEMAP)
    everybodys = folder / "everybodys"
    everybodys.mkdir()
    everybodys.chmod(0o777)
    return site


def run_by_root(site: Site, prefix: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    env = {"PYTHONPATH": str(site.folder / "library"), "PYTHONSAFEPATH": "1"}
    return site.sapd("run", prefix=prefix, env=env, python=PYTHON)


def readable_by_nobody(site: Site) -> str:
    return "".join(
        path.read_text(errors="replace")
        for path in site.state.parent.iterdir()
        if path.is_file() and (path.stat().st_uid == NOBODY or path.stat().st_mode & 0o004)
    )


@pytest.mark.root
@pytest.mark.parametrize(
    "name",
    ["lock", "state.json", "state.json.new", "audit.jsonl", "relay.db", "relay.sapd-new.db"],
)
@pytest.mark.parametrize("way", ["moved", "linked"])
def test_what_the_folders_owner_put_there_does_not_become_his(
    foreign: Site, name: str, way: str
) -> None:
    """A link is what a system without fs.protected_hardlinks would let him make."""
    secret = foreign.folder / "everybodys" / "secret"
    foreign.write(*LOGINS)
    with unharmed(secret):
        planted = foreign.state.with_name(name)
        if way == "linked":
            planted.hardlink_to(secret)
        else:
            secret.rename(planted)
        done = run_by_root(foreign)
        assert done.stderr.count("\n") == (done.returncode != 0)
        assert SECRET not in readable_by_nobody(foreign)


# What the folder's owner may do the moment makemap has ended, in his own name.
SWAPS = {
    "moved": 'mv -f everybodys/secret "$new"',
    "symlink": 'ln -sf "$PWD/everybodys/secret" "$new"',
    "linked": 'ln -f everybodys/secret "$new"',
    "fifo": 'rm -f "$new" && mkfifo "$new"',
}


def swap_behind_makemap(site: Site, swap: str) -> None:
    """Have it done when makemap has shown what is in the new map, which is its last work."""
    makemap = site.folder / "makemap"
    makemap.unlink(missing_ok=True)
    makemap.write_text(
        f'#!/bin/sh\n{MAKEMAP} "$@" || exit\ncase " $*" in *" -u "*)\n'
        f"cd {site.folder}; for new; do :; done; {swap}\nesac 2>/dev/null\nexit 0\n"
    )
    makemap.chmod(0o755)


@pytest.mark.root
@pytest.mark.parametrize("swap", SWAPS.values(), ids=SWAPS)
@pytest.mark.parametrize("there", [True, False], ids=["to copy", "to rename"])
def test_a_new_map_that_was_swapped_gives_nothing_away(
    foreign: Site, swap: str, there: bool
) -> None:
    if there:
        assert run_by_root(foreign).returncode == 0
    swap_behind_makemap(foreign, swap)
    foreign.write(*LOGINS)
    with unharmed(foreign.folder / "everybodys" / "secret"):
        done = run_by_root(foreign)
        assert done.stderr.count("\n") == (done.returncode != 0)
        assert SECRET not in readable_by_nobody(foreign)


@pytest.mark.parametrize("swap", SWAPS.values(), ids=SWAPS)
def test_a_new_map_of_roots_that_was_swapped_is_refused(site: Site, swap: str) -> None:
    """Debian's /etc/mail belongs to a user of sendmail's."""
    site.configure(access_settings='makemap = "makemap"')
    (site.folder / "everybodys").mkdir()
    swap_behind_makemap(site, swap)
    with unharmed(site.folder / "everybodys" / "secret"):
        done = site.run(status=73)
    assert "sapd-new.db: was replaced while it was made" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not site.database.exists()


@pytest.mark.servers
def test_root_becomes_the_owner_before_the_first_look_into_his_folder(
    foreign: Site, tmp_path: Path
) -> None:
    foreign.write(*LOGINS)
    trace = Trace(tmp_path / "trace")
    assert run_by_root(foreign, trace.prefix).returncode == 0
    ours, *children = trace.processes()
    became = [call.name for call in ours].index("setuid")
    assert ours[became].arguments == str(NOBODY)
    assert [call.name for call in ours[:became]].count("setgroups") == 1
    inside = f"{foreign.state.parent}/"
    earlier, later = (
        [call for call in calls if any(path.startswith(inside) for path in call.paths)]
        for calls in (ours[:became], ours[became:])
    )
    before, after = ({call.name for call in calls} for calls in (earlier, later))
    assert before <= {"newfstatat", "readlink", "openat"}  # are two paths of the settings one file?
    opened = [call for call in earlier if call.name == "openat"]
    assert [call.paths for call in opened] == [[str(foreign.state.with_name("idle"))]]
    assert "O_RDONLY|O_NONBLOCK|O_NOFOLLOW|O_CLOEXEC" in opened[0].arguments
    assert after >= {"openat", "rename", "unlink"}
    assert not any("chown" in name for name in after)
    assert len(children) == 2


@pytest.mark.root
def test_a_process_that_may_not_become_the_owner_says_so(foreign: Site) -> None:
    confined = ("setpriv", "--bounding-set=-setuid,-setgid")
    done = run_by_root(foreign, confined)
    assert done.returncode == 77
    assert done.stderr == (
        f"sapd: error: {foreign.state.parent}: belongs to user {NOBODY}, whom root can't become: "
        "Operation not permitted\n"
    )


@pytest.mark.root
def test_an_owner_who_may_not_read_the_program_is_named(foreign: Site) -> None:
    library = foreign.folder / "library"
    library.chmod(0o700)
    foreign.write(*LOGINS)
    done = run_by_root(foreign)
    assert done.returncode == 77
    assert done.stderr == (
        f"sapd: error: {foreign.state.parent}: belongs to user {NOBODY}, who may not read "
        f"{library}/sapd/files.py of this program\n"
    )
    assert os.listdir(foreign.state.parent) == []


def test_a_file_is_ours_alone_only_under_its_only_name(tmp_path: Path) -> None:
    """However the names come and go between open and look."""
    secret, path = tmp_path / "secret", tmp_path / "access.db"
    secret.write_text(SECRET)
    path.hardlink_to(secret)
    with path.open() as file:
        assert not files.same_file(str(path), file.fileno())
        path.unlink()
        assert not files.same_file(str(path), file.fileno())
        secret.rename(path)
        assert files.same_file(str(path), file.fileno())
