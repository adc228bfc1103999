"""Who is open, who is closed, and by which reason."""

import copy
from ipaddress import ip_network
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sapd import decision
from sapd.decision import Closed, Decision, Grant, Objection, Reason
from sapd.relay import Ledger, Rules, Stamp
from sapd.timestamps import rfc3339

NOW = 1_000_000.0
HERE, THERE = "192.0.2.1", "10.0.0.7"
RULES = Rules(1800)


def ledger_of(rules: Rules, *logins: tuple[str, str, float]) -> Ledger:
    """What logins of these (address, account, seconds ago) leave."""
    ledger = Ledger()
    for address, account, ago in logins:
        ledger.login(rules, address, account, NOW - ago, NOW)
    return ledger


def nothing(_: str) -> None:
    """The administrator has no entries."""


def decide(ledger: Ledger, rules: Rules, now: float = NOW) -> Decision:
    return decision.decide(ledger, rules, nothing, now)


def why(ledger: Ledger, rules: Rules, now: float = NOW) -> Closed:
    """Why bob's claim opens nothing at `HERE`."""
    return decide(ledger, rules, now).closed[HERE]["bob"]


def test_a_login_opens_until_its_end() -> None:
    ledger = ledger_of(RULES, (HERE, "bob", 60), (HERE, "eve", 30), (THERE, "bob", 1799))
    found = decide(ledger, RULES)
    assert found.closed == {}
    assert found.open == {
        HERE: {"bob": NOW + 1740, "eve": NOW + 1770},
        THERE: {"bob": NOW + 1},
    }
    assert found.ends() == {HERE: NOW + 1770, THERE: NOW + 1}
    found = decide(ledger, RULES, NOW + 1)
    assert found.open.keys() == {HERE}
    assert found.closed == {THERE: {"bob": Closed(Reason.EXPIRED)}}


def test_a_login_after_the_moment_is_no_claim_yet() -> None:
    """As of a moment of the past."""
    ledger = ledger_of(RULES, (HERE, "bob", 60))
    assert decide(ledger, RULES, NOW - 61) == Decision({}, {})
    assert decide(ledger, RULES, NOW - 60).open == {HERE: {"bob": NOW + 1740}}


def test_who_may_relay() -> None:
    ledger = Ledger()
    ledger.claims = {
        HERE: {"bob": Stamp(NOW - 60, NOW - 60), "eve": Stamp(NOW + 20, NOW - 30)},
        THERE: {"bob": Stamp(NOW - 1800, NOW - 1800), "eve": Stamp(NOW - 1700, NOW - 1700)},
        "192.0.2.4": {"bob": Stamp(NOW + 10, NOW + 10)},
    }
    assert decision.grants(ledger, decide(ledger, RULES)) == [
        Grant(THERE, ("eve",), NOW - 1700, NOW + 100),
        Grant(HERE, ("bob", "eve"), NOW - 60, NOW + 1770),
    ]


def test_too_many_accounts_close_an_address_until_one_ends() -> None:
    rules = Rules(1800, most_accounts=2, denied=("eve",))
    two = [(HERE, "bob", 60.0), (HERE, "Zoe", 60.0), (HERE, "eve", 60.0)]
    found = decide(ledger_of(rules, *two), rules)
    assert found.open[HERE].keys() == {"bob", "Zoe"}
    assert found.closed == {HERE: {"eve": Closed(Reason.DENIED, "eve")}}
    ledger = ledger_of(rules, *two, (HERE, "ann", 1200.0))
    crowd = Closed(Reason.TOO_MANY, "3")
    assert decide(ledger, rules) == Decision(
        {}, {HERE: {"bob": crowd, "Zoe": crowd, "ann": crowd, "eve": Closed(Reason.DENIED, "eve")}}
    )
    assert decide(ledger, rules, NOW + 600).open[HERE].keys() == {"bob", "Zoe"}
    other_spelling = ledger_of(rules, *two, (HERE, "BOB ", 60.0))
    assert decide(other_spelling, rules).open[HERE].keys() == {"bob", "Zoe", "BOB "}


def test_a_logout_ends_a_claim_before_its_window() -> None:
    rules = Rules(1800, after_logout=120)
    ledger = ledger_of(rules, (HERE, "bob", 600))
    ledger.logout(rules, HERE, "bob", NOW - 500, NOW)
    assert why(ledger, rules) == Closed(Reason.LOGGED_OUT)
    assert why(ledger, rules, NOW + 1200) == Closed(Reason.EXPIRED)
    # Read again, its line opens nothing.
    assert ledger.login(rules, HERE, "bob", NOW - 600, NOW) is False
    assert why(ledger, rules) == Closed(Reason.LOGGED_OUT)


