"""The administrator's entries: what they mean for an address, and that they always win."""

import os
import subprocess
from pathlib import Path

import pytest

from sapd import errors
from sapd.decision import Objection, Reason
from sapd.maps.access import Source
from tests.site import MAKEMAP


def source(tmp_path: Path, text: str | bytes, tag: str = "Connect:") -> Source:
    path = tmp_path / "access"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Source(str(path), tag)


@pytest.mark.parametrize(
    ("entry", "address", "reason"),
    [
        # The very address, in any tag and case: never overridden; a RELAY needs no mention.
        ("192.0.2.1 REJECT", "192.0.2.1", Reason.REFUSED),
        ("Connect:192.0.2.1 REJECT", "192.0.2.1", Reason.REFUSED),
        ("CONNECT:192.0.2.1\treject\r", "192.0.2.1", Reason.REFUSED),
        ('192.0.2.1 ERROR:"550 go away"', "192.0.2.1", Reason.REFUSED),
        ("192.0.2.1 550 go away", "192.0.2.1", Reason.REFUSED),
        ("192.0.2.1 DISCARD", "192.0.2.1", Reason.REFUSED),
        ("192.0.2.1 OK", "192.0.2.1", Reason.REFUSED),
        ("192.0.2.1 RELAY # note", "192.0.2.1", Reason.REFUSED),
        ("192.0.2.1 RELAY", "192.0.2.1", Reason.RELAYS_ALREADY),
        ("Connect:192.0.2.1  relay \r", "192.0.2.1", Reason.RELAYS_ALREADY),
        # A network that holds it.
        ("192.0.2 REJECT", "192.0.2.1", Reason.REFUSED),
        ("Connect:192.0 REJECT", "192.0.2.1", Reason.REFUSED),
        ("192 DISCARD", "192.0.2.1", Reason.REFUSED),
        ("192.0.2.0/24 REJECT", "192.0.2.1", Reason.REFUSED),
        ("[192.0.2.1] REJECT", "192.0.2.1", Reason.REFUSED),
        ("192.0.2 QUARANTINE:why", "192.0.2.1", Reason.REFUSED),
        ("192.0.2 RELAY", "192.0.2.1", None),
        # What sendmail never matches refuses, but never permits.
        ("192.0.2.0/24 RELAY\n192 REJECT", "192.0.2.1", Reason.REFUSED),
        ("[192.0.2.1] RELAY\n192.0.2 REJECT", "192.0.2.1", Reason.REFUSED),
        ("192.0.002 OK\n192 REJECT", "192.0.2.1", Reason.REFUSED),
        ("192.0.2. OK\n192 REJECT", "192.0.2.1", Reason.REFUSED),
        ("2001:db8::/32 RELAY\nIPv6:2001 REJECT", "2001:db8::7", Reason.REFUSED),
        ("IPv6:2001:0db8 RELAY\nIPv6:2001 REJECT", "2001:db8::7", Reason.REFUSED),
        ("[192.0.2.1] RELAY", "192.0.2.1", None),
        ("192.0.2\vREJECT", "192.0.2.1", Reason.REFUSED),
        ("192.0.2 OK", "192.0.2.1", None),
        ("192.0.20 REJECT", "192.0.2.1", None),
        ("192.0.2.10 REJECT", "192.0.2.1", None),
        ("From:192.0.2.1 REJECT", "192.0.2.1", None),
        ("spammer.example REJECT", "192.0.2.1", None),
        ("# 192.0.2.1 REJECT", "192.0.2.1", None),
        # The longest prefix is the administrator's last word.
        ("192.0 REJECT\n192.0.2 OK", "192.0.2.1", None),
        ("192.0.2 REJECT\n192.0 OK", "192.0.2.1", Reason.REFUSED),
        ("192.0.2 OK\nConnect:192.0.2 REJECT", "192.0.2.1", Reason.REFUSED),
        # IPv6.
        ("IPv6:2001:db8::7 REJECT", "2001:db8::7", Reason.REFUSED),
        ("Connect:IPv6:2001:DB8:0:0:0:0:0:7 REJECT", "2001:db8::7", Reason.REFUSED),
        ("IPv6:2001:db8 REJECT", "2001:db8::7", Reason.REFUSED),
        ("IPv6:2001:db8:0: REJECT", "2001:db8::7", Reason.REFUSED),
        ("2001:db8::/32 REJECT", "2001:db8::7", Reason.REFUSED),
        ("IPv6:2001:db9 REJECT", "2001:db8::7", None),
        ("IPv6:2001:db8:0:0:0:0:0:7 RELAY", "2001:db8::7", Reason.RELAYS_ALREADY),
        ("IPv6:2001:db8::7 OK", "2001:db8::7", Reason.REFUSED),
        ("IPv6:::ffff:192.0.2.1 REJECT", "192.0.2.1", Reason.REFUSED),
        ("192.0.2 REJECT", "2001:db8::7", None),
        ("IPv6:2001:db8::7 REJECT", "192.0.2.1", None),
        ("", "192.0.2.1", None),
    ],
)
def test_the_administrators_word_wins(
    tmp_path: Path, entry: str, address: str, reason: Reason | None
) -> None:
    found = source(tmp_path, entry).objection_to(address)
    assert (found and found.reason) == reason
    assert found is None or "\n" not in found.detail


