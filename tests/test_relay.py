"""The rules and the claims: what a login, a logout and a closing leave."""

from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st

from sapd.relay import EVERY_ADDRESS, Claims, Ledger, Rules, Stamp, same_account

RULES = Rules(1800)
NOW = 1_000_000.0
HERE, THERE = "192.0.2.1", "10.0.0.7"


def claims(**logins: float) -> Claims:
    """The claims to `HERE` of accounts that logged in at these times."""
    return {HERE: {account: Stamp(login, login) for account, login in logins.items()}}


def test_a_login_opens_for_the_window() -> None:
    ledger = Ledger()
    assert ledger.login(RULES, "192.0.2.1", "bob", NOW - 60, NOW)
    ledger.expire(RULES, NOW + 1739)
    assert ledger.claims == claims(bob=NOW - 60)
    ledger.expire(RULES, NOW + 1740)
    assert ledger.claims == {}


def test_a_later_login_renews_and_an_earlier_one_changes_nothing() -> None:
    ledger = Ledger()
    ledger.login(RULES, "192.0.2.1", "bob", NOW - 60, NOW)
    assert ledger.login(RULES, "192.0.2.1", "bob", NOW - 60, NOW) is False
    assert ledger.login(RULES, "192.0.2.1", "bob", NOW - 90, NOW) is False
    assert ledger.login(RULES, "192.0.2.1", "bob", NOW - 30, NOW) is True
    assert ledger.login(RULES, "192.0.2.1", "eve", NOW - 90, NOW) is True
    assert ledger.claims == claims(bob=NOW - 30, eve=NOW - 90)


def test_a_stale_login_opens_nothing() -> None:
    ledger = Ledger()
    assert ledger.login(RULES, "192.0.2.1", "bob", NOW - 1800, NOW) is False
    assert ledger.login(RULES, "192.0.2.1", "bob", NOW - 1799, NOW) is True


def test_a_login_ahead_of_now_counts_from_now_and_keeps_its_place() -> None:
    ledger = Ledger()
    ledger.login(RULES, HERE, "bob", NOW + 100, NOW)
    assert ledger.claims == {HERE: {"bob": Stamp(NOW + 100, NOW)}}
    assert ledger.login(RULES, HERE, "bob", NOW + 99, NOW + 30) is False
    assert ledger.login(RULES, HERE, "bob", NOW + 100, NOW + 30) is False
    assert ledger.end(RULES, HERE, "bob") == NOW + 1800
    assert ledger.login(RULES, HERE, "bob", NOW + 101, NOW + 30) is True
    assert ledger.end(RULES, HERE, "bob") == NOW + 30 + 1800


def test_a_clock_set_back_leaves_no_more_than_the_window() -> None:
    ledger = Ledger()
    ledger.claims = claims(bob=NOW + 86400)
    ledger.expire(RULES, NOW)
    assert ledger.claims == claims(bob=NOW)
    ledger.expire(RULES, NOW + 1800)
    assert ledger.claims == {}


def test_some_addresses_never_open() -> None:
    rules = Rules(1800, never=(ip_network("198.51.100.0/24"), ip_network("2001:db8::/32")))
    ledger = Ledger()
    for address in ("0.0.0.0", "::", "224.0.0.1", "ff02::1", "198.51.100.7", "2001:db8::7"):
        assert ledger.login(rules, address, "bob", NOW, NOW) is False
    assert ledger.claims == {}
    ledger.claims = {"198.51.100.7": claims(bob=NOW)[HERE], **claims(bob=NOW)}
    ledger.expire(rules, NOW)
    assert ledger.claims == claims(bob=NOW)


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
        NOW - 1800 < login.counted <= NOW and login.counted == min(login.written, NOW)
        for accounts in once.claims.values()
        for login in accounts.values()
    )


LOGOUT = Rules(1800, after_logout=120)
LINGERING = Rules(1800, after_logout=3600)


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


def test_a_logout_ends_it_earlier_or_later() -> None:
    early = ledger_of(LOGOUT, ("login", HERE, "bob", 600), ("out", HERE, "bob", 60))
    assert early.end(LOGOUT, HERE, "bob") == NOW + 60
    assert early.end(RULES, HERE, "bob") == NOW + 1200
    late = ledger_of(LOGOUT, ("login", HERE, "bob", 1799), ("out", HERE, "bob", 0))
    late.expire(LOGOUT, NOW + 119)
    assert late.end(LOGOUT, HERE, "bob") == NOW + 120
    late.expire(LOGOUT, NOW + 120)
    assert (late.claims, late.logouts) == ({}, {})


def test_a_logout_in_the_second_of_its_login_is_its_end() -> None:
    ledger = ledger_of(LOGOUT, ("login", HERE, "bob", 60), ("out", HERE, "bob", 60))
    assert ledger.end(LOGOUT, HERE, "bob") == NOW + 60


