"""An address is closed for one reason, the same wherever sapd tells it.

In the trail, in warnings, by `sapd who`, `sapd list` and `sapd match --explain`, over random rules,
entries and logins; and what is said once is not said again because of a comment.
"""

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sapd import audit, config, decision, run, state, who
from sapd.decision import Closed, Reason
from sapd.timestamps import localised
from tests.faults.passes import site_in_memory
from tests.site import Site, login, logout

pytestmark = pytest.mark.servers

NOW = 1_800_000_000
ADDRESSES = ["192.0.2.1", "192.0.2.66", "203.0.113.9", "2001:db8::7"]
ACCOUNTS = ["bob", "Bob", "eve", "mallory"]
ORDER = list(Reason)

POLICIES = st.fixed_dictionaries(
    {},
    optional={
        "never": st.just('["192.0.2.64/26"]'),
        "after_logout": st.sampled_from(['"60s"', '"2h"']),
        "max_accounts_per_address": st.sampled_from(["1", "2"]),
        "one_address_per_account": st.just("true"),
        "deny_accounts": st.sampled_from(['["mallory"]', '["B*"]']),
    },
)
ENTRIES = st.lists(
    st.sampled_from(
        ["203.0.113 REJECT", "Connect:192.0.2.1\tREJECT", "192.0.2.66 RELAY", "192.0.2 RELAY"]
    ),
    unique=True,
    max_size=2,
)


@dataclass
class Minute:
    """What happens before a pass: (address, account, seconds ago, whether it is a logout)."""

    seconds: int
    lines: list[tuple[str, str, int, bool]]
    closing: list[str] | None
    policy: dict[str, str] = field(default_factory=dict)
    entries: list[str] = field(default_factory=list)


