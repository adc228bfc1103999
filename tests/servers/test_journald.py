"""The journal as a log: real journal files, and a real journald, Dovecot, logger and sendmail."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sapd import errors, idle
from sapd.events.frames import Frame
from sapd.events.recogniser import Event, Recogniser, Rejection
from sapd.reading import journal, journalctl
from sapd.reading.journal import OVERLONG, JournalReading
from sapd.reading.place import Place
from sapd.timestamps import Clock
from tests.servers.dovecot import Dovecot
from tests.servers.journald import (
    CRON,
    DOVECOT,
    OTHER,
    SESSION,
    SSH,
    USER_UNIT,
    JournalMachine,
    make_journal,
)
from tests.servers.pop import login_pop3
from tests.servers.sendmail import Sendmail

pytestmark = pytest.mark.servers

UNIT = "_SYSTEMD_UNIT=dovecot.service"
BOOT = "585400311f444cc48f82f7ff5948d789"
STREAM, ANOTHER = "1" * 32, "2" * 32
DROPPED = {"_TRANSPORT": "driver", "MESSAGE_ID": "a596d6fe7bfa4994828e72309e95d61e"}
START = 1_795_000_000  # seconds; the entries' times count from there
Fields = dict[str, str | bytes]


def said(address: str, user: str = "bob") -> str:
    return (
        f"pop3-login: Login: user=<{user}>, method=PLAIN, rip={address}, lip=192.0.2.1, mpid=98, "
        "session=<9wbzkElh7ZrAAAIK>"
    )


def entry(number: int, message: str | bytes, **fields: str) -> Fields:
    return {
        "__REALTIME_TIMESTAMP": str((START + number) * 1_000_000 + 250_000),
        "__MONOTONIC_TIMESTAMP": str(1_000_000 + number),
        "_BOOT_ID": BOOT,
        "_HOSTNAME": "mx1",
        "_SYSTEMD_UNIT": "dovecot.service",
        "_TRANSPORT": "syslog",
        "SYSLOG_IDENTIFIER": "dovecot",
        "_PID": "91",
        "MESSAGE": message,
        **fields,
    }


def reading(folder: Path, position: Place | None = None, **more: float) -> JournalReading:
    options = [f"--directory={folder}"]
    return JournalReading([UNIT], position, START + 3600, lambda: 200, options=options, **more)


def messages(of: JournalReading) -> list[bytes]:
    return [frame.message for frame in of.frames()]


def recognise(frame: Frame) -> Event | Rejection | None:
    return Recogniser(["dovecot", "qpopper"], Clock(START)).recognise_frame(frame)


def test_fields_become_a_frame_and_the_frame_a_login(tmp_path: Path) -> None:
    source = str((START + 1) * 1_000_000 + 7)
    make_journal(
        tmp_path / "a.journal",
        [
            entry(1, said("192.0.2.10"), _SOURCE_REALTIME_TIMESTAMP=source, SYSLOG_PID="4"),
            entry(2, said("192.0.2.11")),
        ],
    )
    one, two = reading(tmp_path).frames()
    assert one[:4] == (b"2026-11-18T11:06:41.000007Z", b"mx1", b"dovecot", b"91")
    assert two[:4] == (b"2026-11-18T11:06:42.250000Z", b"mx1", b"dovecot", b"-")
    found = recognise(two)
    assert isinstance(found, Event)
    assert (found.event, found.address, found.account) == ("login", "192.0.2.11", "bob")
    assert found.time == START + 2.25


def test_messages_of_every_kind(tmp_path: Path) -> None:
    make_journal(
        tmp_path / "a.journal",
        [
            entry(1, "gr\u00fcn"),
            entry(2, b"\xff\xfe8 bit"),
            entry(3, "two\nlines"),
            entry(4, "x" * 4000),
            entry(5, "x" * 5000),
            entry(6, "of another unit", _SYSTEMD_UNIT="other.service"),
            entry(7, "tag", SYSLOG_IDENTIFIER="popper[1]: (v4) "),
            entry(8, "tag", SYSLOG_IDENTIFIER="a b"),
            {k: v for k, v in entry(9, "none").items() if k != "SYSLOG_IDENTIFIER"},
            {k: v for k, v in entry(10, "none").items() if k != "MESSAGE"},
            entry(11, "last"),
        ],
    )
    found = reading(tmp_path)
    assert messages(found) == [
        "gr\u00fcn".encode(), b"\xff\xfe8 bit", b"two\nlines", b"x" * 4000, OVERLONG, b"last"
    ]  # fmt: skip
    assert (found.entries, found.unusable) == (10, 4)


@pytest.mark.parametrize("between", ["\n", "\0", "\x1b", "\x7f"])
def test_a_message_with_a_control_byte_is_no_login(tmp_path: Path, between: str) -> None:
    whole = said("203.0.113.66", user="bob").replace("bob", f"b{between}b")
    make_journal(tmp_path / "a.journal", [entry(1, whole.encode())])
    (frame,) = reading(tmp_path).frames()
    assert between.encode() in frame.message
    assert isinstance(recognise(frame), Rejection)


def test_an_own_files_head_in_a_message_is_no_frame(tmp_path: Path) -> None:
    forged = f"2026-11-18 11:06:41 {said('203.0.113.66')}"
    make_journal(tmp_path / "a.journal", [entry(1, forged, SYSLOG_IDENTIFIER="other")])
    (frame,) = reading(tmp_path).frames()
    assert recognise(frame) is None


def test_an_overlong_message_takes_the_proof_from_what_follows(tmp_path: Path) -> None:
    make_journal(
        tmp_path / "a.journal",
        [entry(1, "x" * 5000), entry(2, said("203.0.113.66")), entry(3, said("192.0.2.10"))],
    )
    recogniser = Recogniser(["dovecot"], Clock(START))
    found = [recogniser.recognise_frame(frame) for frame in reading(tmp_path).frames()]
    assert not any(isinstance(one, Event) for one in found)


def test_reading_goes_on_behind_the_place(tmp_path: Path) -> None:
    make_journal(tmp_path / "a.journal", [entry(n, f"m{n}") for n in (1, 2)])
    first = reading(tmp_path)
    assert messages(first) == [b"m1", b"m2"]
    assert first.anew
    make_journal(tmp_path / "b.journal", [entry(n, f"m{n}") for n in (3, 4)])
    second = reading(tmp_path, first.position)
    assert messages(second) == [b"m3", b"m4"]
    assert not second.anew
    third = reading(tmp_path, second.position)
    assert messages(third) == []
    assert third.position == second.position


def test_a_place_that_is_gone_is_not_taken_for_its_neighbour(tmp_path: Path) -> None:
    make_journal(tmp_path / "a.journal", [entry(n, f"m{n}") for n in (1, 2)])
    first = reading(tmp_path)
    messages(first)
    make_journal(tmp_path / "b.journal", [entry(n, f"m{n}") for n in (3, 4)])
    (tmp_path / "a.journal").unlink()  # as vacuuming does
    second = reading(tmp_path, first.position)
    assert messages(second) == [b"m3", b"m4"]
    assert second.anew
    assert messages(reading(tmp_path, second.position)) == []


@pytest.mark.parametrize(
    "cursor", ["nonsense", "s=;i=;b=", "-o", f"s={BOOT};i=9;b={BOOT};m=1;t=1;x=1"]
)
def test_a_place_that_is_none(tmp_path: Path, cursor: str) -> None:
    make_journal(tmp_path / "a.journal", [entry(1, "m1")])
    found = reading(tmp_path, Place(cursor))
    assert messages(found) == [b"m1"]
    assert found.anew


def test_what_lies_before_the_edge_is_not_read(tmp_path: Path) -> None:
    make_journal(tmp_path / "a.journal", [entry(-400, "old"), entry(1, "new")])
    assert messages(reading(tmp_path)) == [b"new"]


def test_no_journal_at_all(tmp_path: Path) -> None:
    found = reading(tmp_path)
    assert messages(found) == []
    assert found.position is None


def test_a_cut_line_of_a_stream_and_the_next_are_no_evidence(tmp_path: Path) -> None:
    make_journal(
        tmp_path / "a.journal",
        [
            entry(1, "whole", _STREAM_ID=STREAM),
            entry(2, "head", _STREAM_ID=STREAM, _LINE_BREAK="line-max"),
            entry(3, "of another stream", _STREAM_ID=ANOTHER),
        ],
    )
    first = reading(tmp_path)
    assert messages(first) == [b"whole", b"of another stream"]
    assert first.position is not None
    assert first.position.open_streams == (STREAM,)
    make_journal(
        tmp_path / "b.journal",
        [
            entry(4, "rest", _STREAM_ID=STREAM),
            entry(5, "whole again", _STREAM_ID=STREAM),
            entry(6, "end", _STREAM_ID=STREAM, _LINE_BREAK="eof"),
        ],
    )
    second = reading(tmp_path, first.position)
    assert messages(second) == [b"whole again"]
    assert second.position is not None
    assert second.position.open_streams == ()


def test_more_open_streams_than_can_be_kept_doubt_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_MOST_STREAMS", 3)
    make_journal(
        tmp_path / "a.journal",
        [
            *(entry(n, "head", _STREAM_ID=f"{n:032x}", _LINE_BREAK="nul") for n in range(5)),
            entry(6, "rest", _STREAM_ID=f"{1:032x}"),
            entry(7, "by syslog"),
        ],
    )
    assert messages(reading(tmp_path)) == [b"by syslog"]


def test_what_follows_dropped_messages_may_be_a_rest(tmp_path: Path) -> None:
    driver = {"SYSLOG_IDENTIFIER": "systemd-journald", "_SYSTEMD_UNIT": "systemd-journald.service"}
    make_journal(
        tmp_path / "a.journal",
        [
            entry(1, "before"),
            entry(2, "Suppressed 7 messages from dovecot.service", **DROPPED, **driver),
            entry(3, "x" * 150),
        ],
    )
    first = reading(tmp_path)
    assert messages(first) == [b"before"]
    assert first.dropped == 1
    make_journal(tmp_path / "b.journal", [entry(4, "y" * 150), entry(5, "behind")])
    assert messages(reading(tmp_path, first.position)) == [b"behind"]


def test_nobody_but_journald_says_that_messages_were_dropped(tmp_path: Path) -> None:
    forged = {**DROPPED, "_TRANSPORT": "journal"}
    make_journal(tmp_path / "a.journal", [entry(1, "Suppressed 7", **forged), entry(2, "next")])
    assert messages(reading(tmp_path)) == [b"Suppressed 7", b"next"]


def test_a_reading_that_takes_too_long_goes_on_the_next_time(tmp_path: Path) -> None:
    expected = [f"m{n}".encode() for n in range(1000)]
    make_journal(tmp_path / "a.journal", [entry(n, f"m{n}") for n in range(1000)])
    found, position, rounds = [], None, 0
    while True:
        one = reading(tmp_path, position, deadline=0.0)
        found += messages(one)
        position, rounds = one.position, rounds + 1
        if not one.unfinished:
            break
    assert found == expected
    assert rounds > 2


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that PATH names first, or alone if the test empties the rest."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def script(path: Path, text: str) -> None:
    program = path / "journalctl"
    program.write_text(f"#!/bin/sh\n{text.replace('REAL', str(shutil.which('journalctl')))}\n")
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('REAL "$@" | head -c 2000; kill -9 $$', "ended by signal 9"),
        ('REAL "$@"; echo "Failed to iterate: Bad message" >&2; exit 1', "Bad message"),
        ("exit 3", "ends with status 3"),
        (
            "exec setpriv --reuid=65534 --regid=65534 --clear-groups REAL --directory=/root",
            "Permission denied; run it as root, or in the group systemd-journal",
        ),
        ("echo hello", "writes no JSON: hello"),
        ('echo "[]"', "writes no JSON"),
        ('echo "{}"', "writes no JSON"),
        ("exec sleep 60", "says nothing for"),
    ],
)
def test_a_journalctl_that_fails_leaves_the_place(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch, text: str, why: str
) -> None:
    monkeypatch.setattr(journalctl, "_SILENT", 1.0)
    make_journal(tmp_path / "a.journal", [entry(n, f"m{n}") for n in range(9)])
    first = reading(tmp_path)
    messages(first)
    make_journal(tmp_path / "b.journal", [entry(n, f"m{n}") for n in range(9, 18)])
    script(path, text)
    for position in (None, first.position):
        found = reading(tmp_path, position)
        with pytest.raises(errors.SapdError, match=why) as raised:
            messages(found)
        assert raised.value.status == errors.LOG_UNREADABLE
        assert found.position == position


def test_no_journalctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.SapdError, match="journalctl can't be started: No such file"):
        messages(reading(tmp_path))


def test_a_journalctl_that_is_not_needed_any_more_is_ended(tmp_path: Path, path: Path) -> None:
    script(path, f'echo $$ >{path}/pid; REAL "$@"; exec sleep 60')
    make_journal(tmp_path / "a.journal", [entry(n, f"m{n}") for n in range(9)])
    frames = reading(tmp_path).frames()
    next(frames)
    frames.close()  # type: ignore[attr-defined]
    assert not Path(f"/proc/{(path / 'pid').read_text().strip()}").exists()


@pytest.mark.parametrize("keep", [10, 100, 3000, 100_000])
def test_a_damaged_file_raises_nothing_else(tmp_path: Path, keep: int) -> None:
    make_journal(tmp_path / "a.journal", [entry(n, f"m{n}") for n in range(2000)])
    make_journal(tmp_path / "b.journal", [entry(n, f"m{n}") for n in range(2000, 2003)])
    with (tmp_path / "a.journal").open("r+b") as file:
        file.seek(keep)
        file.write(b"\xff" * 50_000)
    found = reading(tmp_path)
    try:
        assert messages(found)[-3:] == [b"m2000", b"m2001", b"m2002"]
    except errors.SapdError as error:
        assert error.status == errors.LOG_UNREADABLE  # noqa: PT017
        assert found.position is None


def test_a_files_look_has_its_number_of_entries(tmp_path: Path) -> None:
    for count in (3, 17):
        file = tmp_path / f"{count}.journal"
        make_journal(file, [entry(n, "x") for n in range(count)])
        assert idle.Snapshot([str(file)])[str(file)].split()[-1] == str(count)


CLIENT, STRANGER = "198.51.100.7", "203.0.113.66"
LINES = Path(__file__).parents[2] / "examples" / "sendmail" / "access.mc"


class Host:
    """A machine with journald, Dovecot, sendmail and sapd, but no log file."""

    def __init__(self, machine: JournalMachine, folder: Path) -> None:
        self.machine = machine
        self.folder = folder
        folder.mkdir()
        self.configure()

    def configure(self, window: str = "30m", match: str = UNIT, map_folder: str = "") -> None:
        access = (
            f'source = "{map_folder}/access"\ndatabase = "{map_folder}/access.db"'
            if map_folder
            else 'database = "relay.db"\ntag = ""'
        )
        (self.folder / "sapd.toml").write_text(
            f'window = "{window}"\n[[log]]\njournal = ["{match}"]\nformats = ["dovecot"]\n'
            f'[access]\n{access}\n[state]\ndirectory = "state"\n'
        )

    def sapd(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "sapd", *arguments, "-c", str(self.folder / "sapd.toml")]
        return self.machine.run(
            self.machine.in_unit(command, OTHER), check=False, capture_output=True, text=True
        )

    def opened(self) -> set[str]:
        done = self.sapd("run")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        return {row["address"] for row in json.loads(self.sapd("list", "--json").stdout)}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JournalMachine]:
    folder = tmp_path_factory.mktemp("machine")
    with JournalMachine(folder, [CLIENT, STRANGER], packages=Dovecot.PACKAGES) as machine:
        yield machine


@pytest.fixture
def host(machine: JournalMachine, tmp_path: Path) -> Host:
    return Host(machine, tmp_path / "sapd")


def test_a_login_that_is_in_the_journal_only_opens_sendmail(
    machine: JournalMachine, host: Host, tmp_path: Path
) -> None:
    folders = {name: tmp_path / name for name in ("dovecot", "sendmail")}
    for folder in folders.values():
        folder.mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    with Dovecot(machine, folders["dovecot"]) as dovecot:
        machine.unit = OTHER
        with Sendmail(machine, folders["sendmail"], LINES.read_text()) as sendmail:
            machine.unit = DOVECOT
            (sendmail.mail / "access").write_text("")
            sendmail.makemap("", sendmail.mail / "access.db")
            host.configure("6s", map_folder=str(sendmail.mail))
            assert machine.probe(CLIENT).code == 550
            assert dovecot.pop3 is not None
            assert login_pop3(machine, CLIENT, dovecot.pop3, "bob", dovecot.users["bob"])
            machine.wait_for_entry(f"user=<bob>, method=PLAIN, rip={CLIENT}")
            assert host.opened() == {CLIENT}
            assert machine.probe(CLIENT).code == 250
            assert machine.probe(STRANGER).code == 550
            time.sleep(6)
            assert host.opened() == set()
            assert machine.probe(CLIENT).code == 550


COPY = "/var/lib/forger/dovecot"  # a copy of logger, under the server's name


def test_what_others_say_opens_nothing(machine: JournalMachine, host: Host) -> None:
    machine.run(["sh", "-c", f"mkdir -p /var/lib/forger && cp /usr/bin/logger {COPY}"])
    forged = said(STRANGER, "mallory")
    for unit in (OTHER, CRON, SSH, SESSION, USER_UNIT):
        for user in (None, "2001"):
            machine.logger("dovecot", f"{forged}", unit=unit, user=user)
    field = f"MESSAGE={forged}\nSYSLOG_IDENTIFIER=dovecot\n_SYSTEMD_UNIT=dovecot.service\n"
    machine.run(
        machine.in_unit(["sh", "-c", 'printf %s "$1" | logger --journald', "sh", field], USER_UNIT)
    )
    machine.run(
        machine.in_unit(
            ["sh", "-c", f'{{ echo "$1"; sleep 0.2; }} | {COPY} -t dovecot', "sh", forged], SESSION
        )
    )
    honest = said(CLIENT)
    machine.say("dovecot", honest)
    assert len([one for one in machine.entries() if one.get("MESSAGE") == forged]) >= 12
    assert host.opened() == {CLIENT}


def test_the_server_itself_run_by_a_user_opens_nothing(
    machine: JournalMachine, host: Host, tmp_path: Path
) -> None:
    (tmp_path / "own").mkdir()
    tmp_path.chmod(0o755)
    settings = (
        "service pop3-login {\n inet_listener pop3 {\n port = 9110\n }\n}\n"
        "service imap-login {\n inet_listener imap {\n port = 9143\n }\n}\n"
        "base_dir = /run/own\ninstance_name = own\n"
    )
    machine.unit = USER_UNIT
    try:
        own = Dovecot(machine, tmp_path / "own", settings)
        own.pop3, own.imap = 9110, 9143
        with own:
            assert login_pop3(machine, STRANGER, 9110, "alice", own.users["alice"])
            machine.wait_for_entry(f"user=<alice>, method=PLAIN, rip={STRANGER}")
    finally:
        machine.unit = DOVECOT
    assert STRANGER not in host.opened()


def test_rotation_and_vacuuming_between_passes_lose_no_login(
    machine: JournalMachine, host: Host
) -> None:
    for number in range(1, 4):
        machine.say("dovecot", said(f"192.0.2.{number}"))
        if number == 1:
            assert "192.0.2.1" in host.opened()
        machine.run(["journalctl", "--rotate"], capture_output=True, check=False)
        os.kill(machine.journald.pid, 0)
        machine.run(["pkill", "-USR2", "-f", "systemd-journald"], check=False)
        time.sleep(0.5)
    machine.run(["journalctl", "--vacuum-files=1"], capture_output=True)
    machine.say("dovecot", said("192.0.2.4"))
    assert {"192.0.2.1", "192.0.2.4"} <= host.opened()
    assert {"192.0.2.1", "192.0.2.4"} <= host.opened()


def test_a_line_of_standard_output_that_journald_cuts(machine: JournalMachine, host: Host) -> None:
    for gap, address in ((0, "192.0.2.77"), (1, "203.0.113.77")):
        head = "x" * (48 * 1024 - 1 + gap) if gap else ""
        text = f"{head}{said(address)}\n"
        program = f"import sys, time; sys.stdout.write({text!r}); sys.stdout.flush(); time.sleep(1)"
        command = ["systemd-cat", "-t", "dovecot", sys.executable, "-c", program]
        machine.run(machine.in_unit(command, DOVECOT))
    machine.wait_for_entry("203.0.113.77")
    breaks = [one.get("_LINE_BREAK") for one in machine.entries("_TRANSPORT=stdout")]
    assert "line-max" in breaks
    opened = host.opened()
    assert "192.0.2.77" in opened
    assert "203.0.113.77" not in opened


def test_what_journald_dropped_is_said_and_takes_the_proof(tmp_path: Path) -> None:
    settings = "Storage=persistent\nRateLimitIntervalSec=3s\nRateLimitBurst=20"
    with JournalMachine(tmp_path, [], settings=settings) as machine:
        host = Host(machine, tmp_path / "sapd")
        burst = "{ seq 300; sleep 4; echo $1; sleep 0.2; } | logger -t dovecot"
        command = ["sh", "-c", burst.replace("$1", '"$1"'), "sh", said(STRANGER)]
        machine.run(machine.in_unit(command, DOVECOT))
        machine.wait_for_entry(STRANGER)
        assert any("Suppressed" in str(one.get("MESSAGE")) for one in machine.entries())
        assert host.opened() == set()
        assert "journald dropped messages" in host.sapd("check").stdout


def test_match_and_check_read_the_journal(machine: JournalMachine, host: Host) -> None:
    machine.say("dovecot", said("192.0.2.55", "carol"))
    shown = host.sapd("match", "--journal", UNIT, "--explain")
    assert shown.returncode == 0
    assert "login 192.0.2.55 carol" in shown.stdout
    refused = host.sapd("match", "--journal", "_COMM=dovecot")
    assert refused.returncode == 2
    assert "any user can have _COMM" in refused.stderr
    checked = host.sapd("check").stdout
    assert f"ok: journal {UNIT}: " in checked
    assert "/var/log/journal: the journal is kept" in checked
    host.configure(match="_SYSTEMD_UNIT=popa3d.service")
    wrong = host.sapd("check").stdout
    assert "no entry since yesterday" in wrong
    assert "units that log here: dovecot.service" in wrong


def test_a_minute_without_an_entry_of_the_servers_is_idle(
    machine: JournalMachine, host: Host
) -> None:
    def idle_minute() -> bool:
        config_path = str(host.folder / "sapd.toml")
        code = f"from sapd import idle; print(idle.nothing_happened({config_path!r}))"
        done = machine.run(
            machine.in_unit([sys.executable, "-c", code], OTHER), capture_output=True, text=True
        )
        return str(done.stdout).strip() == "True"

    machine.say("dovecot", said("192.0.2.90"))
    for _ in range(3):  # the first reads, the next finds nothing, and notes it
        assert "192.0.2.90" in host.opened()
        time.sleep(0.2)
    assert idle_minute()
    machine.logger("CRON", "(root) CMD (true)", unit=CRON)
    machine.wait_for_entry("CMD (true)")
    assert idle_minute()
    machine.say("dovecot", said("192.0.2.91"))
    assert not idle_minute()
    for _ in range(3):
        assert "192.0.2.91" in host.opened()
        time.sleep(0.2)
    assert idle_minute()
    machine.run(["journalctl", "--rotate"], capture_output=True, check=False)
    machine.run(["sh", "-c", "rm -f /var/log/journal/*/*.journal /run/log/journal/*/*.journal"])
    assert not idle_minute()
