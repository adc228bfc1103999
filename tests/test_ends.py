"""The end that is written into a map which closes by itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sapd import config, maps, run
from sapd.addresses import parse_network
from sapd.relay import Rules
from tests.site import Site, login, when

NOW = 1_800_000_000
SELF_CLOSING = "self_closing = true"


@given(st.floats(1e9, 3e9), st.floats(1, 366 * 86400), st.sampled_from([None, 1.0, 600.0]))
def test_it_is_later_by_less_than_a_quarter_of_the_window(
    end: float, window: float, after_logout: float | None
) -> None:
    written = Rules(window, after_logout=after_logout).written_end("192.0.2.1", end)
    most = 1.0 if after_logout is not None else max(1.0, window / 4)
    assert end <= written < end + most


def test_the_window_of_the_network_counts() -> None:
    rules = Rules(1800, windows=((parse_network("192.0.2.0/24"), 40.0),))
    assert rules.written_end("192.0.2.1", NOW + 1) == NOW + 10
    assert rules.written_end("198.51.100.1", NOW + 1) == NOW + 450


@pytest.mark.makemap
@pytest.mark.parametrize(("after_logout", "most"), [("", 9), ('after_logout = "10m"', 60)])
def test_renewals_of_an_hour_rewrite_the_map_as_seldom_as_the_rounding_says(
    site: Site, after_logout: str, most: int
) -> None:
    """A client that logs in each minute; its window is half an hour, a quarter 450 s."""
    policy = f"[policy]\n{after_logout}" if after_logout else ""
    site.configure(access_settings=SELF_CLOSING, top=policy)
    settings = config.load(str(site.config))
    rewritten = set()
    for minute in range(60):
        at = NOW + 60 * minute
        site.write(login("192.0.2.1", at=at))
        assert run.once(settings, at).status == 0
        rewritten.add(site.database.stat().st_mtime_ns)
        end = int(site.entries()["sapd:192.0.2.1"])
        assert at + 1800 <= end < at + 1800 + (1 if after_logout else 450)
    assert 8 <= len(rewritten) <= most
    site.run("--at", when(at + 1801))
    assert "sapd:192.0.2.1" not in site.entries()  # a run closes on time


@pytest.mark.makemap
def test_a_hundred_clients_that_renew_rewrite_the_map_no_more_often(site: Site) -> None:
    """Each logs in each minute: in the hour eight quarters begin, each of them during one pass.

    Of the logins of that pass some lie before it, so that these clients' ends follow in the next.
    """
    site.configure(access_settings=SELF_CLOSING)
    settings = config.load(str(site.config))
    rewritten = set()
    for minute in range(60):
        at = NOW + 60 * minute
        clients = range(100)
        site.write(*(login(f"192.0.2.{n}", f"user{n}", at - 59 + n * 0.59) for n in clients))
        assert run.once(settings, at).status == 0
        rewritten.add(site.database.stat().st_mtime_ns)
    assert 8 <= len(rewritten) <= 1 + 2 * 8


@pytest.mark.makemap
@pytest.mark.parametrize("settings", ["", SELF_CLOSING], ids=["relays", "self-closing"])
def test_who_stays_open_for_want_of_a_map_is_named(site: Site, settings: str) -> None:
    """Not where sendmail closes by itself."""
    site.configure(access_settings=settings)
    site.write(login("192.0.2.1", at=NOW), login("192.0.2.1", "eve", at=NOW))
    site.run("--at", when(NOW))
    site.configure(access_settings=f'makemap = "/bin/false"\n{settings}')
    first = site.run("--at", when(NOW + 1801), status=69)
    assert "may still relay" not in first.stderr
    late = site.run("--at", when(NOW + 3700), status=69)
    words = (
        f"{site.database}: 192.0.2.1 (bob, eve) may still relay, and should not: no map could be "
        f"published since {when(NOW + 1801)}, for longer than a window"
    )
    assert (words in late.stderr) == (not settings)


@pytest.mark.makemap
@pytest.mark.parametrize("settings", ["", SELF_CLOSING], ids=["relays", "self-closing"])
def test_who_should_be_closed_is_closed_without_the_source_too(site: Site, settings: str) -> None:
    """The administrator's entries are then those of the live map."""
    site.configure(access_settings=settings)
    site.write(login("192.0.2.1", at=NOW), login("192.0.2.2", at=NOW + 600))
    site.run("--at", when(NOW + 600))
    own = {key: value for key, value in site.entries().items() if "198.51.100.9" in key}
    site.source.unlink()
    site.run("--at", when(NOW + 1801), status=78)
    entries = site.entries()
    assert entries.items() >= own.items()
    assert not any("192.0.2.1" in key for key in entries)
    assert sum("192.0.2.2" in key for key in entries) == (2 if settings else 1)


@pytest.mark.makemap
def test_an_entry_that_has_ended_lets_nobody_in(site: Site) -> None:
    site.configure(access_settings=SELF_CLOSING)
    site.write(login("192.0.2.1", at=NOW), login("2001:db8::1", at=NOW))
    site.run("--at", when(NOW))
    map = maps.chosen(config.load(str(site.config)).access)
    end = int(site.entries()["sapd:192.0.2.1"])
    assert set(map.published_now(end - 1, [])) == {"192.0.2.1", "2001:db8::1"}
    assert set(map.published_now(end, [])) == set()
