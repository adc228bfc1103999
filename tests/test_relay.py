"""The claims: open, renew, expire, refuse."""

from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st

from sapd import relay
from sapd.relay import Claims, Rules

RULES = Rules(1800)
NOW = 1_000_000.0


def test_a_login_opens_for_the_window() -> None:
    claims: Claims = {}
    assert relay.claim(claims, RULES, "192.0.2.1", "bob", NOW - 60, NOW)
    relay.expire(claims, RULES, NOW + 1739)
    assert claims == {"192.0.2.1": {"bob": NOW - 60}}
    relay.expire(claims, RULES, NOW + 1740)
    assert claims == {}


def test_a_later_login_renews_and_an_earlier_one_changes_nothing() -> None:
    claims: Claims = {}
    relay.claim(claims, RULES, "192.0.2.1", "bob", NOW - 60, NOW)
    assert relay.claim(claims, RULES, "192.0.2.1", "bob", NOW - 60, NOW) is False
    assert relay.claim(claims, RULES, "192.0.2.1", "bob", NOW - 90, NOW) is False
    assert relay.claim(claims, RULES, "192.0.2.1", "bob", NOW - 30, NOW) is True
    assert relay.claim(claims, RULES, "192.0.2.1", "eve", NOW - 90, NOW) is True
    assert claims == {"192.0.2.1": {"bob": NOW - 30, "eve": NOW - 90}}


def test_a_stale_login_opens_nothing() -> None:
    claims: Claims = {}
    assert relay.claim(claims, RULES, "192.0.2.1", "bob", NOW - 1800, NOW) is False
    assert relay.claim(claims, RULES, "192.0.2.1", "bob", NOW - 1799, NOW) is True


def test_a_login_ahead_of_now_counts_from_now() -> None:
    claims: Claims = {}
    relay.claim(claims, RULES, "192.0.2.1", "bob", NOW + 100, NOW)
    assert claims == {"192.0.2.1": {"bob": NOW}}


def test_a_clock_set_back_leaves_no_more_than_the_window() -> None:
    claims: Claims = {"192.0.2.1": {"bob": NOW + 86400}}
    relay.expire(claims, RULES, NOW)
    assert claims == {"192.0.2.1": {"bob": NOW}}
    relay.expire(claims, RULES, NOW + 1800)
    assert claims == {}


def test_some_addresses_never_open() -> None:
    rules = Rules(1800, never=(ip_network("198.51.100.0/24"), ip_network("2001:db8::/32")))
    claims: Claims = {}
    for address in ("0.0.0.0", "::", "224.0.0.1", "ff02::1", "198.51.100.7", "2001:db8::7"):
        assert relay.claim(claims, rules, address, "bob", NOW, NOW) is False
    assert claims == {}
    claims = {"198.51.100.7": {"bob": NOW}, "192.0.2.1": {"bob": NOW}}
    relay.expire(claims, rules, NOW)
    assert claims == {"192.0.2.1": {"bob": NOW}}


def test_the_longest_prefix_sets_the_window() -> None:
    rules = Rules(
        1800,
        (
            (ip_network("10.0.0.0/8"), 3600.0),
            (ip_network("10.1.0.0/16"), 60.0),
            (ip_network("2001:db8::/32"), 7200.0),
        ),
    )
    assert rules.longest == 7200
    assert [rules.window_of(a) for a in ("192.0.2.1", "10.2.0.1", "10.1.0.1", "2001:db8::1")] == [
        1800, 3600, 60, 7200,
    ]  # fmt: skip


def test_who_may_relay() -> None:
    claims = {
        "192.0.2.1": {"bob": NOW - 60, "eve": NOW - 30},
        "192.0.2.2": {"bob": NOW - 1800},
        "192.0.2.3": {"bob": NOW},
        "192.0.2.4": {"bob": NOW + 10},
    }
    found = relay.grants(claims, RULES, {"192.0.2.3"}, NOW)
    assert found == [relay.Grant("192.0.2.1", ("bob", "eve"), NOW - 60, NOW + 1770)]


LOGINS = st.lists(
    st.tuples(
        st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1"]),
        st.sampled_from(["bob", "eve"]),
        st.floats(NOW - 4000, NOW + 120),
    ),
    max_size=12,
)


@given(LOGINS, st.randoms())
def test_order_and_repetition_do_not_matter(
    logins: list[tuple[str, str, float]], random: object
) -> None:
    once: Claims = {}
    for address, account, login in logins:
        relay.claim(once, RULES, address, account, login, NOW)
    again: Claims = {}
    shuffled = logins * 2
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for address, account, login in shuffled:
        relay.claim(again, RULES, address, account, login, NOW)
    assert once == again
    assert all(NOW - 1800 < t <= NOW for accounts in once.values() for t in accounts.values())
