"""The findings of `sapd check`: what is sound, and what is not, with its remedy."""

import os
import pwd
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sapd import check, config
from sapd.check.finding import Finding, Note
from tests import samples
from tests.servers.mounts import private
from tests.servers.unprivileged import PREFIX, PYTHON, installed_for_everybody
from tests.site import Site, login, noise

pytestmark = [pytest.mark.makemap, pytest.mark.root]  # cron heeds no tables but root's

SAPD = Path(sys.executable).with_name("sapd")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path, site: Site) -> Path:
    """A folder in the place of /, whose cron starts sapd."""
    crontab = tmp_path / "root" / "etc" / "cron.d" / "sapd"
    crontab.parent.mkdir(parents=True)
    crontab.write_text(f"* * * * * root {SAPD} run -c {site.config}\n")
    return tmp_path / "root"


def findings(site: Site, root: Path) -> list[Finding]:
    return list(check.findings(config.load(str(site.config)), str(root)))


def problems(site: Site, root: Path) -> list[Finding]:
    return [finding for finding in findings(site, root) if finding.status]


def notes(site: Site, root: Path) -> list[str]:
    return [finding.text for finding in findings(site, root) if isinstance(finding, Note)]


def sample(name: str) -> list[str]:
    """Some lines of a format, stamped now, as the samples have them otherwise."""
    stamp = time.strftime("%b %e %H:%M:%S")
    return [
        stamp + samples.data(row)[15:].decode("utf-8", "surrogateescape")
        for row in samples.rows(name)
        if row["format"] == "traditional" and "run" in row and "hostile" not in row
    ]


def test_sound(site: Site, root: Path) -> None:
    site.configure(log_settings="keep_lines = 1000")
    site.write(login("192.0.2.10"))
    site.run()
    found = findings(site, root)
    assert [finding for finding in found if finding.status] == []
    said = [finding.text for finding in found]
    assert (
        f"{site.log}: 1 line read, login: qpopper 1; logout 0, connect 0; frame traditional" in said
    )
    assert f"sapd run is started by {root}/etc/cron.d/sapd:1" in said


def asking(site: Site) -> str:
    """The lines of a sendmail.cf that asks the site's map, also if that is a separate one."""
    return (
        f"O DontBlameSendmail=TrustStickyBit\nKaccess hash {site.source}\n"
        "R$*\t$: $>A <$1> <?> <+ Connect> <$1>\nR$*\t$: <$(access Connect:$1 $: ? $)>\n"
    )


