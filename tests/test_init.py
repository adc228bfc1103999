"""A first configuration: what a machine holds decides, the file says why, and nothing is lost."""

import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sapd import config, errors, init, shipped
from sapd.check.schedules import schedules
from sapd.init import choice, servers
from sapd.init.logs import Found, Seen
from sapd.init.page import Section, Setting, page
from tests import samples
from tests.folders import ME, put
from tests.site import Site, login, noise

CF = "Kaccess hash /etc/mail/access\nR$*\t$: $>A <$1> <?> <+ Connect> <$1>\n"


def dovecot(count: int, zone: str | None = None) -> str:
    """Logins of Dovecot's by syslog, stamped now without a zone."""
    now = time.time()
    wall = time.gmtime(now) if zone == "UTC" else time.localtime(now)
    line = (
        time.strftime("%b %e %H:%M:%S", wall)
        + " mx1 dovecot: pop3-login: Login: user=<bob>, method=PLAIN, rip=192.0.2.10, "
        "lip=192.0.2.1, mpid=77, session=<Ije84Ntg+49/AAAD>\n"
    )
    return line * count


def proposed(root: Path, path: str = "/etc/sapd/sapd.toml") -> tuple[dict[str, Any], str]:
    """The settings that are proposed for a machine, and the text."""
    text = init.propose(path, "sapd", str(root)).text
    return tomllib.loads(text), text


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


# ---- The log ----


def test_an_empty_machine_gets_a_log_and_access(root: Path) -> None:
    settings, text = proposed(root)
    assert settings["log"] == [{"path": "/var/log/mail.log", "formats": ["auto"]}]
    assert settings["access"]["server"] == "sendmail"
    assert "No POP or IMAP server and no line of one was found" in text
    steps = init.propose("/etc/sapd/sapd.toml", "sapd", str(root)).steps
    commands = [command for step in steps for command in step.commands]
    assert "apt-get install -y rsyslog && service rsyslog start" in commands
    assert "${EDITOR:-vi} /etc/sapd/sapd.toml" in commands
    assert commands[-2:] == ["apt-get install -y cron", "sapd init --cron >/etc/cron.d/sapd"]


def named_by_hand(root: Path, path: str = "/etc/sapd/sapd.toml") -> list[str]:
    """The commands of the steps by which the log is named."""
    steps = init.propose(path, "sapd", str(root)).steps
    return [line for step in steps if "POP server's log" in step.why for line in step.commands]


def test_a_log_that_was_not_found_is_left_to_do(root: Path) -> None:
    put(root / "usr/sbin/rsyslogd", "")
    log = put(root / "var/log/mail.log", noise(1))
    assert named_by_hand(root) == ["${EDITOR:-vi} /etc/sapd/sapd.toml"]
    assert named_by_hand(root, "/srv/sapd.toml") == ["${EDITOR:-vi} /srv/sapd.toml"]
    put(root / "usr/sbin/dovecot", "")  # which has yet to log
    assert named_by_hand(root) == []
    (root / "usr/sbin/dovecot").unlink()
    log.write_text(dovecot(1))
    assert named_by_hand(root) == []


def test_the_log_with_most_logins_wins_and_of_equal_ones_the_shortest(root: Path) -> None:
    put(root / "var/log/syslog", noise(1) * 50 + dovecot(3))
    mail = put(root / "var/log/mail.log", noise(1) * 5 + dovecot(3))
    put(root / "var/log/mail.log.1", dovecot(100))
    put(root / "var/log/pop/qpopper", login("192.0.2.10") * 2)
    settings, text = proposed(root)
    assert settings["log"] == [
        {"path": str(mail), "formats": ["dovecot"]},
        {"path": f"{root}/var/log/pop/qpopper", "formats": ["qpopper"]},
    ]
    flat = " ".join(text.replace("\n# ", " ").split())
    assert f"{mail} has logins in its last 8 lines: 3 of dovecot. They stand in " in flat
    assert f"{root}/var/log/syslog (3), too." in flat
    assert "#keep_lines = 1000000" in text


def test_more_logins_win_over_a_shorter_log(root: Path) -> None:
    put(root / "var/log/mail.log", dovecot(3))
    put(root / "var/log/syslog", noise(1) * 50 + dovecot(5))
    (log,) = proposed(root)[0]["log"]
    assert log["path"] == f"{root}/var/log/syslog"


