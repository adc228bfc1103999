"""The main job on each of the other mail servers: logins open the relay, and time closes it."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults.strace import calls, strace
from tests.servers.exim import Exim
from tests.servers.mailserver import LOCAL, MailServer, fill_up, running
from tests.servers.opensmtpd import OpenSMTPD
from tests.servers.postfix import Postfix
from tests.servers.tcpserver import Tcpserver
from tests.site import when

pytestmark = pytest.mark.servers

CLIENT, CLIENT6 = "192.0.2.10", "2001:db8::10"
STRANGER, STRANGER6 = "192.0.2.11", "2001:db8::11"
UNWANTED = "203.0.113.7"
CLIENTS = [CLIENT, CLIENT6, STRANGER, STRANGER6, UNWANTED]


class Kind(NamedTuple):
    """A mail server, and how its administrator refuses the network of `UNWANTED`."""

    server: type[MailServer]
    settings: dict[str, str]


KINDS = {
    "postfix": Kind(Postfix, {"refused": "203.0.113.0/24 REJECT\n"}),
    "postfix cdb": Kind(Postfix, {"refused": "203.0.113.0/24 REJECT\n", "type": "cdb"}),
    "postfix lmdb": Kind(Postfix, {"refused": "203.0.113.0/24 REJECT\n", "type": "lmdb"}),
    "exim": Kind(Exim, {"refused": "203.0.113.0/24\n"}),
    "exim's own": Kind(Exim, {"plain": "\n  deny hosts = 203.0.113.0/24\n"}),
    "opensmtpd": Kind(OpenSMTPD, {"refused": "{ 203.0.113.0/24 }"}),
    "tcpserver": Kind(Tcpserver, {"rules": "203.0.113.:deny\n:allow\n"}),
}
ALL = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
ONE_EACH = ["postfix", "exim", "opensmtpd", "tcpserver"]
EACH = pytest.mark.parametrize("kind", [KINDS[name] for name in ONE_EACH], ids=ONE_EACH)
BUILDERS = ["postfix", "opensmtpd", "tcpserver"]
WITH_BUILDER = pytest.mark.parametrize("kind", [KINDS[name] for name in BUILDERS], ids=BUILDERS)


@pytest.fixture
def server(folder: Path, kind: Kind) -> Iterator[MailServer]:
    with running(kind.server, folder, CLIENTS, **kind.settings) as started:
        started.configure()
        yield started


def later(minutes: float) -> tuple[str, str]:
    """The options that make a run act as of some minutes from now."""
    return "--at", when(time.time() + 60 * minutes)


@ALL
def test_a_login_opens_the_relay_and_the_window_closes_it(server: MailServer) -> None:
    no = server.REFUSED
    six = [CLIENT6, STRANGER6] if server.IPV6 else []
    clients = [CLIENT, STRANGER, *six]
    assert server.codes(*clients) == [no] * len(clients)
    server.login(CLIENT, *six[:1])
    assert server.codes(*clients) == [no] * len(clients)
    assert server.update() == ""
    assert server.codes(*clients) == [250, no, 250, no][: len(clients)]
    assert server.open_addresses() == {CLIENT, *six[:1]}
    assert server.update(*later(29)) == ""
    assert server.codes(*clients) == [250, no, 250, no][: len(clients)]
    assert [server.ask(client, LOCAL).code for client in clients] == [250] * len(clients)
    assert server.update(*later(31)) == ""
    assert server.codes(*clients) == [no] * len(clients)
    assert server.open_addresses() == set()
    assert [server.ask(client, LOCAL).code for client in clients] == [250] * len(clients)


@EACH
def test_time_itself_closes_the_relay(server: MailServer) -> None:
    server.configure(window="4s")
    server.login(CLIENT)
    server.update()
    assert server.codes(CLIENT) == [250]
    time.sleep(4.5)
    server.update()
    assert server.codes(CLIENT) == [server.REFUSED]


@pytest.mark.parametrize("kind", [KINDS["exim"], KINDS["exim's own"]], ids=["Debian's", "its own"])
def test_exim_closes_with_no_run_at_all(server: MailServer) -> None:
    server.configure(window="4s")
    server.login(CLIENT, CLIENT6)
    start = time.time()
    server.update()
    assert server.codes(CLIENT, CLIENT6) == [250, 250]
    time.sleep(start + 4 + 1 + 1 + 0.1 - time.time())  # a quarter of the window, and whole seconds
    assert server.codes(CLIENT, CLIENT6) == [550, 550]


@ALL
def test_what_the_administrator_refuses_stays_refused(server: MailServer) -> None:
    refused = server.ask(UNWANTED)
    assert refused.code != 250
    server.login(UNWANTED, CLIENT)
    server.update()
    assert server.codes(CLIENT) == [250]
    assert server.ask(UNWANTED) == refused


def probe_while_updating(server: MailServer, updates: int, probes: int) -> dict[str, int]:
    """The answers to an authorised client while sapd publishes, with 1,000 entries or so."""
    many = [f"100.64.{number >> 8}.{number & 255}" for number in range(1000)]
    server.login(CLIENT, *many)
    server.update()
    assert server.codes(CLIENT) == [250]
    live = server.path(server.TABLE)
    server.machine.start_loop(CLIENT)
    for change in range(updates):
        before = live.stat()
        server.login(f"100.65.{change >> 8}.{change & 255}")
        server.update()
        assert live.stat().st_ino != before.st_ino
        assert server.ask(STRANGER, LOCAL).code == 250
        deadline = time.monotonic() + 120
        while sum(server.machine.count_loop().values()) < probes * (change + 1) / updates:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    counts = server.machine.stop_loop()
    assert sum(counts.values()) >= probes
    return counts


@EACH
def test_no_wrong_answer_while_the_table_changes(server: MailServer) -> None:
    counts = probe_while_updating(server, 8, 150)
    assert counts == {"rcpt 250": sum(counts.values())}


@pytest.mark.slow
@ALL
def test_no_wrong_answer_in_three_thousand(
    server: MailServer, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = probe_while_updating(server, 60, 3000)
    with capsys.disabled():
        print(f"\n{server.NAME} {dict(server.settings)}: {counts}", end=" ")
    assert counts == {"rcpt 250": sum(counts.values())}


@ALL
def test_a_revocation_in_the_second_of_an_update_is_seen(server: MailServer) -> None:
    """Also by processes that have the table open already, and look at its time."""
    table = server.path(server.TABLE)
    for number in range(3):
        server.login(CLIENT, STRANGER)
        server.update()
        opened = table.stat()
        assert server.codes(CLIENT, STRANGER) == [250, 250]
        assert server.sapd("close", CLIENT).returncode == 0
        os.utime(table, ns=(opened.st_mtime_ns, opened.st_mtime_ns))
        assert server.codes(CLIENT, STRANGER) == [server.REFUSED, 250], number
        time.sleep(1.1)  # a login in the second of its revocation does not open


def replace_by_a_folder(table: Path) -> None:
    table.unlink()
    table.mkdir()


def fill(table: Path, content: bytes) -> None:
    table.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": lambda table: table.unlink(),
    "empty": lambda table: fill(table, b""),
    "garbage": lambda table: fill(table, b"\xa5" * 16384),
    "cut": lambda table: os.truncate(table, table.stat().st_size // 2),
    "unreadable": lambda table: table.chmod(0),
}


@ALL
def test_a_damaged_table_is_made_good_by_the_next_run(server: MailServer) -> None:
    for name, damage in DAMAGES.items():
        server.login(CLIENT)
        server.update()
        damage(server.path(server.TABLE))
        said = server.update()
        if "postfix reload" in said:
            server.run("postfix", "reload")
            server.wait_for(CLIENT, 250)
        else:
            assert said == "", name
        assert server.codes(CLIENT, STRANGER) == [250, server.REFUSED], name
        assert server.open_addresses() == {CLIENT}
        assert server.update() == ""


@EACH
def test_a_folder_in_the_tables_place_is_told(server: MailServer) -> None:
    server.login(CLIENT)
    server.update()
    replace_by_a_folder(server.path(server.TABLE))
    assert str(server.TABLE) in server.update(status=73)
    server.path(server.TABLE).rmdir()
    server.update()
    assert server.path(server.TABLE).is_file()


def with_builder(server: MailServer, script: str, mode: int = 0o755) -> None:
    """Have sapd run this script in the builder's place; REAL is the real one."""
    real = {"postfix": "/usr/sbin/postmap", "opensmtpd": "/usr/sbin/smtpctl"}.get(
        server.NAME, "/usr/bin/tcprules"
    )
    path = server.write(f"/usr/local/lib/sapd/{Path(real).name}", "#!/bin/sh\n", mode)
    path.write_text(f"#!/bin/sh\n{script.replace('REAL', real)}\n")
    postconf = path.with_name("postconf")
    if not postconf.is_symlink():
        postconf.symlink_to("/usr/sbin/postconf")
    server.configure(access=f'builder = "/usr/local/lib/sapd/{Path(real).name}"\n')