@pytest.mark.servers
def test_the_command_says_so(site: Site, tmp_path: Path) -> None:
    """On a machine whose own cron starts it."""
    site.configure(log_settings="keep_lines = 1000", access_settings='cf = "sendmail.cf"')
    (site.folder / "sendmail.cf").write_text(asking(site))
    site.write(login("192.0.2.10"))
    site.run()
    stage = tmp_path / "stage"
    stage.mkdir()
    script = (
        "rm -rf /etc/cron.d /var/spool/cron/crontabs; mkdir /etc/cron.d\n"
        f"echo '* * * * * root {SAPD} run -c {site.config}' >/etc/cron.d/sapd\n"
        "mkdir -p /var/spool/cron/crontabs\ncron -f & cron=$!\ntrap 'kill $cron' EXIT\nsleep 0.2\n"
        f"{sys.executable} -m sapd check -c {site.config}\n"
        f"rm /etc/cron.d/sapd\n{sys.executable} -m sapd check -c {site.config}\n"
    )
    done = subprocess.run(private(stage, script), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (78, "")
    lines = done.stdout.splitlines()
    assert "ok: sapd run is started by /etc/cron.d/sapd:1" in lines
    bad = [line for line in lines if line.startswith("problem: ")]
    assert bad == [
        "problem: nothing starts sapd run; sapd init --cron >/etc/cron.d/sapd, or "
        "sapd init --systemd"
    ]
    assert any(line.startswith(f"note: {site.log}: any local user can write") for line in lines)


def test_before_the_first_run(site: Site, root: Path) -> None:
    first, second = problems(site, root)
    assert first == Finding(66, f"{site.log}: is empty; does the POP server log here?")
    assert second == Finding(73, f"{site.database}: is missing; sapd run makes it")


@pytest.mark.parametrize(
    ("spoil", "status", "words"),
    [
        (lambda site: site.source.write_text("foo\n"), 69, "line 1: no RHS for LHS foo"),
        (lambda site: os.truncate(site.database, 8192), 69, "was changed since sapd made it"),
        (lambda site: site.configure(access_settings='makemap = "/bin/false"'), 69, "status 1"),
    ],
)
def test_what_would_fail_a_run_or_was_changed(
    site: Site, root: Path, spoil: Callable[[Site], None], status: int, words: str
) -> None:
    site.write(login("192.0.2.10"))
    site.run()
    spoil(site)
    (problem,) = problems(site, root)
    assert problem.status == status
    assert words in problem.text
    assert sorted(os.listdir(site.state.parent)) == [
        "audit.jsonl", "last-pass", "lock", "state.json",
    ]  # fmt: skip


def test_a_state_folder_that_is_none(site: Site, root: Path) -> None:
    site.state.parent.touch()
    assert problems(site, root)[-1].text == f"{site.state.parent}: is not a folder; move it away"


def _linked(trail: Path) -> None:
    trail.symlink_to("elsewhere")


def _with_two_names(trail: Path) -> None:
    trail.touch()
    trail.with_name("other").hardlink_to(trail)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Path.mkdir, "is not a regular file; move it away"),
        (os.mkfifo, "is not a regular file; move it away"),
        (_linked, "is a symbolic link"),
        (_with_two_names, "has hard links"),
    ],
)
def test_an_audit_trail_that_is_no_regular_file(
    site: Site, root: Path, make: Callable[[Path], None], words: str
) -> None:
    site.write(login("192.0.2.10"))
    site.run()
    assert problems(site, root) == []
    site.audit.unlink()
    assert problems(site, root) == []
    make(site.audit)
    (problem,) = problems(site, root)
    assert problem.status == 73
    assert problem.text.startswith(f"{site.audit}: {words}")
    site.configure(top="[audit]\nkeep_lines = 0")
    assert problems(site, root) == []


def test_stamps_of_another_zone(site: Site, root: Path) -> None:
    site.write(login("192.0.2.10"))
    site.run()
    site.write(time.strftime("%b %e %H:%M:%S", time.gmtime(time.time() + 3 * 3600)))
    site.write(' mx1 popper[1]: (v4) POP login by user "bob" at (h) 192.0.2.10\n')
    (problem,) = problems(site, root)
    assert "logins stamped ahead of now: 1; set timezone for this log" in problem.text
    site.write(time.strftime("%b %e %H:%M:%S", time.gmtime(time.time() - 5 * 3600)))
    site.write(' mx1 popper[1]: (v4) POP login by user "bob" at (h) 192.0.2.10\n')
    assert "its last stamp is 5 h before its last change" in problems(site, root)[1].text


def test_everything_wrong(site: Site, root: Path) -> None:
    site.write(login("999.0.0.1"))
    site.run()
    site.database.write_text("no database, but long enough to look at")
    site.source.unlink()
    site.state.write_text("no state")
    site.configure(
        log_settings="keep_lines = 1", access_settings='makemap = "/nonexistent/makemap"'
    )
    site.log.rename(site.folder / "real")
    site.log.symlink_to("real")
    (root / "etc/cron.d/sapd").rename(root / "etc/cron.d/sapd.old")
    said = "\n".join(problem.text for problem in problems(site, root))
    for words in (
        "1 line read, no line in the format qpopper",
        "lines whose address is none: 1",
        "is a symbolic link",
        "/nonexistent/makemap: can't be run",
        f"{site.source}: can't be read",
        "is not a hash database",
        f"{site.state}: can't be used",
        "cron passes over a name with other characters",
        "nothing starts sapd run",
    ):
        assert words in said


def test_a_map_in_a_folder_that_others_may_write_to(site: Site, root: Path) -> None:
    folder = site.folder / "map"
    folder.mkdir()
    site.config.write_text(site.config.read_text().replace("access.db", "map/access.db"))
    site.write(login("192.0.2.10"))
    site.run()
    folder.chmod(0o777)
    assert f"chmod go-w {folder}" in "\n".join(found.text for found in problems(site, root))