def test_a_login_elsewhere_closes_the_address_before() -> None:
    rules = Rules(1800, one_address=True)
    ledger = ledger_of(rules, (HERE, "bob", 600), (THERE, "BOB", 60), (HERE, "eve", 600))
    found = decide(ledger, rules)
    assert found.open == {THERE: {"BOB": NOW + 1740}, HERE: {"eve": NOW + 1200}}
    assert found.closed == {HERE: {"bob": Closed(Reason.MOVED, THERE)}}


def test_what_is_closed_by_hand_says_when() -> None:
    ledger = ledger_of(RULES, (HERE, "bob", 600), (THERE, "bob", 600))
    ledger.close([HERE], NOW)
    found = decide(ledger, RULES, NOW + 60)
    assert found.open.keys() == {THERE}
    assert found.closed == {HERE: {"bob": Closed(Reason.REVOKED, rfc3339(NOW))}}


OF_THE_MAP = (Reason.REFUSED, Reason.RELAYS_ALREADY, Reason.UNSUPPORTED)


def bobs_ledger(reasons: set[Reason]) -> tuple[Ledger, Rules, Objection | None]:
    """Claims, rules and entries by which these reasons hold, and no other."""
    rules = Rules(
        1800,
        never=(ip_network(HERE),) if Reason.FORBIDDEN in reasons else (),
        after_logout=60 if Reason.LOGGED_OUT in reasons else None,
        most_accounts=1 if Reason.TOO_MANY in reasons else None,
        one_address=Reason.MOVED in reasons,
        denied=("bob",) if Reason.DENIED in reasons else (),
    )
    ago = 1800 if Reason.EXPIRED in reasons else 600
    ledger = Ledger()
    ledger.claims = {HERE: {"bob": Stamp(NOW - ago, NOW - ago)}}
    if Reason.MOVED in reasons:
        ledger.last_address["bob"] = (THERE, NOW - 60)
    if Reason.TOO_MANY in reasons:
        others = {"ann": Stamp(NOW - 30, NOW - 30), "eve": Stamp(NOW - 30, NOW - 30)}
        ledger.claims[HERE] |= others
    if Reason.LOGGED_OUT in reasons:
        ledger.logouts = {HERE: {"bob": Stamp(NOW - 500, NOW - 500)}}
    if Reason.REVOKED in reasons:
        ledger.revoked = {HERE: (NOW - 100, NOW - 100)}
    objection = next(
        (Objection(reason, "an entry") for reason in OF_THE_MAP if reason in reasons),
        None,
    )
    return ledger, rules, objection


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_alone_closes_the_address(reason: Reason) -> None:
    ledger, rules, objection = bobs_ledger({reason})
    found = decision.decide(ledger, rules, lambda _: objection, NOW)
    assert "bob" not in found.open.get(HERE, {})
    assert found.closed[HERE]["bob"].reason is reason


EXCLUDING = [
    *map(set, combinations(OF_THE_MAP, 2)),
    {Reason.LOGGED_OUT, Reason.EXPIRED},
]


@pytest.mark.parametrize(
    ("first", "second"),
    [both for both in combinations(Reason, 2) if set(both) not in EXCLUDING],
)
def test_of_several_reasons_the_first_is_told(first: Reason, second: Reason) -> None:
    ledger, rules, objection = bobs_ledger({first, second})
    found = decision.decide(ledger, rules, lambda _: objection, NOW)
    assert found.closed[HERE]["bob"].reason is first


def test_no_reason_at_all_leaves_it_open() -> None:
    ledger, rules, objection = bobs_ledger(set())
    found = decision.decide(ledger, rules, lambda _: objection, NOW)
    assert found == Decision({HERE: {"bob": NOW + 1200}}, {})


def test_each_reason_has_words_of_its_own_in_one_line() -> None:
    said = {Closed(reason, "{the detail}").words for reason in Reason}
    assert len(said) == len(Reason)
    assert not any("\n" in words for words in said)
    assert Closed(Reason.REFUSED, "203.0.113 REJECT").words == (
        'access.source says "203.0.113 REJECT"'
    )


def test_why_an_address_is_closed_without_a_claim() -> None:
    def ask(ledger: Ledger, rules: Rules, objection: Objection | None = None) -> Closed:
        return decision.without_claim(ledger, rules, lambda _: objection, HERE, NOW)

    assert ask(Ledger(), RULES) == Closed(Reason.EXPIRED)
    refused = Objection(Reason.REFUSED, "192.0.2 REJECT")
    assert ask(Ledger(), RULES, refused) == Closed(*refused)
    never = Rules(1800, never=(ip_network(HERE),))
    assert ask(Ledger(), never, refused) == Closed(Reason.FORBIDDEN)
    for closing in ([HERE], []):
        ledger = Ledger()
        ledger.close(closing, NOW - 1799)
        assert ask(ledger, RULES) == Closed(Reason.REVOKED, rfc3339(NOW - 1799))
        assert ask(ledger, Rules(1799)) == Closed(Reason.EXPIRED)


