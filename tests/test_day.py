"""What must hold on any day: a small one of the benchmark's, under each setting."""

from collections import Counter
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest

from sapd import config, run
from tests.benchmarks import day
from tests.benchmarks.day import NAT, PASSWORD, SETTINGS, WAYS, Event, Send
from tests.site import login

DEFAULT, LESS, MORE = "", 'window = "10m"', 'window = "8h"'
ACCOUNTS = 200
EVERY = 5 * day.MINUTE  # a pass at each minute would take longer, and show no more


@cache
def through(settings: str | None) -> Counter[Send]:
    """The mails that found their address open."""
    return Counter(day.relayed(day.make(ACCOUNTS), day.pass_of(settings), EVERY))


def by(settings: str | None) -> dict[str | None, int]:
    """How many there are of each way."""
    found: Counter[str | None] = Counter(send.way for send in through(settings).elements())
    return {way: found[way] for way in (None, *WAYS)}


def policy(text: str) -> str:
    return f"[policy]\n{text}"


def test_the_day_is_always_the_same_and_has_all_kinds() -> None:
    assert day.make.__wrapped__(ACCOUNTS) == day.make(ACCOUNTS)
    assert min(by(DEFAULT).values()) > 0


@pytest.mark.parametrize(
    "settings",
    [
        LESS,
        policy('after_logout = "2m"'),
        *(policy(text) for text in (day.NEVER, day.CROWD.format(5), day.ONE_ADDRESS, day.DENY)),
    ],
)
def test_a_rule_that_closes_opens_nothing(settings: str) -> None:
    assert through(settings) < through(DEFAULT)


def test_a_longer_window_is_for_everybody() -> None:
    assert through(LESS) < through(DEFAULT) < through(MORE)
    assert by(LESS)[None] < by(DEFAULT)[None] < by(MORE)[None]


def test_a_logout_takes_back_what_a_long_window_gives() -> None:
    ends = by(f'{MORE}\n{policy("""after_logout = "30m" """)}')
    assert by(DEFAULT)[None] < ends[None]
    assert sum(ends.values()) < sum(by(MORE).values())


def test_what_closes_one_way_leaves_the_others() -> None:
    never, deny = by(policy(day.NEVER)), by(policy(day.DENY))
    assert never == {**by(DEFAULT), NAT: 0, None: never[None]}
    assert deny == {**by(DEFAULT), PASSWORD: 0, None: deny[None]}


def test_one_address_is_against_passwords_and_not_against_gateways() -> None:
    one = by(policy(day.ONE_ADDRESS))
    assert 0 < one[PASSWORD] < by(DEFAULT)[PASSWORD]
    assert one[NAT] > 0


def test_all_together_let_in_fewer_strangers_by_every_way() -> None:
    together = by(day.TOGETHER)
    assert all(together[way] < by(DEFAULT)[way] for way in WAYS)


def test_the_default_is_the_rule_of_its_peers() -> None:
    assert SETTINGS["DRAC's and pop-before-smtp's rule"] is None
    assert through(None) == through(DEFAULT)


def line(event: Event) -> str:
    """The event as qpopper writes it."""
    if event.event == "login":
        return login(event.address, event.account, event.at)
    stamp = datetime.fromtimestamp(event.at, UTC).isoformat()
    return (
        f"{stamp} mx1 popper[4242]: Stats: {event.account} 0 0 3 4310 client.example.net "
        f"{event.address} [pop_updt.c:195]\n"
    )


@pytest.mark.makemap
@pytest.mark.parametrize(
    "settings",
    [DEFAULT, day.TOGETHER + day.DENY, policy(day.ONE_ADDRESS + 'after_logout = "2m"')],
)
def test_real_passes_open_the_same_addresses(tmp_path: Path, settings: str) -> None:
    site = day.configured(tmp_path, settings)
    own = site.source.read_text().split()[0].removeprefix("Connect:")
    known = config.load(str(site.config))

    def once(events: list[Event], now: int) -> set[str]:
        site.write(*map(line, events))
        assert run.once(known, now).problems == []
        return site.relaying() - {own}

    made = day.make(ACCOUNTS)
    real = dict(day.passes(made, once, 2 * day.HOUR))
    expected = dict(day.passes(made, day.pass_of(settings), EVERY))
    assert real == {now: set(expected[now]) for now in real}
    assert any(real.values())