def test_a_map_that_sendmail_cannot_read(site: Site, root: Path) -> None:
    cf = root / "etc/mail/sendmail.cf"
    cf.parent.mkdir()
    cf.write_text(f"O TrustedUser=smmta\nO DontBlameSendmail=TrustStickyBit\n{asking(site)}")
    site.write(login("192.0.2.10"))
    for separate in (False, True):
        if separate:
            site.config.write_text(site.config.read_text().replace('source = "access"', ""))
            site.source.unlink()
        site.run()
        site.database.chmod(0o640)
        site.run()
        assert problems(site, root) == []
        os.chown(site.database, pwd.getpwnam("daemon").pw_uid, pwd.getpwnam("daemon").pw_gid)
        site.run()
        (problem,) = problems(site, root)
        assert problem.status == 77
        assert problem.text == (
            f"{site.database}: sendmail (as root) can't read it, which is daemon's with mode "
            f"0640; chmod 0644 {site.database}"
        )
        site.database.unlink()


# ---- The format ----


def test_the_wrong_format(site: Site, root: Path) -> None:
    site.write(*sample("dovecot"), noise(1), *sample("popa3d"))
    first = problems(site, root)[0]
    assert first.status == 66
    assert "no line in the format qpopper; set formats to what has logins here: " in first.text
    assert "dovecot " in first.text
    assert "popa3d " in first.text
    site.configure(log_settings='formats = ["dovecot"]')
    assert not any("in the format" in problem.text for problem in problems(site, root))
    (said,) = [note for note in notes(site, root) if "formats not named" in note]
    assert "which open nothing: popa3d " in said
    site.configure(log_settings='formats = ["auto"]')
    (ok,) = [finding.text for finding in findings(site, root) if "lines read" in finding.text]
    assert "login: dovecot " in ok
    assert "popa3d " in ok


def test_a_qpopper_that_does_not_log_logins(site: Site, root: Path) -> None:
    stats = login("192.0.2.10").split("]: ")[0] + "]: Stats: bob 0 0 0 0 h 192.0.2.10\n"
    site.write(stats)
    first = problems(site, root)[0].text
    assert "no login, only logouts, in the format qpopper" in first
    assert first.endswith("set formats to what has logins here: qpopper-stats 1")
    site.write(login("192.0.2.10"))
    assert not any("qpopper-stats" in finding.text for finding in findings(site, root))


def test_near_misses(site: Site, root: Path) -> None:
    good = login("192.0.2.10")
    site.write(
        *[noise(number) for number in range(3000)],
        "no line at all\n",
        good.replace("popper[4242]", "mypopper[4242]"),
        good.replace("popper[4242]", "popper"),
        good.replace('"bob"', '"bob eve"'),
        good.replace('"bob"', '"bob eve"').replace("4242", "7"),
        *[noise(number) for number in range(100)],
    )
    said = [note for note in notes(site, root) if "nearest" in note]
    assert len(said) == 3
    assert 'it is qpopper\'s, but not a login because of " eve" at ' in said[0]
    assert 'its program, "popper", has no process number' in said[1]
    assert 'its program, "mypopper", is none of' in said[2]


def test_logins_without_an_address(site: Site, root: Path) -> None:
    site.configure(log_settings='formats = ["gnu-mailutils"]')
    site.write(*sample("gnu-mailutils"))
    (problem,) = [found for found in problems(site, root) if "name no address" in found.text]
    assert "logins that name no address, and open nothing: " in problem.text
    site.configure(log_settings='formats = ["gnu-mailutils", "qpopper"]')
    site.write(login("192.0.2.10"))
    assert not any("name no address" in found.text for found in problems(site, root))
    assert any("logins that name no address" in note for note in notes(site, root))


def test_lines_that_are_not_believed(site: Site, root: Path) -> None:
    site.configure(log_settings='formats = ["qpopper", "courier"]')
    good = login("192.0.2.10")
    head = good.partition("popper[")[0] + "pop3d: "
    site.write(
        good,
        f"{head}LOGIN, user=bo{head}LOGIN, user=x, ip=[::ffff:192.0.2.1]\n",
        f"{head}LOGIN, user=bo\0b, ip=[::ffff:192.0.2.1]\n",
        f"{head}LOGIN FAILED, user={'A' * 486}\n",
        f"{head}LOGIN, user=bob, ip=[::ffff:192.0.2.1]\n",
    )
    said = [note for note in notes(site, root) if "not believed" in note]
    start = f"{site.log}: lines not believed, because"
    assert said == [
        f"{start} a message before them was cut: 1; see sapd match --explain",
        f"{start} they may be the work of two writers: 2; see sapd match --explain",
    ]


