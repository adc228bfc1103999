"""What ends a claim early: a logout, a login elsewhere, and somebody who closes the address."""

from ipaddress import ip_network

from sapd.relay import Ledger, Rules

NOW = 1_000_000.0
HERE, THERE = "192.0.2.1", "10.0.0.7"
MOVING = Rules(1800, one_address=True)
ENDING = Rules(1800, after_logout=3600)


def opened(ledger: Ledger, rules: Rules, now: float) -> set[str]:
    ledger.expire(rules, now)
    return {grant.address for grant in ledger.grants(rules, (), now)}


def test_a_login_that_is_stale_when_it_is_read_closes_the_accounts_other_addresses() -> None:
    rules = MOVING._replace(windows=((ip_network("10.0.0.0/8"), 60),))
    for read in (NOW + 20, NOW + 100):
        ledger = Ledger()
        ledger.login(rules, HERE, "bob", NOW, NOW)
        ledger.login(rules, THERE, "bob", NOW + 10, read)
        assert HERE not in opened(ledger, rules, read)


def test_a_logout_behind_the_windows_end_does_not_open_again() -> None:
    ledger = Ledger()
    ledger.login(ENDING, HERE, "bob", NOW, NOW)
    ledger.logout(ENDING, HERE, "bob", NOW + 1800, NOW + 1900)
    assert opened(ledger, ENDING, NOW + 1900) == set()
    ledger.login(ENDING, HERE, "bob", NOW + 2000, NOW + 2000)
    ledger.logout(ENDING, HERE, "bob", NOW + 3799, NOW + 3900)
    assert opened(ledger, ENDING, NOW + 3799 + 3599) == {HERE}
    assert opened(ledger, ENDING, NOW + 3799 + 3600) == set()


def test_where_somebody_moved_is_remembered_for_as_long_as_the_claim_that_it_closes() -> None:
    rules = ENDING._replace(one_address=True)
    ledger = Ledger()
    ledger.login(rules, HERE, "bob", NOW, NOW)
    ledger.login(rules, THERE, "bob", NOW + 1, NOW + 1)
    ledger.logout(rules, HERE, "bob", NOW + 1700, NOW + 1700)
    assert opened(ledger, rules, NOW + 1701) == {THERE}
    assert opened(ledger, rules, NOW + 1900) == set()
    assert opened(ledger, rules, NOW + 5299) == set()


def test_an_address_that_was_closed_stays_so_when_the_clock_was_wrong_for_a_while() -> None:
    """Its logins are then read again; those of while it was set back, from now on, count."""
    rules = Rules(1800)
    for closing in ([HERE], []):
        ledger = Ledger()
        ledger.login(rules, HERE, "bob", NOW - 60, NOW)
        ledger.close(closing, NOW)
        assert opened(ledger, rules, NOW - 4000) == set()
        ledger.login(rules, HERE, "bob", NOW - 4010, NOW - 3990)
        assert opened(ledger, rules, NOW - 3990) == set()
        ledger.login(rules, HERE, "bob", NOW - 3995, NOW - 3990)
        assert opened(ledger, rules, NOW - 3990) == {HERE}
        ledger.expire(rules, NOW + 10)
        ledger.login(rules, HERE, "bob", NOW - 60, NOW + 10)
        assert opened(ledger, rules, NOW + 10) == set()
        ledger.login(rules, HERE, "bob", NOW + 5, NOW + 10)
        assert opened(ledger, rules, NOW + 10) == {HERE}


def test_closing_all_has_no_login_until_then_count_that_is_read_later() -> None:
    ledger = Ledger()
    ledger.close([], NOW)
    assert ledger.login(MOVING, HERE, "bob", NOW, NOW + 60) is False
    assert ledger.login(MOVING, HERE, "bob", NOW + 1, NOW + 60) is True
