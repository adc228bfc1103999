"""The claims: open, renew, expire, refuse."""

from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st

from sapd.relay import Grant, Ledger, Rules

RULES = Rules(1800)
NOW = 1_000_000.0


def test_a_login_opens_for_the_window() -> None:
    ledger = Ledger()
    assert ledger.login(RULES, "192.0.2.1", "bob", NOW - 60, NOW)
    ledger.expire(RULES, NOW + 1739)
    assert ledger.claims == {"192.0.2.1": {"bob": NOW - 60}}
    ledger.expire(RULES, NOW + 1740)
    assert ledger.claims == {}


def test_a_later_login_renews_and_an_earlier_one_changes_nothing() -> None:
    ledger = Ledger()
    ledger.login(RULES, "192.0.2.1", "bob", NOW - 60, NOW)
    assert ledger.login(RULES, "192.0.2.1", "bob", NOW - 60, NOW) is False
    assert ledger.login(RULES, "192.0.2.1", "bob", NOW - 90, NOW) is False
    assert ledger.login(RULES, "192.0.2.1", "bob", NOW - 30, NOW) is True
    assert ledger.login(RULES, "192.0.2.1", "eve", NOW - 90, NOW) is True
    assert ledger.claims == {"192.0.2.1": {"bob": NOW - 30, "eve": NOW - 90}}


def test_a_stale_login_opens_nothing() -> None:
    ledger = Ledger()
    assert ledger.login(RULES, "192.0.2.1", "bob", NOW - 1800, NOW) is False
    assert ledger.login(RULES, "192.0.2.1", "bob", NOW - 1799, NOW) is True


def test_a_login_ahead_of_now_counts_from_now() -> None:
    ledger = Ledger()
    ledger.login(RULES, "192.0.2.1", "bob", NOW + 100, NOW)
    assert ledger.claims == {"192.0.2.1": {"bob": NOW}}


def test_a_clock_set_back_leaves_no_more_than_the_window() -> None:
    ledger = Ledger()
    ledger.claims = {"192.0.2.1": {"bob": NOW + 86400}}
    ledger.expire(RULES, NOW)
    assert ledger.claims == {"192.0.2.1": {"bob": NOW}}
    ledger.expire(RULES, NOW + 1800)
    assert ledger.claims == {}


def test_some_addresses_never_open() -> None:
    rules = Rules(1800, never=(ip_network("198.51.100.0/24"), ip_network("2001:db8::/32")))
    ledger = Ledger()
    for address in ("0.0.0.0", "::", "224.0.0.1", "ff02::1", "198.51.100.7", "2001:db8::7"):
        assert ledger.login(rules, address, "bob", NOW, NOW) is False
    assert ledger.claims == {}
    ledger.claims = {"198.51.100.7": {"bob": NOW}, "192.0.2.1": {"bob": NOW}}
    ledger.expire(rules, NOW)
    assert ledger.claims == {"192.0.2.1": {"bob": NOW}}


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
    ledger = Ledger()
    ledger.claims = {
        "192.0.2.1": {"bob": NOW - 60, "eve": NOW - 30},
        "192.0.2.2": {"bob": NOW - 1800},
        "192.0.2.3": {"bob": NOW},
        "192.0.2.4": {"bob": NOW + 10},
    }
    found = ledger.grants(RULES, {"192.0.2.3"}, NOW)
    assert found == [Grant("192.0.2.1", ("bob", "eve"), NOW - 60, NOW + 1770)]


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
    once, again = Ledger(), Ledger()
    for address, account, login in logins:
        once.login(RULES, address, account, login, NOW)
    shuffled = logins * 2
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for address, account, login in shuffled:
        again.login(RULES, address, account, login, NOW)
    assert once.claims == again.claims
    assert all(
        NOW - 1800 < t <= NOW for accounts in once.claims.values() for t in accounts.values()
    )


def ledger_of(rules: Rules, *events: tuple[str, str, str, float]) -> Ledger:
    """What these (kind, address, account, seconds ago) leave, logins first."""
    ledger = Ledger()
    for kind, address, account, ago in sorted(events):
        if kind == "login":
            ledger.login(rules, address, account, NOW - ago, NOW)
        else:
            ledger.logout(rules, address, account, NOW - ago, NOW)
    ledger.expire(rules, NOW)
    return ledger


def opened(ledger: Ledger, rules: Rules, at: float = NOW) -> set[str]:
    return {grant.address for grant in ledger.grants(rules, (), at)}


LOGOUT = Rules(1800, after_logout=120)


def test_a_logout_ends_it_earlier_or_later() -> None:
    early = ledger_of(LOGOUT, ("login", "192.0.2.1", "bob", 600), ("out", "192.0.2.1", "bob", 60))
    assert opened(early, LOGOUT, NOW + 59) == {"192.0.2.1"}
    assert opened(early, LOGOUT, NOW + 60) == set()
    late = ledger_of(LOGOUT, ("login", "192.0.2.1", "bob", 1799), ("out", "192.0.2.1", "bob", 0))
    late.expire(LOGOUT, NOW + 119)
    assert opened(late, LOGOUT, NOW + 119) == {"192.0.2.1"}
    late.expire(LOGOUT, NOW + 120)
    assert (late.claims, late.logouts) == ({}, {})


def test_a_logout_that_is_no_end() -> None:
    alone = ledger_of(LOGOUT, ("out", "192.0.2.1", "bob", 10))
    assert (alone.claims, alone.logouts) == ({}, {})
    of_others = ledger_of(
        LOGOUT,
        ("login", "192.0.2.1", "bob", 600),
        ("out", "192.0.2.1", "eve", 500),
        ("out", "192.0.2.2", "bob", 500),
        ("out", "192.0.2.1", "bob", 700),
    )
    assert opened(of_others, LOGOUT) == {"192.0.2.1"}
    again = ledger_of(LOGOUT, ("login", "192.0.2.1", "bob", 600), ("out", "192.0.2.1", "bob", 500))
    again.login(LOGOUT, "192.0.2.1", "bob", NOW - 10, NOW)
    assert opened(again, LOGOUT) == {"192.0.2.1"}