MINUTES = st.lists(
    st.builds(
        Minute,
        st.sampled_from([60, 60, 600, 1800]),
        st.lists(
            st.tuples(
                st.sampled_from(ADDRESSES),
                st.sampled_from(ACCOUNTS),
                st.sampled_from([0, 5, 600, 1700, -40]),
                st.sampled_from([False, False, True]),
            ),
            max_size=4,
        ),
        st.none() | st.none() | st.lists(st.sampled_from(ADDRESSES), max_size=1),
        POLICIES,
        ENTRIES,
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(minutes=MINUTES)
def test_one_reason_everywhere(minutes: list[Minute]) -> None:
    with site_in_memory() as site:
        now = NOW
        for minute in minutes:
            now += minute.seconds
            policy = "".join(f"{key} = {value}\n" for key, value in minute.policy.items())
            site.configure(top=f"[policy]\n{policy}")
            site.source.write_text("".join(f"{entry}\n" for entry in minute.entries))
            for address, account, ago, is_logout in minute.lines:
                site.write((logout if is_logout else login)(address, account, now - ago))
            found = config.load(str(site.config))
            known = state.load(found.state_directory).decision.closed
            report = run.once(found, now, closing=minute.closing)
            assert report.problems == []
            agree(found, now, known, dict(report.warnings))


def agree(
    settings: config.Config,
    now: float,
    known: dict[str, dict[str, Closed]],
    warnings: dict[str, str],
) -> None:
    """Compare everybody's word with the decision that the pass saved."""
    saved = state.load(settings.state_directory)
    grants, _ = who.grants(settings, now)
    assert {grant.address: set(grant.accounts) for grant in grants} == {
        address: set(accounts) for address, accounts in saved.decision.open.items()
    }
    try:
        trail = list(audit.read(settings.state_directory))
    except FileNotFoundError:
        trail = []
    for address in ADDRESSES:
        (said,) = who.at_present(settings, [address], now)
        closed = saved.decision.closed.get(address, {})
        is_open = address in saved.decision.open
        assert (" is open until " in said) == is_open
        if not is_open and closed:
            for why in closed.values():
                assert localised(why.words) in said or " is not opened by sapd: " in said
        for entry in trail:
            if entry.address == address and entry.time == now:
                told_by_the_trail(entry, saved, said)
        refused = {why for why in closed.values() if why.reason is Reason.REFUSED}
        assert (address in warnings) == bool(refused - set(known.get(address, {}).values()))
        assert all(why.words in warnings[address] for why in refused if address in warnings)
        for account, why in closed.items():
            stamp = saved.ledger.claims[address][account]
            told_by_match(settings, stamp.written, now, (address, account), why)


def told_by_the_trail(entry: audit.Entry, saved: state.State, said: str) -> None:
    ends = saved.decision.open.get(entry.address, {})
    assert (entry.event in ("open", "renew")) == (entry.account in ends)
    if entry.account in ends:
        return
    why = saved.decision.closed.get(entry.address, {}).get(entry.account)
    if why is not None:
        assert entry.reason == why.words
    elif " is closed: nobody has logged in from it " in said:
        assert entry.reason == Closed(Reason.EXPIRED).words
    elif " is closed: " in said and not saved.decision.closed.get(entry.address):
        assert localised(entry.reason) in said


def told_by_match(
    settings: config.Config, login: float, now: float, who_: tuple[str, str], why: Closed
) -> None:
    """It sees one line alone: of what it can know it tells the same, and nothing before that."""
    alone = decision.of_login(settings.rules, *who_, login, now)
    if why.reason in (Reason.FORBIDDEN, Reason.DENIED, Reason.EXPIRED):
        assert alone == why
    elif alone is not None:
        assert ORDER.index(alone.reason) > ORDER.index(why.reason)


def test_a_revoked_claim_that_a_logout_prolongs_is_revoked_for_as_long_as_it_lasts(
    site: Site,
) -> None:
    site.configure(top='[policy]\nafter_logout = "2h"')
    found = config.load(str(site.config))
    site.write(login("192.0.2.1", at=NOW - 1700), logout("192.0.2.1", at=NOW))
    run.once(found, NOW, closing=["192.0.2.1"])
    run.once(found, NOW + 1801)
    (said,) = who.at_present(found, ["192.0.2.1"], NOW + 1801)
    assert localised(Closed(Reason.REVOKED, "2027-01-15T08:00:00Z").words) in said


def test_who_is_gone_and_who_is_refused_in_one_pass_have_one_reason(site: Site) -> None:
    found = config.load(str(site.config))
    site.write(login("203.0.113.9", "bob", NOW - 1700), login("203.0.113.9", "eve", NOW))
    run.once(found, NOW)
    site.source.write_text("203.0.113 REJECT\n")
    run.once(found, NOW + 200)
    *_, bob, eve = audit_reasons(site)
    assert bob == eve == 'access.source says "203.0.113 REJECT"'


def test_a_comment_above_a_refusal_has_nothing_mailed_again(site: Site) -> None:
    """Nor any other line that leaves the entry as it is."""
    site.source.write_text("203.0.113 REJECT\n")
    site.write(login("203.0.113.9"))
    warning = (
        "sapd: warning: 203.0.113.9: not opened: logged in as bob, "
        'but access.source says "203.0.113 REJECT"\n'
    )
    assert site.sapd("run").stderr == warning
    site.source.write_text("# Spammers, as of today.\n\n10.1 RELAY\n203.0.113  REJECT\n")
    site.write(login("192.0.2.1"))
    site.run()
    assert site.open_addresses() == {"192.0.2.1"}
    site.source.write_text('203.0.113 ERROR:"550 Go away"\n')
    assert "550 Go away" in site.sapd("run").stderr  # that is another reason
    assert audit_reasons(site) == ['access.source says "203.0.113 REJECT"']


def audit_reasons(site: Site) -> list[str]:
    """What the trail says of the refused address."""
    entries = audit.read(str(site.audit.parent))
    return [entry.reason for entry in entries if entry.address == "203.0.113.9"]
