"""OpenSMTPD's table: never empty, and smtpd is told of each change."""

from pathlib import Path

import pytest

from sapd.errors import SapdError
from sapd.maps.opensmtpd import OpenSMTPD

HERE, SIX = "192.0.2.10", "2001:db8::7"
UNTIL = 1_000_000.0


def server(folder: Path, script: str = 'echo "$@" >>"$0.said"') -> OpenSMTPD:
    """A map whose smtpctl is a script."""
    smtpctl = folder / "smtpctl"
    smtpctl.write_text(f"#!/bin/sh\n{script}\n")
    smtpctl.chmod(0o755)
    return OpenSMTPD(str(folder / "relay"), "relays", str(smtpctl))


def test_the_table_is_never_empty(tmp_path: Path) -> None:
    made = server(tmp_path)
    assert made.wanted({}) == b"127.0.0.1\n"
    assert made.wanted({SIX: UNTIL, HERE: UNTIL}) == b"127.0.0.1\n192.0.2.10\n2001:db8::7\n"


def test_smtpd_is_told_once_the_file_is_in_place(tmp_path: Path) -> None:
    made = server(tmp_path, 'cat "$(dirname "$0")/relay" >"$0.saw"; echo "$@" >"$0.said"')
    text = made.wanted({HERE: UNTIL})
    published = made.publish(text)
    assert (tmp_path / "smtpctl.said").read_text() == "update table relays\n"
    assert (tmp_path / "smtpctl.saw").read_bytes() == text
    assert made.is_published(text, published)
    assert set(made.published_now(0, [])) == {HERE}


def test_a_smtpd_that_can_not_be_told_is_a_failure(tmp_path: Path) -> None:
    made = server(tmp_path, 'echo "smtpctl: smtpd doesn\'t seem to be running" >&2; exit 1')
    with pytest.raises(SapdError, match="doesn't seem to be running; it keeps the old") as raised:
        made.publish(made.wanted({HERE: UNTIL}))
    assert raised.value.status == 69