def test_what_logrotate_shortens_gets_no_keep_lines(root: Path) -> None:
    mail = put(root / "var/log/mail.log", dovecot(1))
    conf = put(root / "etc/logrotate.conf", f"{mail} {{\n\tdaily\n}}\n")
    _, text = proposed(root)
    assert f"logrotate shortens it ({conf}), so keep_lines must not." in text.replace("\n# ", " ")
    assert "keep_lines =" not in text


def test_before_the_first_login_the_servers_own_lines_tell(root: Path) -> None:
    start = dovecot(1).partition("pop3-login")[0] + "master: Dovecot v2.3.19.1 starting up\n"
    put(root / "var/log/mail.log", noise(1) + start)
    settings, text = proposed(root)
    assert settings["log"][0]["formats"] == ["dovecot"]
    assert "has 1 lines of dovecot, though nobody has logged in yet." in text.replace("\n# ", " ")


def test_a_server_that_never_logged_is_looked_for_where_it_would(root: Path) -> None:
    put(root / "usr/sbin/dovecot", "")
    put(root / "run/systemd/journal/socket", "")
    assert proposed(root)[0]["log"] == [
        {"journal": ["_SYSTEMD_UNIT=dovecot.service"], "formats": ["dovecot"]}
    ]
    put(root / "usr/sbin/rsyslogd", "")
    put(root / "etc/rsyslog.conf", f"mail.*\t-{root}/var/log/maillog\n")
    assert proposed(root)[0]["log"] == [{"path": f"{root}/var/log/maillog", "formats": ["dovecot"]}]


def test_a_qpopper_that_logs_only_the_end(root: Path) -> None:
    stats = login("192.0.2.10").split("]: ")[0] + "]: Stats: bob 0 0 0 0 h 192.0.2.10\n"
    put(root / "var/log/mail.log", stats)
    assert proposed(root)[0]["log"][0]["formats"] == ["qpopper-stats"]
    put(root / "var/log/mail.log", stats + login("192.0.2.10"))
    assert proposed(root)[0]["log"][0]["formats"] == ["qpopper"]


def test_a_format_that_needs_an_administrators_word_is_not_chosen(root: Path) -> None:
    text = dovecot(1).replace("mpid=77, ", "")
    put(root / "var/log/mail.log", text)
    assert proposed(root)[0]["log"][0]["formats"] == ["dovecot"]


@pytest.mark.parametrize("name", ["dovecot", "courier", "cyrus", "popa3d", "uw-imap"])
def test_a_real_servers_lines_are_known(root: Path, name: str) -> None:
    lines = [
        samples.data(row) + b"\n"
        for row in samples.rows(name)
        if row["format"] == "traditional" and "run" in row and "hostile" not in row
    ]
    put(root / "var/log/mail.log", b"".join(lines))
    assert name in proposed(root)[0]["log"][0]["formats"]


def test_stamps_of_another_zone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        log = put(root / "var/log/mail.log", dovecot(1))
        assert "timezone" not in proposed(root)[0]["log"][0]
        log.write_text(dovecot(1, "UTC"))
        assert proposed(root)[0]["log"][0]["timezone"] == "UTC"
        os.utime(log, (time.time(), time.time() + 2.5 * 3600))
        settings, text = proposed(root)
        assert "timezone" not in settings["log"][0]
        assert '#timezone = "Europe/Berlin"' in text
        log.write_text(login("192.0.2.10"))  # RFC 3339
        assert "timezone" not in proposed(root)[1]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_strange_files_are_passed_over(root: Path) -> None:
    log = root / "var/log"
    put(log / "mail.log", dovecot(1))
    (log / "to-elsewhere").symlink_to(log / "mail.log")
    os.mkfifo(log / "fifo")
    put(log / "bad\nname", dovecot(9))
    put(log / "wtmp", b"\0" * 1000)
    put(log / "empty", "")
    put(log / "half", "no end of line")
    put(log / 'quo"ted\\', login("192.0.2.10"))
    settings, _ = proposed(root)
    assert {row["path"] for row in settings["log"]} == {f"{log}/mail.log", f'{log}/quo"ted\\'}


