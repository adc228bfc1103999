"""Addresses that many accounts log in from all day: a webmail, monitoring, a proxy. Pure.

They need no relay by their logins, and would open it to all who share them: sapd.toml can shut
them with `never`.
"""

from collections.abc import Iterable
from typing import NamedTuple

MANY = 10
"""Accounts, at least."""

HOURS = 12
"""Different hours of the latest day in which somebody logged in, at least."""

_HOUR, _DAY = 3600, 24


class Crowd(NamedTuple):
    """An address, how many accounts logged in from it, and in how many hours of the latest day."""

    address: str
    accounts: int
    hours: int


def crowds(logins: Iterable[tuple[str, str, float]]) -> list[Crowd]:
    """Find them among the logins (address, account, UTC epoch seconds), the largest first."""
    accounts: dict[str, set[str]] = {}
    hours: dict[str, set[int]] = {}
    for address, account, time in logins:
        accounts.setdefault(address, set()).add(account)
        hours.setdefault(address, set()).add(int(time // _HOUR))
    latest = max((hour for found in hours.values() for hour in found), default=0)
    found = []
    for address, names in accounts.items():
        busy = sum(hour > latest - _DAY for hour in hours[address])
        if len(names) >= MANY and busy >= HOURS:
            found.append(Crowd(address, len(names), busy))
    return sorted(found, key=lambda crowd: (-crowd.accounts, crowd.address))