BAD_BUILDERS = {
    "failing": ("echo some words >&2; exit 1", 0o755),
    "not executable": ("exit 0", 0o644),
    "killed at its start": ("kill -KILL $$", 0o755),
    "killed at its end": ('REAL "$@"; kill -KILL $$', 0o755),
    "failing at its end": ('REAL "$@"; exit 1', 0o755),
}
LAZY_BUILDERS = {
    "doing nothing": "exit 0",
    "leaving out a line": 'sed -i "/100.64.0.5/d" "${1#*:}" 2>/dev/null; sed "/100.64.0.5/d" | '
    'REAL "$@"',
    "warning": 'echo "warning: some words" >&2; exec REAL "$@"',
}


@WITH_BUILDER
def test_a_builder_that_does_not_work_leaves_the_old_table(server: MailServer) -> None:
    server.login(CLIENT)
    server.update()
    for name, (script, mode) in BAD_BUILDERS.items():
        with_builder(server, script, mode)
        server.login(STRANGER)
        said = server.update(status=69)
        assert said.startswith("sapd: error: "), name
        assert said.count("\n") == 1, name
        if not (server.NAME == "opensmtpd" and "end" in name):  # then smtpd has taken it
            assert server.codes(CLIENT, STRANGER) == [250, server.REFUSED], name
        server.configure()
        server.update()
        assert server.codes(CLIENT, STRANGER) == [250, 250], name
        assert server.sapd("close", STRANGER).returncode == 0
        time.sleep(1.1)  # a login in the second of its revocation does not open
    assert not [*server.path("/var/lib/sapd").glob("*sapd-new*")]


