"""All rows, one after the other: see the package."""

import platform
import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from tests.benchmarks.addresses import a_million, growth, many_addresses
from tests.benchmarks.cuts import cut
from tests.benchmarks.debian import debian
from tests.benchmarks.first_runs import first_runs, long_windows
from tests.benchmarks.log_growth import log_growth
from tests.benchmarks.minutes import minutes
from tests.benchmarks.scans import scans
from tests.benchmarks.sites import Rows

PARTS: tuple[Callable[[Path], Rows], ...] = (
    *(
        minutes,
        first_runs,
        long_windows,
        log_growth,
        scans,
        cut,
        many_addresses,
        growth,
        a_million,
        debian,
    ),
)


def main() -> None:
    words = sys.argv[1:]
    folder = Path(words[0] if words else ".", "benchmarks.tmp").absolute()
    by_name = {part.__name__: part for part in PARTS}
    chosen = [by_name[name] for name in words[1:]] or PARTS
    machine = platform.processor() or platform.machine()
    print(f"{machine}, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}\n")
    print("| sapd | against | ratio | worst | bar | memory, MiB |\n|---|---|---|---|---|---|")
    missed = 0
    for part in chosen:
        try:
            for row in part(folder):
                missed += row.missed
                print(row, flush=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{missed or 'no'} bar{'s' if missed > 1 else ''} missed")


if __name__ == "__main__":
    main()
