"""Can sendmail read the map? What is said of its files and folders, and real sendmail agrees."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sapd.check import readable
from tests.folders import ME, put
from tests.servers.namespace import Namespace
from tests.servers.sendmail import MAP_GROUP, MAP_OWNER, Sendmail

OWN = "192.0.2.10"
ACCESS = "FEATURE(`access_db', , `skip')dnl\n"
DAEMON = "daemon"  # an account that is neither root nor TrustedUser


def test_without_a_configuration_nothing_is_said(tmp_path: Path) -> None:
    database = str(put(tmp_path / "access.db", "", 0))
    assert readable.why_unreadable(database, str(tmp_path / "missing.cf")) is None
    for text in ("O RunAsUser=no-such-user\n", "O RunAsUser=root:no-such-group\n"):
        cf = put(tmp_path / "sendmail.cf", text)
        assert readable.why_unreadable(database, str(cf)) is None


@pytest.mark.parametrize(
    ("lines", "uid", "groups", "trusted"),
    [
        ("V10\n", 0, {0}, None),
        ("O TrustedUser=daemon\n", 0, {0}, 1),
        ("O TrustedUser=bin\nO trusteduser = daemon # remark\n", 0, {0}, 1),
        ("O TrustedUser=2\n#O TrustedUser=daemon\nOTrustedUser=daemon\n", 0, {0}, 2),
        ("O TrustedUser=no-such-user\n", 0, {0}, None),
        ("O RunAsUser=bin\nO RunAsUser=daemon\n", 1, {1}, None),
        ("O RunAsUser=1\n", 1, {1}, None),
        ("O RunAsUser=daemon:bin\n", 1, {2}, None),
        ("O RunAsUser=daemon.bin\n", 1, {2}, None),
        ("O RunAsUser=daemon:2\n", 1, {2}, None),
    ],
)
def test_what_sendmail_cf_says(
    tmp_path: Path, lines: str, uid: int, groups: set[int], trusted: int | None
) -> None:
    sendmail = readable._sendmail(str(put(tmp_path / "sendmail.cf", lines)))
    assert sendmail is not None
    assert (sendmail.uid, {*sendmail.groups}, sendmail.trusted) == (uid, groups, trusted)


def test_a_missing_map_or_folder_is_not_its_matter(folder: Path) -> None:
    cf = str(put(folder / "sendmail.cf", "V10/Debian\n"))
    for name in ("access.db", "missing/access.db"):
        assert readable.why_unreadable(str(folder / name), cf) is None
        assert str(folder) not in "\n".join(readable.writable_folders(str(folder / name), cf))
    (folder / "loop").symlink_to("loop")
    assert readable.why_unreadable(str(folder / "loop/access.db"), cf) is None
    assert str(folder) not in readable.writable_folders(str(folder / "loop/access.db"), cf)


def test_what_is_said(folder: Path) -> None:
    (folder / "mail").mkdir()
    database = put(folder / "mail/access.db", "", 0)
    cf = put(folder / "sendmail.cf", "O RunAsUser=root\n")
    me = readable._user(ME)
    assert readable.why_unreadable(str(database), str(cf)) == (
        f"sendmail (as root) can't read it, which is {me}'s with mode 0000; chmod 0644 {database}"
    )
    database.chmod(0o644)
    assert readable.why_unreadable(str(database), str(cf)) is None
    database.unlink()
    database.mkdir()
    assert readable.why_unreadable(str(database), str(cf)) == "is not a regular file; move it away"
    (folder / "mail").chmod(0o600)
    assert readable.why_unreadable(str(database), str(cf)) == (
        f"sendmail (as root) can't pass {folder}/mail, which is {me}'s with mode 0600; "
        f"chmod a+x {folder}/mail"
    )
    (folder / "mail").chmod(0o700)


@pytest.mark.parametrize(
    ("lines", "groups", "others"),
    [
        ("", True, True),
        ("O DontBlameSendmail=safe\n", True, True),
        ("O dontblamesendmail = GroupWritableDirPathSafe\n", False, True),
        ("O DontBlameSendmail=TrustStickyBit,\n\tMapInUnsafeDirPath\n", False, False),
        ("O DontBlameSendmail=MapInUnsafeDirPath\nO DontBlameSendmail=Safe\n", True, True),
        ("O DontBlameSendmail=MapInUnsafeDirPath\nO DontBlameSendmail=x y\n", False, False),
        ("#O DontBlameSendmail=MapInUnsafeDirPath\n", True, True),
        ("ODontBlameSendmail=MapInUnsafeDirPath\n", True, True),
    ],
)
def test_folders_in_which_others_write(
    tmp_path: Path, lines: str, groups: bool, others: bool
) -> None:
    cf = str(put(tmp_path / "sendmail.cf", f"V10\n{lines}"))
    mail = tmp_path / "mail"
    mail.mkdir()
    for mode, expected in ((0o755, False), (0o775, groups), (0o757, others), (0o777, others)):
        mail.chmod(mode)
        folders = readable.writable_folders(str(mail / "access.db"), cf)
        assert (str(mail) in folders) == expected, oct(mode)


def test_sticky_folders_count_where_sendmail_counts_them(tmp_path: Path) -> None:
    mail = tmp_path / "mail"
    mail.mkdir()
    mail.chmod(0o1777)
    database = str(mail / "access.db")
    cf = put(tmp_path / "sendmail.cf", "O DontBlameSendmail=TrustStickyBit\n")
    assert str(mail) not in readable.writable_folders(database, str(cf))
    assert str(mail) not in readable.writable_folders(database, str(tmp_path / "missing.cf"))
    put(cf, "V10\n")
    assert str(mail) in readable.writable_folders(database, str(cf))


def test_symbolic_links_to_folders_are_followed(tmp_path: Path) -> None:
    cf = str(put(tmp_path / "sendmail.cf", "V10\n"))
    (tmp_path / "srv/unsafe/mail").mkdir(parents=True)
    (tmp_path / "srv/unsafe").chmod(0o775)
    for name, target in (
        ("one", "srv/unsafe/mail"), ("two", "one"), ("three", f"{tmp_path}/srv/unsafe/mail"),
        ("four", f"../{tmp_path.name}/srv/./unsafe/mail/../mail"), ("loop", "loop"),
    ):  # fmt: skip
        (tmp_path / name).symlink_to(target)
        unsafe = [str(tmp_path / "srv/unsafe")] * (name != "loop")
        folders = readable.writable_folders(str(tmp_path / name / "access.db"), cf)
        assert [os.path.realpath(place) for place in folders if "unsafe" in place] == unsafe


def own(path: Path, owner: str, group: str, mode: int) -> None:
    shutil.chown(path, owner, group)
    path.chmod(mode)


class Maps:
    """A sendmail whose map's file and folder a test may change, and what it makes of them."""

    def __init__(self, namespace: Namespace, sendmail: Sendmail) -> None:
        self.namespace = namespace
        self.sendmail = sendmail
        self.mail = sendmail.mail
        self.database = sendmail.mail / "access.db"
        self.cf = str(sendmail.configuration)

    def set_up(self) -> None:
        if self.mail.is_symlink():
            self.mail.unlink()
        self.mail.mkdir(exist_ok=True)
        own(self.mail, MAP_OWNER, MAP_GROUP, 0o2755)
        for path in self.mail.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        command = ["makemap", "hash", str(self.database)]
        subprocess.run(command, input=f"Connect:{OWN} RELAY\n".encode(), check=True)
        own(self.database, MAP_OWNER, MAP_GROUP, 0o640)

    def agree(self, reads: bool, what: object = "") -> None:
        """Sendmail reads the map, or not; and so says sapd."""
        answer = self.namespace.probe(OWN)
        assert (answer.code == 250) == reads, (what, answer)
        reason = readable.why_unreadable(str(self.database), self.cf)
        folders = readable.writable_folders(str(self.database), self.cf)
        assert (reason is None and folders == []) == reads, (what, reason, folders)


