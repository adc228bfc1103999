"""Who logs in from one address with many accounts, all day long."""

import time
from pathlib import Path

import pytest

from sapd import check, config
from sapd.crowds import HOURS, MANY, Crowd, crowds
from tests.site import Site, login

HOUR = 3600


def logins(address: str, accounts: int, hours: int) -> list[tuple[str, str, float]]:
    """So many accounts in each of so many hours."""
    return [
        (address, f"user{account}", 1_800_000_000.0 + hour * HOUR)
        for account in range(accounts)
        for hour in range(hours)
    ]


def test_many_accounts_all_day() -> None:
    found = crowds(logins("192.0.2.1", MANY, HOURS) + logins("192.0.2.2", MANY + 5, 24))
    assert found == [Crowd("192.0.2.2", MANY + 5, 24), Crowd("192.0.2.1", MANY, HOURS)]


def test_who_is_none() -> None:
    assert crowds([]) == []
    assert crowds(logins("192.0.2.1", MANY - 1, 24)) == []
    assert crowds(logins("192.0.2.1", MANY, HOURS - 1)) == []


def test_only_the_latest_day_counts() -> None:
    old = logins("192.0.2.1", MANY, HOURS)
    new = [("192.0.2.2", "bob", 1_800_000_000.0 + 40 * HOUR)]
    assert crowds(old + new) == []


@pytest.mark.makemap
def test_check_proposes_to_shut_it(site: Site, tmp_path: Path) -> None:
    now = time.time()
    site.write(
        *(
            login("192.0.2.80", f"user{account}", now - (23 - hour) * HOUR)
            for hour in range(24)
            for account in range(MANY)
        )
    )

    def proposals() -> list[str]:
        found = check.findings(config.load(str(site.config)), str(tmp_path / "root"))
        return [finding.text for finding in found if "never" in finding.text]

    assert proposals() == [
        f"{site.log}: {MANY} accounts logged in from 192.0.2.80, in 24 hours of a day; if that is "
        'a webmail, a monitor or a proxy, shut it: [policy] never = ["192.0.2.80"]'
    ]
    site.configure(top='[policy]\nnever = ["192.0.2.0/24"]\n')
    assert proposals() == []
