"""What a first run costs, with a short window and a long one."""

import time
from pathlib import Path

from tests.benchmarks import logs
from tests.benchmarks.sites import MEBI, SAPD, Row, Rows, of_run, site_in
from tests.benchmarks.timing import Side, against
from tests.site import Site


def _anew(site: Site) -> Side:
    return of_run(site, lambda: site.state.unlink(missing_ok=True))


def first_runs(folder: Path) -> Rows:
    now = time.time()
    small, big = site_in(folder / "small"), site_in(folder / "big")
    logs.write(small.log, 100 * MEBI, 0.1, now - 86400, now)
    logs.write(big.log, 1024 * MEBI, 0.1, now - 10 * 86400, now)
    name = "first run on 1 GB, window of 30 minutes"
    yield Row(name, "first run on 100 MB", 1.5, against(_anew(big), _anew(small), 7))
    whole = Side([SAPD, "match", "--summary", "-c", str(big.config), str(big.log)])
    result = against(_anew(big), whole, 1, warm_up=0)
    yield Row(name, "`sapd match --summary`, all of it", 0.02, result)


def long_windows(folder: Path) -> Rows:
    now = time.time()
    for share, bar in ((0.01, 6), (0.30, 9)):
        site = site_in(folder, window="30d")
        logs.write(site.log, 1024 * MEBI, share, now - 29 * 86400, now)
        peer = Side(["grep", "-F", "-c", "POP login by user ", str(site.log)])
        name = f"first run on 1 GB, window of 30 days, {share:.0%} logins"
        yield Row(name, "`grep -F -c`", bar, against(_anew(site), peer, 3))
