"""Beside tools of Debian's that do a part of it; without bars."""

import time
from math import inf
from pathlib import Path

from tests.benchmarks import logs
from tests.benchmarks.sites import MEBI, Row, Rows, again, of_run, site_in
from tests.benchmarks.timing import Side, against
from tests.site import noise


def debian(folder: Path) -> Rows:
    site = site_in(folder)
    now = time.time()
    site.write(noise(0))
    site.run()
    offset = folder / "offset"
    logtail = Side(["logtail2", "-f", str(site.log), "-o", str(offset)])
    logs.write(site.log, 200 * MEBI, 0.01, now - 1500, now)
    mawk = Side(["mawk", "/login by /{n[$(NF-1)] = $0} END {for (a in n) print a}", str(site.log)])
    name, peer = "scan of 200 MB, 1% logins", "`mawk`, the last login of each address"
    yield Row(name, peer, inf, against(of_run(site, again(site)), mawk, 5))
    site.log.write_bytes(b"")
    for _ in range(3):
        site.run()
        time.sleep(0.3)
    yield Row("a minute with nothing new", "`logtail2`", inf, against(of_run(site), logtail, 20))