def test_formats_of_ones_own(site: Site, root: Path) -> None:
    folder = site.folder / "formats.d"
    folder.mkdir()
    (folder / "ours.toml").write_text("x = 1\n")
    site.configure(top='formats_directory = "formats.d"')
    site.write(login("192.0.2.10"))
    site.run()
    (problem,) = problems(site, root)
    assert problem == Finding(78, problem.text)
    assert problem.text.startswith(f"{folder}/ours.toml: line 1: x is not a setting; known are ")
    site.configure(log_settings='formats = ["ours"]', top='formats_directory = "formats.d"')
    site.write(login("192.0.2.11"))
    assert site.run(status=78).stderr == f"sapd: error: {problem.text}\n"


# ---- Who else has a hand in it ----


def test_two_who_shorten_the_log(site: Site, root: Path) -> None:
    site.write(login("192.0.2.10"))
    site.run()
    assert (
        f"{site.log}: nothing shortens it; set keep_lines, or see sapd init --logrotate"
        in notes(site, root)
    )
    conf = root / "etc/logrotate.conf"
    text = (ROOT / "cron" / "logrotate").read_text().replace("/var/log/qpopper", str(site.log))
    conf.write_text(text)
    assert not any("shortens it" in finding.text for finding in findings(site, root))
    site.configure(log_settings="keep_lines = 1000")
    (problem,) = problems(site, root)
    reason = f"keep_lines and {conf} both shorten it; take it out of one of them"
    assert problem == Finding(78, f"{site.log}: {reason}")


def test_a_log_that_local_users_can_write_to(site: Site, root: Path) -> None:
    shipped = (ROOT / "examples" / "rsyslog" / "10-qpopper.conf").read_text()
    conf = root / "etc/rsyslog.conf"
    conf.write_text(shipped.replace("/var/log/qpopper", str(site.log)))
    site.write(login("192.0.2.10"))
    (said,) = [note for note in notes(site, root) if "any local user" in note]
    assert said == (
        f"{site.log}: any local user can write a login there through syslog ({conf}); a file "
        "that only the POP server writes can't be forged so"
    )
    site.log.write_text(
        time.strftime("%b %d %H:%M:%S.123 %Y")
        + ' [77] (v4.0.5) POP login by user "bob" at (h) 192.0.2.10\n'
    )
    assert not any("any local user" in note for note in notes(site, root))


def test_dovecots_own_file_can_not_be_forged(site: Site, root: Path) -> None:
    """Its lines look like those of a syslog that leaves the host out, but syslog has no part."""
    site.configure(log_settings='formats = ["dovecot"]')
    stamp = time.strftime("%b %d %H:%M:%S")
    site.write(
        f"{stamp} pop3-login: Info: Login: user=<bob>, method=PLAIN, rip=192.0.2.10, "
        "lip=192.0.2.1, mpid=45, secured, session=<AaA6pkxhkL9/AAAB>\n"
    )
    assert any("login: dovecot 1" in finding.text for finding in findings(site, root))
    assert not any("any local user" in note for note in notes(site, root))
    (root / "etc/rsyslog.conf").write_text(f"mail.* {site.log}\n")
    assert any("any local user" in note for note in notes(site, root))


def test_schedules(site: Site, root: Path) -> None:
    site.write(login("192.0.2.10"))
    site.run()
    shutil.copy(root / "etc/cron.d/sapd", root / "etc/crontab")
    (said,) = [note for note in notes(site, root) if "started" in note]
    assert said == (
        f"sapd run is started from more than one place: {root}/etc/crontab:1, "
        f"{root}/etc/cron.d/sapd:1"
    )
    shutil.rmtree(root / "etc")
    (problem,) = problems(site, root)
    assert problem.text.startswith("nothing starts sapd run; sapd init --cron")