def test_a_session_that_ended_is_not_opened_by_its_lines_read_again() -> None:
    events = [("login", "192.0.2.1", "bob", 600.0), ("out", "192.0.2.1", "bob", 500.0)]
    ledger = ledger_of(LOGOUT, *events)
    assert ledger.login(LOGOUT, "192.0.2.1", "bob", NOW - 600, NOW) is False
    assert opened(ledger, LOGOUT) == set()
    assert ledger.closed(LOGOUT, NOW) == {"192.0.2.1": {"bob": "it logged out"}}


ONE = Rules(1800, one_address=True)


def test_a_login_from_elsewhere_closes_the_older_one_in_any_order() -> None:
    old, new = ("192.0.2.1", "bob", NOW - 600), ("192.0.2.2", "bob", NOW - 60)
    for logins in ([old, new], [new, old], [new, old, new, old]):
        ledger = Ledger()
        for login in logins:
            ledger.login(ONE, *login, NOW)
        assert opened(ledger, ONE) == {"192.0.2.2"}
        assert opened(ledger, Rules(1800)) == {"192.0.2.1", "192.0.2.2"}
    ledger.login(ONE, "192.0.2.1", "eve", NOW - 600, NOW)
    assert opened(ledger, ONE) == {"192.0.2.1", "192.0.2.2"}  # another account's, too


def test_an_older_login_is_not_opened_when_the_newer_one_was_forgotten() -> None:
    rules = Rules(7200, ((ip_network("192.0.2.2/32"), 60.0),), one_address=True)
    ledger = ledger_of(rules, ("login", "192.0.2.1", "bob", 600), ("login", "192.0.2.2", "bob", 59))
    ledger.expire(rules, NOW + 1)
    assert ledger.claims.keys() == {"192.0.2.1"}
    assert opened(ledger, rules, NOW + 1) == set()


def test_too_many_accounts_close_an_address() -> None:
    rules = Rules(1800, most_accounts=2)
    two = [("login", "192.0.2.1", account, 60.0) for account in ("bob", "eve")]
    assert opened(ledger_of(rules, *two), rules) == {"192.0.2.1"}
    third = ("login", "192.0.2.1", "zoe", 1200.0)
    ledger = ledger_of(rules, *two, third)
    assert opened(ledger, rules) == set()
    ledger.expire(rules, NOW + 600)
    assert opened(ledger, rules, NOW + 600) == {"192.0.2.1"}


def test_denied_accounts() -> None:
    rules = Rules(1800, denied=("Bob", "*@example.net", "scan[0-9]"))
    for account in ("bob", "BOB", "eve@example.net", "scan7"):
        ledger = ledger_of(rules, ("login", "192.0.2.1", account, 60))
        assert opened(ledger, rules) == set()
    for account in ("bobby", "eve@example.org", "scan"):
        assert opened(ledger_of(rules, ("login", "192.0.2.1", account, 60)), rules)


def test_what_is_closed_by_hand_is_opened_by_a_new_login_alone() -> None:
    ledger = ledger_of(
        RULES, ("login", "192.0.2.1", "bob", 600), ("login", "192.0.2.2", "bob", 600)
    )
    ledger.close(["192.0.2.1"], NOW)
    assert opened(ledger, RULES) == {"192.0.2.2"}
    for account in ("bob", "eve"):
        assert ledger.login(RULES, "192.0.2.1", account, NOW - 5, NOW + 5) is False
    assert ledger.login(RULES, "192.0.2.1", "bob", NOW + 1, NOW + 5) is True
    ledger.expire(RULES, NOW + 1800)
    assert ledger.shut == {}


def test_when_time_will_close_something() -> None:
    ledger = ledger_of(LOGOUT, ("login", "192.0.2.1", "bob", 600), ("out", "192.0.2.1", "bob", 500))
    assert ledger.next_end(LOGOUT, NOW) == float("inf")
    ledger.login(LOGOUT, "192.0.2.2", "bob", NOW - 60, NOW)
    assert ledger.next_end(LOGOUT, NOW) == NOW + 1740


def test_the_first_logout_since_the_login_counts_in_any_order() -> None:
    outs = [("out", "192.0.2.1", "bob", ago) for ago in (500.0, 300.0, 10.0)]
    for some in (outs, outs[::-1]):
        ledger = Ledger()
        ledger.login(LOGOUT, "192.0.2.1", "bob", NOW - 600, NOW)
        for _, address, account, ago in some:
            ledger.logout(LOGOUT, address, account, NOW - ago, NOW)
        assert ledger.end(LOGOUT, "192.0.2.1", "bob") == NOW - 500 + 120
    ledger.login(LOGOUT, "192.0.2.1", "bob", NOW - 400, NOW)
    ledger.logout(LOGOUT, "192.0.2.1", "bob", NOW - 300, NOW)
    assert ledger.end(LOGOUT, "192.0.2.1", "bob") == NOW - 300 + 120


def test_one_account_in_two_spellings_is_one() -> None:
    ledger = ledger_of(ONE, ("login", "192.0.2.1", "bob", 600), ("login", "192.0.2.2", "BOB", 60))
    assert opened(ledger, ONE) == {"192.0.2.2"}
    rules = Rules(1800, most_accounts=1)
    both = [("login", "192.0.2.1", name, 60.0) for name in ("bob", "Bob")]
    assert opened(ledger_of(rules, *both), rules) == {"192.0.2.1"}