@contextmanager
def maps(folder: Path, more: str = "", user: str = "") -> Iterator[Maps]:
    """Sendmail with more lines in its sendmail.mc; `user` must be able to write its queue."""
    (folder / "queue").mkdir()
    if user:
        more += f"define(`confRUN_AS_USER', `{user}')dnl\n"
        for path in (folder, folder / "queue"):
            shutil.chown(path, user.partition(":")[0])
    with Namespace([OWN]) as namespace, Sendmail(namespace, folder, ACCESS + more) as sendmail:
        yield Maps(namespace, sendmail)


FILES_AS_ROOT = [
    ("root", "root", 0o600, True), ("root", "root", 0o400, True), ("root", "root", 0o000, False),
    ("root", "root", 0o044, False), (MAP_OWNER, MAP_GROUP, 0o640, True),
    (MAP_OWNER, MAP_OWNER, 0o400, True), (MAP_OWNER, MAP_GROUP, 0o000, False),
    (DAEMON, DAEMON, 0o600, False), (DAEMON, DAEMON, 0o640, False), (DAEMON, DAEMON, 0o604, True),
    (DAEMON, DAEMON, 0o644, True), (DAEMON, "root", 0o640, True), (DAEMON, "root", 0o604, False),
    (DAEMON, MAP_GROUP, 0o640, False), ("root", "root", 0o660, True), ("root", "root", 0o666, True),
    (DAEMON, DAEMON, 0o666, True), (MAP_OWNER, MAP_GROUP, 0o664, True),
]  # fmt: skip
FOLDERS_AS_ROOT = [
    ("root", "root", 0o700, True), ("root", "root", 0o000, False),
    (MAP_OWNER, MAP_GROUP, 0o2755, True), (MAP_OWNER, MAP_GROUP, 0o2750, False),
    (MAP_OWNER, MAP_GROUP, 0o700, False), (DAEMON, DAEMON, 0o700, False),
    (DAEMON, "root", 0o750, True), (DAEMON, DAEMON, 0o701, True), (DAEMON, DAEMON, 0o755, True),
    ("root", "root", 0o775, False), ("root", "root", 0o757, False), ("root", "root", 0o1777, True),
    ("root", "root", 0o1775, True), (DAEMON, DAEMON, 0o1777, True),
]  # fmt: skip