@pytest.mark.parametrize("kind", [KINDS["postfix"], KINDS["tcpserver"]], ids=["postfix", "tcp"])
def test_what_a_builder_made_is_counted(server: MailServer) -> None:
    server.login(CLIENT)
    server.update()
    for name, script in LAZY_BUILDERS.items():
        with_builder(server, script)
        server.login("100.64.0.5", STRANGER)
        said = server.update(status=0 if name == "warning" else 69)
        assert server.codes(CLIENT) == [250]
        assert server.codes(STRANGER) == [250 if name == "warning" else server.REFUSED], name
        if name == "leaving out a line":
            assert "entries of 3" in said or "rules of 3" in said
    assert said == ""


MANY = [f"100.64.{number >> 8}.{number & 255}" for number in range(3000)]


def on_a_small_disk(server: MailServer) -> Path:
    """Have sapd keep its table on a disk of 2 MB; the live file."""
    server.run("mkdir", "-p", "/srv/table")
    server.run("mount", "-t", "tmpfs", "-o", "size=2m,mode=755", "none", "/srv/table")
    name = Path(server.TABLE).name
    named = "relay" if server.NAME == "postfix" else name
    server.configure(access=f'database = "/srv/table/{named}"\n')
    return server.path(f"/srv/table/{name}")