def test_the_journal_is_named_beside_a_file_that_has_the_same() -> None:
    from collections import Counter

    file = Seen("/var/log/mail.log", "", 10, Counter(dovecot=4), Counter(dovecot=8))
    unit = Seen("", "dovecot.service", 9, Counter(dovecot=4), Counter(dovecot=8))
    (section,) = choice.sections(Found((file, unit)))
    assert unit.name in section.why or section.settings[0].key == "journal"
    (section,) = choice.sections(Found((unit,)))
    assert section.settings[0] == Setting("journal", ("_SYSTEMD_UNIT=dovecot.service",))


def test_dovecots_own_file_is_believed_before_any_other() -> None:
    from collections import Counter

    old = Seen("/var/log/mail.log", "", 10, Counter(dovecot=40), Counter(dovecot=80))
    own = Seen("/var/log/dovecot.log", "", 10, Counter(dovecot=1))
    (section,) = choice.sections(Found((old, own), dovecot="/var/log/dovecot.log"))
    assert section.settings[0] == Setting("path", "/var/log/dovecot.log")
    found = Found((), (("dovecot", "dovecot.service"),), dovecot="/var/log/dovecot.log")
    (section,) = choice.sections(found)
    assert section.settings[:2] == [
        Setting("path", "/var/log/dovecot.log"), Setting("formats", ("dovecot",)),
    ]  # fmt: skip


# ---- The mail server ----


def access(root: Path) -> dict[str, Any]:
    table: dict[str, Any] = proposed(root)[0]["access"]
    return table


def test_sendmail_as_its_configuration_asks(root: Path) -> None:
    put(root / "etc/mail/sendmail.cf", CF.replace("hash /etc/mail/access", "btree -o /etc/a/b"))
    put(root / "etc/a/b", "")
    assert access(root) == {
        "server": "sendmail", "source": "/etc/a/b", "database": "/etc/a/b.db", "type": "btree",
    }  # fmt: skip
    closing = CF + "R$*\t$: <$(access sapd:$&{client_addr} $: no entry $)>\n"
    put(root / "etc/mail/sendmail.cf", closing)
    assert access(root)["self_closing"] is True
    separate = (
        CF + "Ksapd cdb -o -t /var/lib/sapd/relay\nR$*\t$: <$(sapd sapd:$&{client_addr} $: x $)>\n"
    )
    put(root / "etc/mail/sendmail.cf", separate)
    assert access(root) == {
        "server": "sendmail", "database": "/var/lib/sapd/relay.cdb", "type": "cdb",
        "self_closing": True,
    }  # fmt: skip