@pytest.mark.parametrize(
    ("rules", "account", "ago", "expected"),
    [
        (RULES, "bob", 0, None),
        (RULES, "bob", 1799, None),
        (RULES, "bob", 1800, Closed(Reason.EXPIRED)),
        (Rules(1800, after_logout=3600), "bob", 1800, Closed(Reason.EXPIRED)),
        (Rules(1800, never=(ip_network("192.0.2.0/24"),)), "bob", 0, Closed(Reason.FORBIDDEN)),
        (Rules(1800, denied=("B*",)), " bob", 0, Closed(Reason.DENIED, "B*")),
        (Rules(1800, denied=("B*",)), "bob", 1800, Closed(Reason.DENIED, "B*")),
        (Rules(1800, most_accounts=1, one_address=True), "bob", 0, None),
    ],
)
def test_why_one_login_would_open_nothing(
    rules: Rules, account: str, ago: float, expected: Closed | None
) -> None:
    assert decision.of_login(rules, HERE, account, NOW - ago, NOW) == expected


def test_when_time_will_close_something() -> None:
    rules = Rules(1800, after_logout=120)
    ledger = ledger_of(rules, (HERE, "bob", 600))
    ledger.logout(rules, HERE, "bob", NOW - 500, NOW)
    assert decision.next_end(ledger, rules, decide(ledger, rules), NOW) == float("inf")
    ledger.login(rules, THERE, "bob", NOW - 60, NOW)
    assert decision.next_end(ledger, rules, decide(ledger, rules), NOW) == NOW + 1740


def test_time_may_open_an_address_where_too_many_were() -> None:
    rules = Rules(1800, most_accounts=1)
    ledger = ledger_of(rules, (HERE, "bob", 600), (HERE, "eve", 60))
    assert decision.next_end(ledger, rules, decide(ledger, rules), NOW) == NOW + 1200


WHERE = st.sampled_from([HERE, HERE, THERE, "2001:db8::7"])
WHOSE = st.sampled_from(["bob", "eve", "BOB"])
STEP = st.tuples(
    st.sampled_from(["login", "login", "logout", "close"]),
    WHERE,
    WHOSE,
    st.sampled_from([-100, 0, 0, 1, 60, 500]),  # seconds ago
)
PASS = st.tuples(st.sampled_from([1, 60, 299, 500, 1500]), st.lists(STEP, max_size=4))
ANY_RULES = st.builds(
    Rules,
    st.sampled_from([600.0, 1800.0]),
    windows=st.sampled_from([(), ((ip_network("10.0.0.0/8"), 60.0),)]),
    after_logout=st.sampled_from([None, 60.0, 3600.0]),
    most_accounts=st.sampled_from([None, None, 1]),
    one_address=st.sampled_from([False, False, False, True]),
    denied=st.sampled_from([(), ("e*",)]),
)


@settings(max_examples=1000)
@given(ANY_RULES, st.booleans(), st.lists(PASS, min_size=3, max_size=6))
def test_to_decide_from_what_changed_is_to_decide_from_scratch(
    rules: Rules, refuses: bool, passes: list[tuple[float, list[tuple[str, str, str, float]]]]
) -> None:
    def objection(address: str) -> Objection | None:
        return Objection(Reason.REFUSED, "10 REJECT") if refuses and address == THERE else None

    ledger, now, last = Ledger(), NOW, Decision({}, {})
    for later, steps in passes:
        now += later
        for step, address, account, seconds in steps:
            if step == "login":
                ledger.login(rules, address, account, now - seconds, now)
            elif step == "logout":
                ledger.logout(rules, address, account, now - seconds, now)
            else:
                ledger.close([address], now)
        whole = copy.deepcopy(ledger)
        whole.expire(rules, now)
        unsettled = decision.unsettled(ledger, rules, last, now)
        ledger.expire(rules, now, unsettled)
        assert ledger == whole
        expected = decision.decide(whole, rules, objection, now)
        if unsettled is None:
            last = expected
        else:
            before = copy.deepcopy(last)
            found = decision.decide(ledger, rules, objection, now, last, unsettled)
            assert found == expected
            assert last == before
            last = found
        ledger.touched.clear()


def test_what_is_settled_is_not_looked_at_again() -> None:
    ledger = ledger_of(RULES, (HERE, "bob", 60), (THERE, "eve", 1790))
    last = decide(ledger, RULES)
    ledger.touched.clear()
    assert decision.unsettled(ledger, RULES, last, NOW) == []
    assert decision.unsettled(ledger, RULES, last, NOW + 10) == [THERE]