@EACH
def test_a_full_disk_leaves_the_old_table(server: MailServer) -> None:
    live = on_a_small_disk(server)
    server.login(CLIENT)
    server.update()
    before = live.read_bytes()
    ballast = fill_up(live.parent)
    server.login(*MANY)
    assert server.update(status=74).count("\n") == 1
    assert live.read_bytes() == before
    ballast.unlink()
    server.update()
    assert live.read_bytes() != before
    assert [*live.parent.iterdir()] == [live]


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        *((KINDS[name], 0) for name in (*ONE_EACH, "postfix cdb")),
        (KINDS["postfix lmdb"], 74),
    ],
    ids=[*ONE_EACH, "postfix cdb", "postfix lmdb"],
)
def test_a_full_disk_does_not_keep_an_address_open(server: MailServer, status: int) -> None:
    """But in an lmdb table, which Postfix has mapped into its memory: see test_postfix.py."""
    live = on_a_small_disk(server)
    server.login(CLIENT, *MANY)
    server.update()
    before = live.read_bytes()
    fill_up(live.parent)
    assert server.update(*later(31), status=status) == "" or status
    if status:
        assert live.read_bytes() == before
        return
    done = server.sapd("list", *later(31))
    assert (done.stdout, done.stderr) == ("no address is open\n", "")


def kill_at(server: MailServer, numbers: slice) -> int:
    """Kill a run at these of its calls that change something; the next one must end it."""
    trace = server.machine.folder / "trace"
    server.login(CLIENT)
    server.update()
    server.login(STRANGER)
    command = [*server.SAPD, "run"]
    server.run(*strace(trace=str(trace)), *command)
    found = calls(trace, Path("/var/lib/sapd"))
    for call in found[numbers]:
        assert server.sapd("close", STRANGER).returncode == 0
        time.sleep(1.1)  # a login in the second of its revocation does not open
        server.login(STRANGER)
        done = server.run(*strace(call.killed, trace=str(trace)), *command, check=False)
        assert done.returncode == 137 or done.returncode < 0, (call, done)
        assert server.codes(CLIENT) == [250], call
        server.update()
        assert server.codes(CLIENT, STRANGER) == [250, 250], call
    folders = {server.path("/var/lib/sapd"), server.path(server.TABLE).parent}
    assert [file for folder in folders for file in folder.iterdir() if "new" in file.name] == []
    return len(found)


@EACH
def test_a_run_killed_while_it_publishes_is_finished_by_the_next(server: MailServer) -> None:
    assert kill_at(server, slice(4, None, 9)) > 15


@pytest.mark.slow
@EACH
def test_a_run_killed_at_any_step_is_finished_by_the_next(server: MailServer) -> None:
    assert kill_at(server, slice(None)) > 15


_TIMING = """
import os, subprocess, sys
from sapd import config, maps
count = int(sys.argv[1])
map = maps.chosen(config.load("/etc/sapd/sapd.toml").access)
many = {f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}": 2e9 for n in range(count)}
def spent():
    return sum(os.times()[:4])
start = spent()
text = map.wanted(many)
map.publish(text)
publish = spent() - start
open("/var/lib/rules", "wb").write(text)
start = spent()
subprocess.run(sys.argv[2:], stdin=open("/var/lib/rules", "rb"), check=True)
print(publish, spent() - start)
"""
ALONE = {
    "postfix": ["postmap", "hash:/var/lib/rules"],
    "exim": ["cp", "/var/lib/rules", "/var/lib/copy"],
    "opensmtpd": ["smtpctl", "update", "table", "relays"],
    "tcpserver": ["tcprules", "/var/lib/rules.cdb", "/var/lib/rules.tmp"],
}


@pytest.mark.slow
@EACH
@pytest.mark.parametrize("count", [1000, 100_000])
def test_time_of_a_publish_against_the_builder_alone(
    server: MailServer, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Processor time, so that other work of the machine does not count."""
    script = server.write("/var/lib/timing.py", _TIMING)
    command = [server.SAPD[0], str(script).removeprefix(str(server.machine.root)), str(count)]
    rows = [
        [float(word) for word in server.run(*command, *ALONE[server.NAME]).stdout.split()[-2:]]
        for _ in range(3)
    ]
    publish, alone = (sorted(column)[1] for column in zip(*rows, strict=True))
    with capsys.disabled():
        print(f"\n{server.NAME}, {count}: publish {publish:.3f} s, alone {alone:.3f} s", end=" ")
    assert publish < 5 * alone + 2
