"""What a minute costs: with nothing new, with a pass each second, and with some logins."""

import time
from pathlib import Path

from tests.benchmarks.sites import PASS, Row, Rows, of_run, site_in
from tests.benchmarks.timing import against
from tests.site import login, noise

PEER = "`python -c pass`"


def minutes(folder: Path) -> Rows:
    site = site_in(folder)
    networks = [f"Connect:198.51.{n // 250}.{n % 250}\tRELAY\n" for n in range(1000)]
    site.source.write_text("".join(networks))
    site.write(*(noise(n) for n in range(1000)), login("192.0.2.1"))
    for _ in range(3):
        site.run()
        time.sleep(0.3)
    yield Row("a minute with nothing new", PEER, 1.12, against(of_run(site), PASS, 40))
    turns = of_run(site, lambda: None, "--for", "1m", "--every", "1s")
    name = "a minute with nothing new, `--for 1m --every 1s`"
    yield Row(name, PEER, 10, against(turns, PASS, 2, warm_up=0))
    minute = 0

    def write() -> None:
        nonlocal minute
        minute += 1
        site.write(*(noise(n) for n in range(70)))
        site.write(*(login(f"10.{minute}.0.{n}", f"user{n}") for n in range(30)))

    name = "a minute with 100 lines, 30 logins, a map of 1,000"
    yield Row(name, PEER, 5, against(of_run(site, write), PASS, 20))