def test_a_logout_that_is_no_end() -> None:
    alone = ledger_of(LOGOUT, ("out", HERE, "bob", 10))
    assert (alone.claims, alone.logouts) == ({}, {})
    of_others = ledger_of(
        LOGOUT,
        ("login", HERE, "bob", 600),
        ("out", HERE, "eve", 500),
        ("out", THERE, "bob", 500),
        ("out", HERE, "bob", 601),
    )
    assert of_others.logouts == {}
    again = ledger_of(LOGOUT, ("login", HERE, "bob", 600), ("out", HERE, "bob", 500))
    again.login(LOGOUT, HERE, "bob", NOW - 499, NOW)
    assert again.end(LOGOUT, HERE, "bob") == NOW - 499 + 1800


def test_a_logout_is_that_of_the_session_before_it_although_both_are_ahead_of_now() -> None:
    """The log host is 40 s fast: stamps order the events, whenever they are read."""
    ledger = Ledger()
    ledger.login(LOGOUT, HERE, "bob", NOW + 20, NOW)
    ledger.logout(LOGOUT, HERE, "bob", NOW + 25, NOW)
    ledger.login(LOGOUT, HERE, "bob", NOW + 30, NOW)
    assert ledger.end(LOGOUT, HERE, "bob") == NOW + 1800
    ledger.logout(LOGOUT, HERE, "bob", NOW + 35, NOW)
    assert ledger.end(LOGOUT, HERE, "bob") == NOW + 120


def test_the_first_logout_since_the_login_counts_in_any_order() -> None:
    outs = [("out", HERE, "bob", ago) for ago in (500.0, 300.0, 10.0)]
    for some in (outs, outs[::-1]):
        ledger = Ledger()
        ledger.login(LOGOUT, HERE, "bob", NOW - 600, NOW)
        for _, address, account, ago in some:
            ledger.logout(LOGOUT, address, account, NOW - ago, NOW)
        assert ledger.end(LOGOUT, HERE, "bob") == NOW - 500 + 120
    ledger.login(LOGOUT, HERE, "bob", NOW - 400, NOW)
    ledger.logout(LOGOUT, HERE, "bob", NOW - 300, NOW)
    assert ledger.end(LOGOUT, HERE, "bob") == NOW - 300 + 120


def test_a_logout_behind_the_windows_end_does_not_open_again() -> None:
    ledger = Ledger()
    ledger.login(LINGERING, HERE, "bob", NOW, NOW)
    ledger.logout(LINGERING, HERE, "bob", NOW + 1800, NOW + 1900)
    ledger.expire(LINGERING, NOW + 1900)
    assert ledger.claims == {}
    ledger.login(LINGERING, HERE, "bob", NOW + 2000, NOW + 2000)
    ledger.logout(LINGERING, HERE, "bob", NOW + 3799, NOW + 3900)
    assert ledger.end(LINGERING, HERE, "bob") == NOW + 3799 + 3600


ONE = Rules(1800, one_address=True)


def test_a_login_from_elsewhere_is_remembered_in_any_order() -> None:
    old, new = (HERE, "bob", NOW - 600), (THERE, "bob", NOW - 60)
    for logins in ([old, new], [new, old], [new, old, new, old]):
        ledger = Ledger()
        for login in logins:
            ledger.login(ONE, *login, NOW)
        assert ledger.moved_to(ONE, HERE, "bob") == THERE
        assert ledger.moved_to(ONE, THERE, "bob") is None
        assert ledger.moved_to(RULES, HERE, "bob") is None
    ledger.login(ONE, HERE, "eve", NOW - 600, NOW)
    assert ledger.moved_to(ONE, HERE, "eve") is None


def test_two_logins_in_one_second_leave_both_addresses_open() -> None:
    """Nobody can tell which came later; but one a second later closes the other."""
    ledger = ledger_of(ONE, ("login", HERE, "bob", 60), ("login", THERE, "bob", 60))
    assert [ledger.moved_to(ONE, address, "bob") for address in (HERE, THERE)] == [None, None]
    ledger = ledger_of(ONE, ("login", HERE, "bob", 60), ("login", THERE, "bob", 59))
    assert ledger.moved_to(ONE, HERE, "bob") == THERE


def test_the_stamps_order_two_addresses_although_both_are_ahead_of_now() -> None:
    for logins in ([(HERE, 20), (THERE, 30)], [(THERE, 30), (HERE, 20)]):
        ledger = Ledger()
        for address, ahead in logins:
            ledger.login(ONE, address, "bob", NOW + ahead, NOW)
        ledger.expire(ONE, NOW)
        assert ledger.moved_to(ONE, HERE, "bob") == THERE
        assert ledger.moved_to(ONE, THERE, "bob") is None


def test_a_login_that_is_stale_when_it_is_read_closes_the_accounts_other_addresses() -> None:
    rules = ONE._replace(windows=((ip_network("10.0.0.0/8"), 60),))
    for read in (NOW + 20, NOW + 100):
        ledger = Ledger()
        ledger.login(rules, HERE, "bob", NOW, NOW)
        ledger.login(rules, THERE, "bob", NOW + 10, read)
        ledger.expire(rules, read)
        assert ledger.moved_to(rules, HERE, "bob") == THERE