def test_chatter_is_not_nearer_than_a_near_miss(site: Site, root: Path) -> None:
    head, login_ = login("192.0.2.10").split("(v4.0.5) ")
    for chatter in (
        '(v4.0.5) Servicing request from "h.example.net" at 192.0.2.10 [pop_init.c:1109]',
        "(v4.0.5) Unable to get canonical name of client 192.0.2.10: Unknown host (1)",
        "(v4.0.5) TLSv1 handshake with client at h.example.net (192.0.2.10)",
        "(v4.0.5) Timeout (120 secs) during nw read from bob at h (192.0.2.10)",
    ):
        site.write(f"{head}{chatter}\n")
    site.write(head + login_)
    first = next(note for note in notes(site, root) if "nearest" in note)
    assert "POP login by user" in first


def test_auto_on_a_qpopper_that_does_not_log_logins(site: Site, root: Path) -> None:
    site.configure(log_settings='formats = ["auto"]')
    site.write(login("192.0.2.10").split("]: ")[0] + "]: Stats: bob 0 0 0 0 h 192.0.2.10\n")
    first = problems(site, root)[0].text
    assert "no login, only logouts, in any known format" in first
    assert first.endswith("set formats to what has logins here: qpopper-stats 1")


def test_a_broken_format_is_said_once(site: Site, root: Path) -> None:
    (site.folder / "formats.d").mkdir()
    (site.folder / "formats.d" / "ours.toml").write_text("x = 1\n")
    site.configure(log_settings='formats = ["ours"]', top='formats_directory = "formats.d"')
    assert len([found for found in problems(site, root) if "ours.toml" in found.text]) == 1


def test_what_another_user_may_not_do_has_a_remedy(folder: Path) -> None:
    site = Site(folder, log_settings="keep_lines = 1000")
    environment = installed_for_everybody(folder)
    site.write(login("192.0.2.10"))
    site.run()

    def said() -> list[str]:
        done = site.sapd("check", env=environment, prefix=PREFIX, python=PYTHON)
        assert (done.stderr, "Traceback" in done.stdout) == ("", False)
        return [line for line in done.stdout.splitlines() if line.startswith("problem: ")]

    user = "for this user"
    site.database.chmod(0o644)
    lines = "\n".join(said())
    assert f"{site.log}: can't be cut: not writable {user}; take keep_lines out, or run" in lines
    assert f"{site.database}: is not writable {user}; run as root, or see sapd init" in lines
    assert f"{site.state}: can't be read: Permission denied; try it as the user who ru" in lines
    site.state.unlink()
    assert f"{site.state.parent}: is not writable {user}; chown it" in "\n".join(said())
    for file in (site.log, site.source, site.database):
        file.chmod(0o600)
    lines = "\n".join(said())
    for file in (site.log, site.source, site.database):
        assert re.search(
            rf"{re.escape(str(file))}: .*Permission denied.*; try it as the user who runs sapd",
            lines,
        ), file


def test_a_folder_in_place_of_the_log(site: Site, root: Path) -> None:
    site.log.unlink()
    site.log.mkdir()
    assert problems(site, root)[0].text == (
        f"{site.log}: can't be read: Is a directory; name a file"
    )


def test_a_file_of_the_journal(site: Site, root: Path) -> None:
    """It is not to be cut, whatever is configured."""
    site.configure(log_settings="keep_lines = 1000")
    site.log.write_bytes(b"LPKSHHRH" + b"\0\n" * 4000)
    found = [finding for finding in findings(site, root) if str(site.log) in finding.text]
    remedy = 'write journal = ["_SYSTEMD_UNIT=..."] in the place of path, with its unit'
    reason = "is a file of the systemd journal, and no text"
    assert found == [Finding(66, f"{site.log}: {reason}; {remedy}")]


def test_auto_is_told_what_to_write(site: Site, root: Path) -> None:
    site.configure(log_settings='formats = ["auto"]')
    site.write(*sample("popa3d"), login("192.0.2.10"))
    (said,) = [note for note in notes(site, root) if "all formats are tried" in note]
    assert said.endswith('; write formats = ["popa3d", "qpopper"]: stricter and faster')
    site.configure(log_settings='formats = ["popa3d", "qpopper"]')
    assert not any("all formats are tried" in note for note in notes(site, root))


