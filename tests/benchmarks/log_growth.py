"""How a first run grows with its log."""

import shutil
import time
from math import inf
from pathlib import Path

from tests.benchmarks import logs
from tests.benchmarks.sites import MEBI, Row, Rows, of_run, site_in
from tests.benchmarks.timing import Side, against
from tests.site import Site


def _first_run(folder: Path, size: int, window: str) -> Side:
    """On so many MB of the last 20 days."""
    site: Site = site_in(folder, window=window)
    now = time.time()
    logs.write(site.log, size * MEBI, 0.1, now - 20 * 86400, now)
    return of_run(site, lambda: shutil.rmtree(site.state.parent, ignore_errors=True))


def log_growth(folder: Path) -> Rows:
    """A log of 0.1, 1 and 4 GB; with a long window all of it is read."""
    for window, bar in (("30d", inf), ("30m", 1.5)):
        smallest = _first_run(folder / "smallest", 100, window)
        for size in (100, 1000, 4000):
            result = against(_first_run(folder / "site", size, window), smallest, 3)
            name = f"first run on {size / 1000:g} GB, window {window}"
            yield Row(name, "first run on 0.1 GB", bar, result)