def test_sendmail_may_close_by_itself(root: Path) -> None:
    def steps(path: str = "/etc/sapd/sapd.toml") -> list[str]:
        found = init.propose(path, "sapd", str(root)).steps
        return [line for step in found if "closes by itself" in step.why for line in step.commands]

    put(root / "etc/mail/sendmail.cf", CF)
    put(root / "etc/mail/access", "")
    put(root / "etc/mail/sendmail.mc", "MAILER_DEFINITIONS\n")
    assert steps() == []
    put(root / "etc/mail/Makefile", "")
    assert steps()[0] == "sapd init --sendmail self-closing >/etc/mail/sapd.m4"
    assert steps()[-1] == "sed -i 's/^#self_closing/self_closing/' /etc/sapd/sapd.toml"
    assert steps("/srv/x.toml")[0].startswith("sapd init -c /srv/x.toml --sendmail self")
    assert steps("/srv/x.toml")[-1].endswith(" /srv/x.toml")
    inserted = subprocess.run(
        ["sh", "-c", steps()[1].replace("-i ", "").replace("/etc/mail/sendmail.mc", "")],
        input="x\nMAILER_DEFINITIONS\n", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert inserted.stdout == "x\ninclude(`/etc/mail/sapd.m4')dnl\nMAILER_DEFINITIONS\n"
    put(root / "etc/mail/sendmail.cf", CF + "R$*\t$: <$(access sapd:$&{client_addr} $: x $)>\n")
    assert steps() == []


def test_entries_that_stand_in_the_database_alone_are_kept(root: Path) -> None:
    put(root / "etc/mail/sendmail.cf", CF)
    put(root / "etc/mail/access.db", "x")
    steps = init.propose("/etc/sapd/sapd.toml", "sapd", str(root)).steps
    commands = [command for step in steps for command in step.commands]
    assert "makemap -u hash /etc/mail/access >/etc/mail/access" in commands
    assert access(root)["source"] == "/etc/mail/access"


def test_opensmtpd_as_its_configuration_asks(root: Path) -> None:
    put(root / "etc/smtpd.conf", "# none\n")
    assert access(root) == {
        "server": "opensmtpd", "table": "relays", "database": "/var/lib/sapd/relay",
    }  # fmt: skip
    table = 'table "open" file:/var/lib/sapd/x\nmatch from src <"open"> for any action "relay"\n'
    put(root / "etc/smtpd.conf", table)
    assert access(root) == {
        "server": "opensmtpd", "table": "open", "database": "/var/lib/sapd/x",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "permit_mynetworks permit_sasl_authenticated defer_unauth_destination",
            "permit_mynetworks, permit_sasl_authenticated, permit_auth_destination, TABLE, "
            "defer_unauth_destination",
        ),
        (
            "permit_mynetworks, permit_auth_destination, reject",
            "permit_mynetworks, permit_auth_destination, TABLE, reject",
        ),
        (
            "reject_rhsbl_client x, permit_mynetworks,reject_unauth_destination, "
            "check_policy_service inet:127.0.0.1:10023",
            "reject_rhsbl_client, x, permit_mynetworks, TABLE, reject_unauth_destination, "
            "check_policy_service, inet:127.0.0.1:10023",
        ),
        ("permit_mynetworks", "permit_mynetworks, TABLE"),
        (
            "check_client_access static:{554 no}, reject_unauth_destination",
            "check_client_access static:{554 no}, permit_auth_destination, TABLE, "
            "reject_unauth_destination",
        ),
    ],
)
def test_postfix_gets_the_table_before_the_first_refusal(before: str, after: str) -> None:
    step = servers._main_cf("smtpd_relay_restrictions", before, "hash:/x", "sapd")
    after = after.replace("TABLE", "check_client_access hash:/x")
    assert step.commands == (
        "sapd run", f"postconf -e 'smtpd_relay_restrictions = {after}'", "postfix reload",
    )  # fmt: skip


# ---- The file ----


TEXT = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), max_size=30)


@given(TEXT, st.lists(TEXT, max_size=3), TEXT)
def test_whatever_is_printable_can_be_read_again(value: str, values: list[str], why: str) -> None:
    settings = [
        Setting("a", value, why),
        Setting("b", tuple(values)),
        Setting("c", why, used=False),
    ]
    read = tomllib.loads(page([Section("[x]", why, settings)]))
    assert read == {"x": {"a": value, "b": values}}


@pytest.mark.makemap
def test_a_run_works_with_what_was_proposed(site: Site, root: Path) -> None:
    site.write(dovecot(2))
    site.log.rename(put(root / "var/log/mail.log", ""))
    put(root / "etc/mail/sendmail.cf", CF.replace("/etc/mail/access", str(site.source)))
    put(root / str(site.source).lstrip("/"), "")
    _, text = proposed(root)
    text = text.replace("/var/lib/sapd", str(site.folder / "state"))
    site.config.write_text(text)
    done = site.sapd("run", "-n")
    assert (done.returncode, done.stderr) == (0, "")
    assert "would open 192.0.2.10 bob until " in done.stdout


def test_nothing_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "new" / "sapd.toml"
    init.write(str(path), "x = 1\n")
    assert path.read_text() == "x = 1\n"
    assert path.stat().st_mode & 0o7777 == 0o644
    dangling, folder = tmp_path / "link", tmp_path / "folder"
    dangling.symlink_to(tmp_path / "elsewhere")
    folder.mkdir()
    for there in (path, dangling, folder):
        with pytest.raises(errors.SapdError, match="already exists and was left alone") as raised:
            init.write(str(there), "x = 2\n")
        assert raised.value.status == errors.CANT_CREATE
    assert path.read_text() == "x = 1\n"
    assert not (tmp_path / "elsewhere").exists()


