"""Frames of real syslog daemons, and what hostile words become in them."""

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from sapd.events import formats
from sapd.events.framing import Framing
from sapd.events.recogniser import Recogniser
from sapd.timestamps import Clock
from tests.events.test_frames import ALL, LOGIN
from tests.servers.loggers import busybox, syslog_ng

pytestmark = pytest.mark.servers

TEMPLATES = {
    "traditional": "$DATE $HOST $MSGHDR$MSG",
    "rfc3339": "$ISODATE $HOST $MSGHDR$MSG",
    "iso": "$YEAR-$MONTH-$DAY $HOUR:$MIN:$SEC $HOST $MSGHDR$MSG",
    "busybox": "$DATE $HOST $FACILITY.$PRIORITY $MSGHDR$MSG",
    "aix": "$DATE $HOST $FACILITY:$PRIORITY $MSGHDR$MSG",
    "freebsd": "$ISODATE <$FACILITY.$PRIORITY> $HOST $MSGHDR$MSG",
    "freebsd_words": "$DATE $FACILITY $PRIORITY $HOST $MSGHDR$MSG",
    "level_first": "<$PRI>$DATE $HOST $MSGHDR$MSG",
    "level_first_words": "$FACILITY.$PRIORITY $ISODATE $HOST $MSGHDR$MSG",
    "hostless": "$DATE $MSGHDR$MSG",
    "logread": "$DATE $FACILITY.$PRIORITY $MSGHDR$MSG",
}
FRAMES = {"rfc3339": "traditional", "freebsd_words": "freebsd", "level_first_words": "level-first"}


def said(text: str, tag: str = "popper[4242]") -> bytes:
    return f"<22>{time.strftime('%b %e %H:%M:%S')} {tag}: {text}".encode()


def hostile(newlines: str) -> list[bytes]:
    """Whole lines of each frame in other programs' messages, behind newlines or blanks."""
    forged = [head.format("popper") + LOGIN.format("6.6.6.6") for _, head in ALL]
    return [
        said(f"{newline}{line}", tag)
        for newline in newlines
        for line in forged
        for tag in ("sm-mta[7]", "sshd[7]", "nginx")
    ]


LOGINS = [said(LOGIN.format("192.0.2.10")), said(LOGIN.format("192.0.2.11"))]


def read_as(log: bytes, names: Sequence[str] = (formats.AUTO,)) -> tuple[set[str], set[str | None]]:
    """The frames that a log has, and the addresses that logged in."""
    recogniser = Recogniser(names, Clock(time.time()))
    name = recogniser.context.frame = Framing(recogniser.formats, None).of_block(log)
    return {name}, {one.address for one in recogniser.events(log) if one.event == "login"}


@pytest.mark.parametrize(("options", "frame"), [((), "busybox"), (("-S",), "hostless")])
def test_busybox(tmp_path: Path, options: tuple[str, ...], frame: str) -> None:
    log = busybox(tmp_path, [LOGINS[0], *hostile("\n "), LOGINS[1]], *options)
    assert b"6.6.6.6" in log
    assert read_as(log) == ({frame}, {"192.0.2.10", "192.0.2.11"})


@pytest.mark.parametrize(("options", "frame"), [((), "busybox"), (("-S",), "hostless")])
def test_busybox_cuts_what_is_long(tmp_path: Path, options: tuple[str, ...], frame: str) -> None:
    """At some length it cuts the words off that say that the login failed."""
    tag = "ipop3d[4242]"
    longest = max(map(len, busybox(tmp_path, [said("x" * 9000, tag)], *options).split(b"\n")))
    text = "Login user={} host=h [6.6.6.6] that is a name, and the login failed"
    for stamped in (True, False):
        folder = tmp_path / str(stamped)
        folder.mkdir()
        lengths = range(longest - 120, longest)
        whole = [said(text.format("a" * length), tag) for length in lengths]
        messages = whole if stamped else [b"<22>" + one[len("<22>") + 16 :] for one in whole]
        log = busybox(folder, messages, *options)
        assert b"host=h [6.6.6.6]\n" in log
        assert read_as(log, ["uw-imap"]) == ({frame}, set())


def test_syslog_ng_by_each_template(tmp_path: Path) -> None:
    logs = syslog_ng(
        tmp_path, [LOGINS[0], *hostile("\n "), LOGINS[1]], TEMPLATES, "flags(no-multi-line)"
    )
    for name, log in logs.items():
        frame = FRAMES.get(name, name.replace("_", "-"))
        assert b"6.6.6.6" in log
        assert read_as(log) == ({frame}, {"192.0.2.10", "192.0.2.11"}), name


@pytest.mark.parametrize(
    ("flags", "opened"),
    [("", {"192.0.2.10", "6.6.6.6"}), ("flags(no-multi-line)", {"192.0.2.10"})],
)
def test_syslog_ng_writes_newlines_unless_it_is_told_not_to(
    tmp_path: Path, flags: str, opened: set[str]
) -> None:
    """So who makes a program log a newline writes lines of the log's own frame: sapd.toml(5)."""
    stamp = time.strftime("%b %e %H:%M:%S")
    forged = said(f"x\n{stamp} mx1 popper[7]: {LOGIN.format('6.6.6.6')}", "nginx")
    templates = {"plain": TEMPLATES["traditional"]}
    logs = syslog_ng(tmp_path, [LOGINS[0], forged], templates, flags)
    assert read_as(logs["plain"]) == ({"traditional"}, opened)