@pytest.mark.servers
def test_sendmail_as_root_agrees(folder: Path) -> None:
    with maps(folder) as site:
        site.set_up()
        site.agree(True)
        for owner, group, mode, reads in FILES_AS_ROOT:
            own(site.database, owner, group, mode)
            site.agree(reads, (owner, group, oct(mode)))
        site.set_up()
        for owner, group, mode, reads in FOLDERS_AS_ROOT:
            own(site.mail, owner, group, mode)
            site.agree(reads, (owner, group, oct(mode)))
        site.set_up()
        folder.chmod(0o775)
        site.agree(False, "the folder above")
        folder.chmod(0o755)
        site.database.symlink_to(site.database.rename(site.mail / "real.db"))
        site.agree(True, "a symbolic link")
        site.set_up()
        (site.mail / "second").hardlink_to(site.database)
        site.agree(True, "a hard link")
        site.set_up()
        site.database.unlink()
        os.mkfifo(site.database)
        site.agree(False, "no regular file")
        site.set_up()
        real = folder / "srv" / "mail"
        for mode, reads in ((0o755, True), (0o775, False), (0o1777, True)):
            real.parent.mkdir(exist_ok=True)
            real.parent.chmod(mode)
            if not real.exists():
                site.mail.rename(real)
                site.mail.symlink_to("srv/mail")
            site.agree(reads, ("a folder behind a symbolic link", oct(mode)))


@pytest.mark.servers
@pytest.mark.parametrize(
    ("user", "files", "folders"),
    [
        (
            MAP_OWNER,
            [
                (MAP_OWNER, MAP_GROUP, 0o600, True), (MAP_OWNER, MAP_OWNER, 0o040, False),
                ("root", "root", 0o600, False), ("root", "root", 0o644, True),
                ("root", MAP_OWNER, 0o640, True), ("root", MAP_GROUP, 0o640, False),
                (DAEMON, DAEMON, 0o640, False),
            ],
            [
                (MAP_OWNER, MAP_OWNER, 0o700, True), ("root", "root", 0o700, False),
                ("root", MAP_OWNER, 0o750, True), (MAP_OWNER, MAP_OWNER, 0o775, False),
                ("root", "root", 0o1777, True),
            ],
        ),
        (
            f"{DAEMON}:{MAP_GROUP}",
            [
                (MAP_OWNER, MAP_GROUP, 0o640, True), ("root", MAP_GROUP, 0o640, True),
                (MAP_OWNER, MAP_OWNER, 0o640, False), ("root", DAEMON, 0o640, False),
                ("root", "root", 0o640, False),
                ("root", "root", 0o644, True), (DAEMON, DAEMON, 0o600, True),
            ],
            [(MAP_OWNER, MAP_GROUP, 0o2750, True), (MAP_OWNER, MAP_GROUP, 0o700, False)],
        ),
    ],
)  # fmt: skip
def test_sendmail_as_another_user_agrees(
    folder: Path,
    user: str,
    files: list[tuple[str, str, int, bool]],
    folders: list[tuple[str, str, int, bool]],
) -> None:
    with maps(folder, user=user) as site:
        site.set_up()
        for owner, group, mode, reads in files:
            own(site.database, owner, group, mode)
            site.agree(reads, (owner, group, oct(mode)))
        site.set_up()
        own(site.database, "root", "root", 0o644)
        for owner, group, mode, reads in folders:
            own(site.mail, owner, group, mode)
            site.agree(reads, (owner, group, oct(mode)))


@pytest.mark.servers
@pytest.mark.parametrize(
    ("blame", "mode", "reads"),
    [
        ("TrustStickyBit,MapInUnsafeDirPath", 0o777, True),
        ("TrustStickyBit, groupwritabledirpathsafe", 0o775, True),
        ("TrustStickyBit,GroupWritableDirPathSafe", 0o757, False),
        ("safe", 0o755, False),  # the folder lies in /tmp
    ],
)
def test_sendmail_agrees_on_its_exemptions(
    folder: Path, blame: str, mode: int, reads: bool
) -> None:
    with maps(folder, f"define(`confDONT_BLAME_SENDMAIL', `{blame}')dnl\n") as site:
        site.set_up()
        site.mail.chmod(mode)
        site.agree(reads)


@pytest.mark.servers
@pytest.mark.parametrize(("trusted", "reads"), [(DAEMON, False), ("", False)])
def test_sendmail_agrees_on_its_trusted_user(folder: Path, trusted: str, reads: bool) -> None:
    more = f"define(`confTRUSTED_USER', `{trusted}')dnl\n" if trusted else ""
    with maps(folder, more or "undefine(`confTRUSTED_USER')dnl\n") as site:
        site.set_up()
        site.agree(reads)
        own(site.database, DAEMON, DAEMON, 0o600)
        site.agree(trusted == DAEMON)
