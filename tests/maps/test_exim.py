"""Exim's table: a text in which each address has its end."""

from pathlib import Path

from sapd.maps.exim import Exim

NOW = 1_800_000_000.0
HERE, THERE, SIX = "192.0.2.10", "192.0.2.9", "2001:db8::7"


def test_each_entry_has_its_end_and_ipv6_stands_in_quotes(tmp_path: Path) -> None:
    text = Exim(str(tmp_path / "relay")).wanted({SIX: NOW + 0.5, HERE: NOW, THERE: NOW})
    assert text == b'192.0.2.10: 1800000000\n192.0.2.9: 1800000000\n"2001:db8::7": 1800000001\n'


def test_who_is_let_in_is_read_from_the_table_itself(tmp_path: Path) -> None:
    exim = Exim(str(tmp_path / "relay"))
    assert exim.published_now(NOW, [HERE]) == set()
    text = exim.wanted({SIX: NOW + 9, HERE: NOW + 9, THERE: NOW})
    made = exim.publish(text)
    assert exim.is_published(text, made)
    assert exim.published_now(NOW, []) == {HERE, SIX}
    assert exim.published_now(NOW + 9, []) == set()
    Path(exim.path).write_bytes(b"garbage\n192.0.2.10: soon\n192.0.2.10: 1800000009\n")
    assert not exim.is_published(text, made)
    assert exim.published_now(NOW, []) == {HERE}


def test_the_table_can_be_read_by_all_and_leaves_nothing_behind(tmp_path: Path) -> None:
    exim = Exim(str(tmp_path / "relay"))
    (tmp_path / "relay.sapd-new").write_text("of a run that was killed")
    exim.publish(exim.wanted({HERE: NOW}))
    assert [path.name for path in tmp_path.iterdir()] == ["relay"]
    assert (tmp_path / "relay").stat().st_mode & 0o777 == 0o644


def test_a_link_in_the_tables_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("somebody else's")
    (tmp_path / "relay").symlink_to(other)
    exim = Exim(str(tmp_path / "relay"))
    before = Exim(str(tmp_path / "before")).publish(b"")
    exim.publish(exim.wanted({HERE: NOW}), before)
    assert other.read_text() == "somebody else's"
    assert not (tmp_path / "relay").is_symlink()
