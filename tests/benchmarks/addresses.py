"""How a pass grows with the open addresses, and with those of them that change."""

import json
import time
from math import inf
from pathlib import Path

from tests.benchmarks.sites import Row, Rows, again, of_run, site_in
from tests.benchmarks.timing import Side, against
from tests.site import MAKEMAP, Site, login, noise

PEER = "`makemap` of that map"


def many_addresses(folder: Path) -> Rows:
    yield _row(folder, 100_000, 1000, 5, bar=6, most_memory=150)


def growth(folder: Path) -> Rows:
    for count, rounds in ((1000, 9), (10_000, 7), (100_000, 3)):
        for changed in dict.fromkeys((0, 100, count // 10)):
            yield _row(folder, count, changed, rounds, most_memory=150 if count > 10_000 else 40)


def a_million(folder: Path) -> Rows:
    yield _row(folder, 1_000_000, 1000, 1)


def _row(
    folder: Path,
    count: int,
    changed: int,
    rounds: int,
    bar: float = inf,
    most_memory: float = inf,
) -> Row:
    """A pass with `changed` more, where `count` addresses are open."""
    site = site_in(folder, window="1d")
    now = time.time()
    with site.log.open("w") as log:
        log.writelines(login(_address(n), f"user{n}", now - 60) for n in range(count))
    while not _is_read(site):  # a pass has no more than 20 s for that
        site.run()
    put_back = again(site)
    site.write(noise(0), *(login(_address(count + n), f"user{n}", now) for n in range(changed)))
    site.run()
    entries = folder / "entries"
    lines = sorted(f"{key}\t{value}\n" for key, value in site.entries().items())
    entries.write_text("".join(lines))
    peer = Side(["sh", "-c", f"exec {MAKEMAP} hash {folder}/peer.db < {entries} 2> /dev/null"])
    # To put the map back would have it made anew, which nothing new does not.
    before = put_back if changed else lambda: site.write(noise(1))
    result = against(of_run(site, before), peer, rounds, warm_up=min(rounds - 1, 1))
    return Row(f"{count:,} open addresses, {changed:,} more", PEER, bar, result, most_memory)


def _is_read(site: Site) -> bool:
    if not site.state.exists():
        return False
    (place,) = json.loads(site.state.read_text())["logs"].values()
    return bool(place["offset"] == site.log.stat().st_size)


def _address(number: int) -> str:
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
