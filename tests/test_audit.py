"""The trail of who was let in, and `who` and `close`, which go with it."""

import json
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sapd import audit, cli, errors, files
from sapd.audit import Entry
from tests.site import MAKEMAP, Site, login, noise, utc, when

pytestmark = pytest.mark.makemap

NOW = 1_795_000_000.0


def entry(number: int, event: str = "open", address: str = "192.0.2.1") -> Entry:
    return Entry(NOW + number, event, address, f"user{number}", NOW + number - 5, "until then")


def told(site: Site) -> list[tuple[str, str, str, str]]:
    """Event, address, account and reason of each line of the trail."""
    lines = (site.state.parent / audit.NAME).read_text().splitlines()
    read: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return [(one["event"], one["address"], one["account"], one["reason"]) for one in read]


def policy(site: Site, settings: str, window: str = "30m") -> None:
    site.configure(window, top=f"[policy]\n{settings}\n")


def who(site: Site, *arguments: str) -> list[str]:
    done = site.sapd("who", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    hostile = Entry(NOW, "close", "2001:db8::1", '\udcff"\n\x1b[31m', None, "a\nb")
    before = os.umask(0)
    try:
        audit.append(str(tmp_path), [entry(1), hostile], 100)
        audit.append(str(tmp_path), [entry(2)], 100)
    finally:
        os.umask(before)
    assert list(audit.read(str(tmp_path))) == [entry(1), hostile, entry(2)]
    path = tmp_path / audit.NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes().count(b"\n") == 3


def test_it_is_cut(tmp_path: Path) -> None:
    path = tmp_path / audit.NAME
    for number in range(200):
        audit.append(str(tmp_path), [entry(number)], 10)
        assert path.read_bytes().count(b"\n") <= 22
    kept = list(audit.read(str(tmp_path)))
    assert len(kept) >= 10
    assert kept == [entry(number) for number in range(200 - len(kept), 200)]


@pytest.mark.parametrize(
    "junk", [b"\xff\0\n", b"{}\n", b"[1]\n", b"3\n", b'{"time": 3}\n', b"torn"]
)
def test_what_is_no_entry_is_passed_over(junk: bytes, tmp_path: Path) -> None:
    audit.append(str(tmp_path), [entry(1)], 100)
    with (tmp_path / audit.NAME).open("ab") as file:
        file.write(junk)
    audit.append(str(tmp_path), [entry(2)], 100)
    assert list(audit.read(str(tmp_path))) == [entry(1), entry(2)]


def test_nothing_is_written_through_a_link(site: Site) -> None:
    site.run()
    path = site.state.parent / audit.NAME
    elsewhere = site.folder / "elsewhere"
    elsewhere.touch()
    path.unlink(missing_ok=True)
    path.symlink_to(elsewhere)
    site.write(login("192.0.2.10"))
    done = site.sapd("run")
    assert (done.returncode, done.stderr.count("\n")) == (errors.CANT_CREATE, 1)
    assert str(path) in done.stderr
    assert elsewhere.read_bytes() == b""
    assert "192.0.2.10" in site.relaying()


def test_each_login_and_each_end_is_told_once(site: Site) -> None:
    now = time.time()
    site.write(login("192.0.2.10", at=now - 60), login("192.0.2.11", "eve", at=now - 1790))
    site.run()
    site.run()
    opened = [(event, address, account) for event, address, account, _ in told(site)]
    assert opened == [("open", "192.0.2.10", "bob"), ("open", "192.0.2.11", "eve")]
    site.run("--at", when(now + 60))
    assert told(site)[2:] == [("close", "192.0.2.11", "eve", "its window is over")]


def test_a_renewal_is_told_once_an_hour(site: Site) -> None:
    site.configure("8h")
    start = time.time() // 3600 * 3600 - 3 * 3600
    for minute in range(0, 125, 5):
        at = start + 60 * minute
        site.write(login("192.0.2.10", at=at))
        site.run("--at", when(at + 1))
    assert [event for event, *_ in told(site)] == ["open", "renew", "renew"]


def test_why_somebody_is_not_opened(site: Site) -> None:
    policy(site, 'deny_accounts = ["ev*"]\nmax_accounts_per_address = 1')
    site.source.write_text("Connect:192.0.2.9\tREJECT\n")
    site.write(login("192.0.2.10", "eve"), login("192.0.2.9"))
    site.write(login("192.0.2.11"), login("192.0.2.11", "zoe"))
    site.sapd("run")
    crowd = "2 accounts logged in, more than policy.max_accounts_per_address"
    assert sorted(told(site)) == [
        ("refuse", "192.0.2.10", "eve", 'policy.deny_accounts has "ev*"'),
        ("refuse", "192.0.2.11", "bob", crowd),
        ("refuse", "192.0.2.11", "zoe", crowd),
        ("refuse", "192.0.2.9", "bob", 'access.source says "Connect:192.0.2.9 REJECT"'),
    ]
    site.sapd("run")
    assert len(told(site)) == 4


@pytest.mark.parametrize("settings", ["keep_lines = 0", "keep_lines = 10"])
def test_how_much_is_kept_is_a_setting(site: Site, settings: str) -> None:
    site.configure(top=f"[audit]\n{settings}\n")
    site.write(*(login(f"192.0.2.{number}") for number in range(1, 60)))
    site.run()
    path = site.state.parent / audit.NAME
    assert path.exists() == (settings == "keep_lines = 10")
    assert not path.exists() or len(path.read_text().splitlines()) == 11


def test_a_dry_run_writes_no_trail(site: Site) -> None:
    site.write(login("192.0.2.10"))
    site.run("-n")
    assert not site.state.parent.exists()


def test_who_may_relay_and_why_not(site: Site) -> None:
    policy(
        site, 'never = ["203.0.113.0/24"]\ndeny_accounts = ["eve"]\none_address_per_account=true'
    )
    site.source.write_text("Connect:192.0.2.9\tREJECT\nConnect:192.0.2.8\tRELAY\n")
    now = time.time()
    site.write(login("192.0.2.10", at=now - 90), login("192.0.2.11", at=now - 60))
    site.write(login("192.0.2.12", "eve"), login("192.0.2.9", "zoe"), login("203.0.113.1", "ann"))
    site.sapd("run")
    assert re.fullmatch(
        r"192\.0\.2\.11 is open until \S+, by the login of bob \(\S+\)", who(site, "192.0.2.11")[0]
    )
    expected = {
        "192.0.2.10": "the account logged in from 192.0.2.11 since",
        "192.0.2.12": 'policy.deny_accounts has "eve"',
        "192.0.2.9": 'access.source says "Connect:192.0.2.9 REJECT"',
        "192.0.2.8": "it relays by an entry of its own in access.source",
        "203.0.113.1": "policy.never has it",
        "192.0.2.77": "nobody has logged in from it within the window",
        "2001:db8::7": "nobody has logged in from it within the window",
    }
    for address, why in expected.items():
        first = who(site, address)[0]
        assert first.startswith(f"{address} is ")
        assert why in first
        assert " open until " not in first


def test_who_it_was(site: Site) -> None:
    start = time.time() - 7200

    def at(seconds: float) -> str:
        return when(start + seconds)

    site.write(login("192.0.2.10", at=start))
    site.run("--at", at(30))
    site.write(login("192.0.2.11", at=start + 3600))
    site.run("--at", at(3660))
    assert who(site, "192.0.2.10", "--at", at(600))[0] == (
        f"192.0.2.10 was open at {at(600)}, by the login of bob"
    )
    assert who(site, "192.0.2.10", "--at", at(3670))[0] == f"192.0.2.10 was closed at {at(3670)}"
    assert len(who(site, "192.0.2.10", "--at", at(600))) == 2
    site.run()  # as of now: else who would say that the map still lets the other one in
    assert len(who(site, "192.0.2.10")) == 3
    assert "not known, the trail begins at" in who(site, "192.0.2.10", "--at", at(-60))[0]
    done = site.sapd("who", "192.0.2.1000")
    assert (done.returncode, done.stdout) == (2, "")
    assert '"192.0.2.1000" is not an address' in done.stderr
    done = site.sapd("close", "scanner")
    assert '"scanner" is not an address; sapd who scanner finds' in done.stderr


def test_who_it_was_where_no_pass_came(site: Site) -> None:
    """The map lets in whom no pass closed; but not where the mail server closes by itself."""
    start = (time.time() - 86400) // 3600 * 3600  # an hour begins: renewals are not told

    def said(seconds: float) -> str:
        return who(site, "192.0.2.10", "--at", when(start + seconds))[0]

    def at(seconds: float) -> str:
        return f"at {when(start + seconds)}"

    exim = (
        '[[log]]\npath = "qpopper"\n[access]\nserver = "exim"\ndatabase = "relay"\n'
        '[state]\ndirectory = "state"\n'
    )
    site.config.write_text(exim)
    site.write(login("192.0.2.10", at=start))
    site.run("--at", when(start))
    site.write(login("192.0.2.10", at=start + 900))
    site.run("--at", when(start + 900))
    by, over = "by the login of bob", f"its window ended {at(2700)}"
    self_closing = f"192.0.2.10 was closed {at(3600)}: {over}"
    for lines, late in (
        ([], f"{over}, but no pass has closed it"),
        ([login("192.0.2.10", at=start + 7200)], f"{over}, but no pass closed it before"),
        ([], f"{over}, but no pass closed it before"),
    ):
        if lines:
            site.write(*lines)
            site.run("--at", when(start + 7200))
        assert said(600) == f"192.0.2.10 was open {at(600)}, {by}"
        assert said(2400) == f"192.0.2.10 was open {at(2400)}, {by}"
        assert said(3600) == self_closing
        assert who(site, "bob", "--at", when(start + 3600))[0] == self_closing
        site.configure()
        assert said(3600).startswith(f"192.0.2.10 was open {at(3600)}, {by}; {late}")
        site.config.write_text(exim)
    site.run("--at", when(start + 20_000))
    assert said(10_000) == f"192.0.2.10 was closed {at(10_000)}: its window ended {at(9000)}"
    assert said(8000) == f"192.0.2.10 was open {at(8000)}, {by}"


def test_the_end_is_the_one_that_was_written(site: Site) -> None:
    """Into a map that closes by itself it is written a little later."""
    start = (time.time() - 86400) // 3600 * 3600
    site.config.write_text(
        '[[log]]\npath = "qpopper"\n[access]\nserver = "exim"\ndatabase = "relay"\n'
        '[state]\ndirectory = "state"\n'
    )
    site.write(login("192.0.2.10", at=start + 10))
    site.run("--at", when(start + 20))
    end = int((site.folder / "relay").read_text().split()[-1])
    assert end == start + 2250
    for seconds, is_so in ((2200, "open"), (2249, "open"), (2250, "closed")):
        (first, *_) = who(site, "192.0.2.10", "--at", when(start + seconds))
        assert f"was {is_so} at " in first


def test_the_end_is_known_where_the_map_could_not_be_published_then(site: Site) -> None:
    site.write(login("192.0.2.10", at=NOW))
    site.run("--at", when(NOW))
    site.write(login("192.0.2.10", at=NOW + 60))  # a renewal of which the trail does not tell
    site.run("--at", when(NOW + 60))
    site.configure(access_settings='makemap = "/nonexistent"')
    site.run("--at", when(NOW + 2000), status=errors.MAKEMAP_FAILED)
    site.configure()
    site.run("--at", when(NOW + 2100))
    assert site.relaying() == {"198.51.100.9"}
    last = site.audit.read_text().splitlines()[-1]
    assert json.loads(last)["ended"] == utc(NOW + 60 + 1800)


def test_an_account_before_the_trail(site: Site) -> None:
    site.write(login("192.0.2.10"))
    before = time.time() - 3600
    assert who(site, "bob", "--at", when(before)) == [
        f"bob at {when(before)}: not known, the trail is empty"
    ]
    site.run()
    assert who(site, "bob", "--at", when(before))[0].startswith(
        f"bob at {when(before)}: not known, the trail begins at "
    )
    now = when(time.time())
    assert who(site, "eve", "--at", now) == [f"eve has no login in the trail up to {now}"]


def test_a_trail_that_can_not_be_read_is_named(site: Site) -> None:
    site.run()
    site.audit.mkdir()
    done = site.sapd("who", "bob")
    assert done.returncode == errors.CANT_CREATE
    assert done.stderr == f"sapd: error: {site.audit}: can't be read: Is a directory\n"


def test_close(site: Site) -> None:
    lines = [login("192.0.2.10"), login("192.0.2.11", "eve"), noise(1)]
    site.write(*lines)
    site.run()
    done = site.sapd("close", "192.0.2.10", "::ffff:192.0.2.77")
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout.splitlines()
    assert said[0].startswith("192.0.2.10 is closed: sapd close closed it at ")
    assert said[1].startswith("192.0.2.77 is closed: sapd close closed it at ")
    assert len(said) == 2
    assert site.open_addresses() == {"192.0.2.11"} == site.relaying() - {"198.51.100.9"}
    site.write(*lines)
    site.state.write_text(site.state.read_text().replace('"anchor": "2', '"anchor": "3'))
    site.run()
    assert site.open_addresses() == {"192.0.2.11"}
    assert "sapd close closed it at" in who(site, "192.0.2.10")[0]
    site.write(login("192.0.2.10", at=time.time() + 2))
    site.run("--at", when(time.time() + 2))
    assert "192.0.2.10" in site.relaying()


def test_close_all(site: Site) -> None:
    site.write(login("192.0.2.10"), login("2001:db8::1", "eve"))
    site.run()
    done = site.sapd("close", "--all")
    assert [line.partition(": ")[0] for line in done.stdout.splitlines()] == [
        "192.0.2.10 is closed",
        "2001:db8::1 is closed",
    ]
    assert site.relaying() == {"198.51.100.9"}
    site.run()
    assert site.open_addresses() == set()
    for wrong in ([], ["--all", "192.0.2.1"]):
        assert site.sapd("close", *wrong).returncode == 2


def test_close_waits_for_a_run(site: Site) -> None:
    site.write(login("192.0.2.10"))
    site.run()
    fd = files.lock(str(site.state.parent / "lock"))
    command = [sys.executable, "-m", "sapd", "close", "-c", str(site.config), "192.0.2.10"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stderr is not None
        said = f"waiting for the run that is at work (process {os.getpid()})\n"
        assert process.stderr.readline() == said
        assert process.poll() is None
        os.close(fd)
        assert process.wait(20) == 0
        assert process.stderr.read() == ""
    assert site.open_addresses() == set()


@pytest.mark.parametrize("which", [["--all"], ["192.0.2.10", "2001:db8::1", "192.0.2.77"]])
@pytest.mark.parametrize("wrong", ["top", "rules", "access", "TOML"])
def test_close_behind_a_mistake(site: Site, wrong: str, which: list[str]) -> None:
    """It closes in the map that was published last, tells the mistake, and it stays so."""
    lines = [login("192.0.2.10"), login("2001:db8::1", "eve")]
    site.write(*lines)
    site.run()
    text = site.config.read_text()
    spoilt = {
        "top": f'windwo = "30m"\n{text}',
        "rules": f"{text}[policy]\nnever = [3]\n",
        "access": text.replace("[access]", "[access]\ntype = 3"),
        "TOML": '[[log\n[state]\ndirectory = "state"\n',
    }
    site.config.write_text(spoilt[wrong])
    done = site.sapd("close", *which)
    assert (done.returncode, done.stderr.count("\n")) == (errors.BAD_CONFIG, 1)
    assert done.stderr.startswith(f"sapd: error: {site.config}: line ")
    not_open = ["192.0.2.77 was not open"] * (len(which) == 3)
    closed = ["192.0.2.10 is closed", *not_open, "2001:db8::1 is closed"]
    assert done.stdout.splitlines() == closed
    assert site.relaying() == {"198.51.100.9"}
    assert site.sapd("run").returncode == errors.BAD_CONFIG
    assert site.relaying() == {"198.51.100.9"}
    site.configure()
    site.write(*lines)  # of the same second: no new login
    site.run()
    assert site.relaying() == {"198.51.100.9"}
    assert "sapd close closed it at" in who(site, "192.0.2.10")[0]


def test_close_of_one_behind_a_mistake_leaves_the_other_open(site: Site) -> None:
    site.write(login("192.0.2.10"), login("192.0.2.11", "eve"))
    site.run()
    site.config.write_text(site.config.read_text() + "[policy]\nnever = [3]\n")
    assert site.sapd("close", "192.0.2.10").stdout == "192.0.2.10 is closed\n"
    assert site.relaying() == {"198.51.100.9", "192.0.2.11"}


def test_close_without_a_configuration(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The state in its default place tells of the map that was published last."""
    site.write(login("192.0.2.10"))
    site.run()
    site.config.unlink()
    monkeypatch.setattr("sapd.defaults.STATE_DIRECTORY", str(site.state.parent))
    monkeypatch.setattr(sys, "argv", ["sapd", "close", "-c", str(site.config), "--all"])
    assert cli.main() == errors.BAD_CONFIG
    said = capsys.readouterr()
    assert said.out == "192.0.2.10 is closed\n"
    assert said.err.startswith(f"sapd: error: {site.config}: is missing")
    assert site.relaying() == {"198.51.100.9"}


def test_close_behind_a_mistake_that_can_not_close_says_so(site: Site) -> None:
    site.configure(access_settings=f'makemap = "{site.folder}/makemap"')
    (site.folder / "makemap").symlink_to(MAKEMAP)
    site.write(login("192.0.2.10"))
    site.run()
    (site.folder / "makemap").unlink()
    site.config.write_text(f"windwo = 3\n{site.config.read_text()}")
    done = site.sapd("close", "192.0.2.10")
    assert (done.returncode, done.stderr.count("\n")) == (errors.BAD_CONFIG, 2)
    assert done.stdout == "192.0.2.10 may still be open\n"


def test_what_could_not_be_closed_is_not_called_closed(site: Site) -> None:
    site.source.write_text("Connect:198.51.100\tRELAY\nConnect:203.0.113\tREJECT\n")
    site.write(login("192.0.2.10"))
    site.run()
    done = site.sapd("close", "198.51.100.1")
    assert "is not opened by sapd: it relays by its network's entry" in done.stdout
    assert 'says "Connect:203.0.113 REJECT"' in who(site, "203.0.113.1")[0]
    site.configure(access_settings='makemap = "/nonexistent"')
    done = site.sapd("close", "192.0.2.10")
    assert done.returncode == errors.MAKEMAP_FAILED
    assert done.stdout.startswith("192.0.2.10 is open in the map as it stands; since ")
    assert "else it is closed: sapd close closed it at" in done.stdout
    site.configure()
    site.run()
    event, address, account, reason = told(site)[-1]
    assert (event, address, account) == ("close", "192.0.2.10", "bob")
    assert reason.startswith("sapd close closed it at ")


def test_what_the_trail_no_longer_tells(tmp_path: Path, site: Site) -> None:
    site.run()
    start = time.time() - 7200
    entries = [
        Entry(start, "open", "192.0.2.1", "ann", start, ""),
        Entry(start + 600, "close", "192.0.2.10", "bob", None, "its window is over"),
        Entry(start + 700, "renew", "192.0.2.11", "bob", start, ""),
        Entry(start + 700, "open", "192.0.2.12", "bob", start, ""),
    ]
    audit.append(str(site.state.parent), entries, 100)

    def at(address: str, seconds: float) -> str:
        return who(site, address, "--at", when(start + seconds))[0]

    assert "was open" in at("192.0.2.10", 300)
    assert "was open" in at("192.0.2.11", 300)
    assert "was closed" in at("192.0.2.12", 300)
    assert "not known" in at("192.0.2.13", 300)
    assert "was closed" in at("192.0.2.13", 1900)
    assert "was closed" in at("192.0.2.10", 601)