def sapd(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "sapd", *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.makemap
def test_the_dry_run_prints_the_file_alone_and_the_other_one_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "sapd.toml"
    dry = sapd("init", "-n", "-c", str(path))
    assert dry.returncode == 0
    assert {"log", "access"} <= tomllib.loads(dry.stdout).keys()
    assert not path.exists()
    assert "# sapd check would say" in dry.stderr
    done = sapd("init", "-c", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert path.read_text() == dry.stdout
    assert done.stdout.startswith(f"{path} is written")
    assert f"init -c {path} --cron >/etc/cron.d/sapd" in done.stdout
    assert f"# ok: {path}: the configuration is valid" in done.stdout.splitlines()
    config.load(str(path))
    again = sapd("init", "-c", str(path))
    assert (again.returncode, again.stdout) == (73, "")
    reason = "already exists and was left alone; sapd init -n prints what would be proposed"
    assert again.stderr == f"sapd: error: {path}: {reason}\n"


def test_a_configuration_that_is_missing_names_the_command(tmp_path: Path) -> None:
    done = sapd("list", "-c", str(tmp_path / "none.toml"))
    assert done.returncode == 78
    assert "is missing; `sapd init` makes one for this machine" in done.stderr


# ---- The files that come with it ----


@pytest.mark.parametrize(
    ("kind", "which"), [(kind, which) for kind in shipped.FILES for which in shipped.FILES[kind]]
)
def test_every_file_is_printed(kind: str, which: str) -> None:
    done = sapd("init", f"--{kind}", *([which] if len(shipped.FILES[kind]) > 1 else []))
    assert (done.returncode, done.stderr) == (0, "")
    program = str(Path(sys.executable).with_name("sapd"))
    assert done.stdout == shipped.text(kind, which, program).rstrip("\n") + "\n"
    if kind in ("cron", "systemd"):
        assert shipped.PROGRAM not in done.stdout
        assert which == "timer" or f"{program} run" in done.stdout


@pytest.mark.parametrize("which", ["every-minute", "often"])
@pytest.mark.parametrize("named", [False, True])
def test_a_crontab_of_it_starts_the_program(tmp_path: Path, which: str, named: bool) -> None:
    program = put(tmp_path / "place/sapd", '#!/bin/sh\necho "$@" >"$OUT"\n', 0o755)
    there = put(tmp_path / "sapd.toml", "")
    settings = str(there) if named else "/etc/sapd/sapd.toml"
    text = shipped.text("cron", which, str(program), settings)
    crontab = put(tmp_path / "root/etc/cron.d/sapd", text)
    look = schedules(settings, str(tmp_path / "root"), ME)
    assert [Path(place.rpartition(":")[0]) for place in look.found] == [crontab]
    (line,) = [line for line in text.splitlines() if line.startswith("* * * * *")]
    command = line.split(" root ", 1)[1].replace("\\%", "%")  # as cron does, crontab(5)
    command = command.replace("/etc/sapd/sapd.toml", str(there))
    out = tmp_path / "out"
    subprocess.run(["sh", "-c", command], env={**os.environ, "OUT": str(out)}, check=True)
    given = f" -c {there}" if named else ""
    often = " --for 1m --every 1s" if which == "often" else ""
    assert out.read_text() == f"run{given}{often}\n"


def test_a_path_that_a_schedule_would_misread_is_refused() -> None:
    for path in ("/a b/sapd", "/100%/sapd", "/it's/sapd", "/$HOME/sapd", "/a;b/sapd"):
        for kind, which in (("cron", "often"), ("systemd", "service")):
            with pytest.raises(errors.SapdError, match="use a plain path"):
                shipped.text(kind, which, path)
            with pytest.raises(errors.SapdError, match="use a plain path"):
                shipped.text(kind, which, "/bin/sapd", path)
    assert shipped.text("postfix", "main", "/a b/sapd")


def test_a_schedule_names_the_configuration_from_everywhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sapd", "init", "-c", "x.toml", "--cron"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f"sapd run -c {tmp_path}/x.toml;" in done.stdout


def test_a_value_that_is_none_is_named() -> None:
    done = sapd("init", "--postfix", "foo")
    assert done.returncode == 2
    assert "'foo' is not one of 'main', 'master'" in done.stderr
    assert sapd("init", "-n", "--cron").returncode == 2