def test_an_older_login_is_not_opened_when_the_newer_one_was_forgotten() -> None:
    rules = Rules(7200, ((ip_network("10.0.0.0/8"), 60.0),), one_address=True)
    ledger = ledger_of(rules, ("login", HERE, "bob", 600), ("login", THERE, "bob", 59))
    ledger.expire(rules, NOW + 1)
    assert ledger.claims.keys() == {HERE}
    assert ledger.moved_to(rules, HERE, "bob") == THERE


def test_where_somebody_moved_is_remembered_for_as_long_as_the_claim_that_it_closes() -> None:
    rules = LINGERING._replace(one_address=True)
    ledger = Ledger()
    ledger.login(rules, HERE, "bob", NOW, NOW)
    ledger.login(rules, THERE, "bob", NOW + 1, NOW + 1)
    ledger.logout(rules, HERE, "bob", NOW + 1700, NOW + 1700)
    for later in (1701, 1900, 5299):
        ledger.expire(rules, NOW + later)
        assert ledger.moved_to(rules, HERE, "bob") == THERE
    ledger.expire(rules, NOW + 5300)
    assert ledger.claims == {}
    ledger.expire(rules, NOW + 5401)
    assert ledger.last_address == {}


def revoked(ledger: Ledger, now: float) -> bool:
    ledger.expire(RULES, now)
    return ledger.is_revoked(HERE, "bob", now)


def test_closing_revokes_what_was_read_before_and_a_new_login_alone_opens_again() -> None:
    for closing in ([HERE], []):
        ledger = ledger_of(RULES, ("login", HERE, "bob", 600), ("login", THERE, "bob", 600))
        ledger.close(closing, NOW)
        assert revoked(ledger, NOW)
        assert ledger.is_revoked(THERE, "bob", NOW) == (closing == [])
        for account in ("bob", "eve"):
            assert ledger.login(RULES, HERE, account, NOW - 5, NOW + 5) is False
            assert ledger.login(RULES, HERE, account, NOW, NOW + 5) is False
            assert ledger.is_revoked(HERE, account, NOW + 5)
        assert ledger.login(RULES, HERE, "bob", NOW + 1, NOW + 5) is True
        assert not revoked(ledger, NOW + 5)
        ledger.expire(RULES, NOW + 1800)
        assert ledger.revoked == {}


def test_closing_revokes_what_was_read_before_whatever_its_stamp() -> None:
    """The log host is 40 s fast. What comes later counts, although its stamp may be the same."""
    ledger = Ledger()
    ledger.login(RULES, HERE, "bob", NOW + 40, NOW)
    ledger.close([HERE], NOW)
    assert revoked(ledger, NOW)
    assert revoked(ledger, NOW + 41)
    assert ledger.login(RULES, HERE, "eve", NOW + 40, NOW + 1) is True
    assert not ledger.is_revoked(HERE, "eve", NOW + 1)


def test_closing_all_has_no_login_until_then_count_that_is_read_later() -> None:
    ledger = Ledger()
    ledger.close([], NOW)
    assert ledger.revoked.keys() == {EVERY_ADDRESS}
    assert ledger.login(RULES, HERE, "bob", NOW, NOW + 60) is False
    assert ledger.login(RULES, HERE, "bob", NOW + 1, NOW + 60) is True


def test_an_address_that_was_closed_stays_so_when_the_clock_was_wrong_for_a_while() -> None:
    """Its logins are then read again; those of while it was set back, from now on, count."""
    for closing in ([HERE], []):
        ledger = Ledger()
        ledger.login(RULES, HERE, "bob", NOW - 60, NOW)
        ledger.close(closing, NOW)
        assert revoked(ledger, NOW - 4000)
        ledger.login(RULES, HERE, "bob", NOW - 4010, NOW - 3990)
        assert revoked(ledger, NOW - 3990)
        ledger.login(RULES, HERE, "bob", NOW - 3995, NOW - 3990)
        assert not revoked(ledger, NOW - 3990)
        ledger.expire(RULES, NOW + 10)
        ledger.login(RULES, HERE, "bob", NOW - 60, NOW + 10)
        assert revoked(ledger, NOW + 10)
        ledger.login(RULES, HERE, "bob", NOW + 5, NOW + 10)
        assert not revoked(ledger, NOW + 10)


def test_accounts_are_compared_without_outer_blanks_and_case() -> None:
    assert same_account(" \tBob ") == same_account("bob") != same_account("bo b")
    ledger = ledger_of(ONE, ("login", HERE, " bob", 600), ("login", THERE, "BOB ", 60))
    assert ledger.moved_to(ONE, HERE, " bob") == THERE
    rules = Rules(1800, most_accounts=1, denied=("Bob ", "*@Example.net", "scan[0-9]"))
    assert rules.too_many_accounts(["bob", "Bob", " bob "]) is None
    assert rules.too_many_accounts(["bob", "eve"]) == 2
    for account in ("bob", "BOB", " bob ", "eve@example.net", "scan7 "):
        assert rules.denied_by(account)
    for account in ("bobby", "eve@example.org", "scan"):
        assert rules.denied_by(account) is None
    assert rules.denied_by("EVE@example.NET ") == "*@Example.net"