def test_the_detail_is_the_entry_without_its_place(tmp_path: Path) -> None:
    entry = "# Spammers.\n\nconnect:192.0.2\t \tREJECT \r\n"
    expected = Objection(Reason.REFUSED, "connect:192.0.2 REJECT")
    assert source(tmp_path, entry).objection_to("192.0.2.1") == expected
    assert source(tmp_path, f"# Another line.\n{entry}").objection_to("192.0.2.1") == expected


@pytest.mark.parametrize(
    ("entry", "permitted"),
    [
        ("192.0.2 RELAY", True),
        ("192.0 REJECT\n192.0.2 relay", True),
        ("192.0 RELAY\n192.0.2 OK", False),
        ("192.0.2 OK", False),
        ("192.0.20 RELAY", False),
        # sendmail never matches these.
        ("192.0.2.0/24 RELAY", False),
        ("192.0.2. RELAY", False),
        ("192.0.2.0/24 OK\n192 RELAY", True),
        ("", False),
    ],
)
def test_who_relays_by_a_network_of_the_administrators(
    tmp_path: Path, entry: str, permitted: bool
) -> None:
    assert source(tmp_path, entry).permits("192.0.2.1") == permitted


def test_a_tag_of_ones_own_counts_like_connect(tmp_path: Path) -> None:
    own = source(tmp_path, "Pop:192.0.2.1 REJECT\nConnect:192.0.2.2 REJECT", "Pop:")
    assert own.objection_to("192.0.2.1")
    assert own.objection_to("192.0.2.2")


def test_source_that_cannot_be_read(tmp_path: Path) -> None:
    for path, status in ((tmp_path / "none", errors.BAD_CONFIG), (tmp_path, errors.BAD_CONFIG)):
        with pytest.raises(errors.SapdError, match="can't be read") as raised:
            Source(str(path), "")
        assert raised.value.status == status
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(errors.SapdError, match="not a regular file"):
        Source(str(tmp_path / "fifo"), "")


@pytest.mark.makemap
@pytest.mark.parametrize(
    "text",
    [
        b"", b"\n\n#x\n", b"a b", b"a\tb\nc d", b"Connect:192.0.2.1 RELAY\r\n",
        b"a b\n#c d\n\ne f\n",
        b"a  \t b c\n", "ümläut.example REJECT\n".encode(), b"\xff\xfe x\n", b"a b\x00c\n",
        b"1.2.3.4:5 x\n", b"a b\\\nc d\n", b"\x00#\na b\n",
    ],
)  # fmt: skip
def test_entries_are_counted_as_makemap_counts_them(tmp_path: Path, text: bytes) -> None:
    """Only of what makemap takes: it refuses the rest with a status."""
    own = source(tmp_path, text)
    done = subprocess.run(
        [MAKEMAP, "hash", tmp_path / "x.db"], input=own.text, capture_output=True, check=False
    )
    if done.returncode == 0:
        command = [MAKEMAP, "-u", "hash", str(tmp_path / "x")]
        dump = subprocess.run(command, capture_output=True, check=True)
        assert dump.stdout.count(b"\n") == own.count
    else:
        assert b"line " in done.stderr