@pytest.mark.parametrize(
    ("finding", "text", "remedy"),
    [
        (Finding(66, "a: b; c; do d"), "a: b; c", "do d"),
        (Finding(66, "a: b"), "a: b", ""),
        (Finding(0, "a: 1; b: 2"), "a: 1; b: 2", ""),
        (Note("a: b; do c"), "a: b", "do c"),
        (Note("a line: x; y", quotes=True), "a line: x; y", ""),
    ],
)
def test_the_remedy_is_behind_the_last_semicolon(finding: Finding, text: str, remedy: str) -> None:
    assert finding.as_object()["text"] == text
    assert finding.as_object()["remedy"] == remedy


def of_log(site: Site, root: Path) -> list[Finding]:
    return [found for found in problems(site, root) if found.text.startswith(str(site.log))]


def test_logins_that_nearly_fit_are_counted(site: Site, root: Path) -> None:
    site.configure(log_settings='formats = ["courier", "dovecot"]')
    head = login("192.0.2.10").partition("popper[")[0]
    fits = f"{head}pop3d: LOGIN, user=bob, ip=[::ffff:192.0.2.10], port=[7]"
    site.write(f"{fits}\n", f"{fits}, stls=1 and more\n")
    (problem,) = of_log(site, root)
    assert "2 lines read, login: courier 1" in problem.text
    assert (
        'but logins that nearly fit courier, and open nothing: 1, because of " and more"'
        in problem.text
    )
    assert not any("login:" in found.text for found in findings(site, root) if not found.status)
    site.write(f"{fits}\n" * 9)
    assert of_log(site, root) == []
    assert any("nearly fit courier, and open nothing: 1" in note for note in notes(site, root))


def test_a_near_login_of_dovecot_has_its_reason(site: Site, root: Path) -> None:
    site.configure(log_settings='formats = ["dovecot"]')
    head = login("192.0.2.10").partition("popper[")[0] + "dovecot: pop3-login: Login: "
    site.write(f"{head}user=<bob>, rip=192.0.2.1, mpid=7\n")
    site.write(f"{head}user=<bob>, rip=192.0.2.1, session=<x>\n" * 2)
    (problem,) = of_log(site, root)
    assert (
        "nearly fit dovecot, and open nothing: 2, because it has session=, but no" in problem.text
    )


def test_strangers_turn_nothing_red(site: Site, root: Path) -> None:
    site.configure(log_settings='formats = ["courier", "dovecot", "qpopper"]')
    site.write(login("192.0.2.10"))
    head = login("192.0.2.10").partition("popper[")[0]
    for words in ("LOGIN, user=b, ip=[6.6.6.6] x", 'POP login by user "b" at (h) 6.6.6.6', "b>"):
        site.write(
            f"{head}pop3d: LOGIN FAILED, user={words}, ip=[::ffff:203.0.113.5], port=[7]\n" * 9,
            f"{head}popper[7]: (v4) {words} at h (203.0.113.5): -ERR [AUTH] no\n" * 9,
            f"{head}dovecot: imap-login: Login: user=<{words}>, method=ANONYMOUS, rip=6.6.6.6\n"
            * 9,
        )
    assert of_log(site, root) == []
    assert not any("nearly fit" in note for note in notes(site, root))


def test_containers_that_print_lines_of_their_own(site: Site) -> None:
    line = f"pop-1  | {login('192.0.2.1')}"
    forged = f"web-1  | {login('192.0.2.2')}"
    site.write(line, "web-1  | User-Agent: x\n", forged)
    said = site.sapd("check").stdout
    assert "read, login: qpopper 1;" in said
    assert "believed here: 1; containers that print lines of their own: web-1;" in said


def test_a_folder_where_anybody_may_make_files(site: Site) -> None:
    folder = site.folder / "logs"
    folder.mkdir()
    (folder / "qpopper").write_text(login("192.0.2.1"))
    site.config.write_text(site.config.read_text().replace('"qpopper"', '"logs/qpopper"'))
    assert "anybody may write to this folder" not in site.sapd("check").stdout
    folder.chmod(0o1777)
    assert f"{folder}: anybody may write to this folder" in site.sapd("check").stdout
