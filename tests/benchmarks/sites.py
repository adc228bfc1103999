"""Sites to be timed, and the rows of the table."""

import shutil
import sys
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.timing import Result, Side
from tests.site import Site

PYTHON = str(Path(sys.executable))
SAPD = str(Path(sys.executable).with_name("sapd"))
PASS = Side([PYTHON, "-c", "pass"])
MEBI = 1024 * 1024


class Row(NamedTuple):
    """What was timed, against what, and the bars: of the ratio, and of the memory in MiB."""

    name: str
    peer: str
    bar: float
    result: Result
    most_memory: float = 40

    @property
    def missed(self) -> bool:
        return self.result.ratio > self.bar or self.result.memory > self.most_memory

    def __str__(self) -> str:
        result = self.result
        bar = "" if self.bar == inf else f"{self.bar:g}"
        most = "" if self.most_memory == inf else f" of {self.most_memory:g}"
        verdict = " **missed**" if self.missed else ""
        return (
            f"| {self.name} | {self.peer} | {result.ratio:.3g} | {result.worst:.3g} | "
            f"{bar}{verdict} | {result.memory:.0f}{most} |"
        )


Rows = Iterator[Row]


def site_in(folder: Path, **settings: str) -> Site:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    site = Site(folder)
    site.configure(**settings)
    return site


def of_run(site: Site, before: Callable[[], object] = lambda: None, *options: str) -> Side:
    return Side([SAPD, "run", "-c", str(site.config), *options], before)


def again(site: Site) -> Callable[[], None]:
    """Put state and map back as they are now."""
    kept = {path: path.with_suffix(".kept") for path in (site.state, site.database)}
    for path, copy in kept.items():
        shutil.copyfile(path, copy)

    def put_back() -> None:
        for path, copy in kept.items():
            shutil.copyfile(copy, path)

    return put_back
