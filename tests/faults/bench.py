"""A prepared site, put back as often as it takes to have its next pass meet every fault."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any

from sapd import config, run, who
from sapd import state as saved
from sapd.timestamps import rfc3339
from tests.faults import strace
from tests.faults.strace import Call
from tests.servers.filesystems import mounted
from tests.servers.unprivileged import NOBODY
from tests.site import MAKEMAP, Site, login, noise

AT = 1_790_000_000.0
LATER = AT + 200
NOW = ("--at", rfc3339(LATER))
OWN, STALE, RENEWED, NEW = "198.51.100.9", "192.0.2.1", "192.0.2.2", "192.0.2.3"

_MARKER = re.compile(rb"sapd\[\d+\]: (log cut, \d+ lines removed) *\n")


@dataclass(frozen=True)
class Variant:
    """The file system a site lies on, when its log is cut, and whether a pass went before."""

    kind: str
    keep: int = 100
    above: int = 100
    first: bool = False

    def __str__(self) -> str:
        """Its name among a test's parameters."""
        return f"{self.kind}-{self.keep}-{self.above}{'-first' * self.first}"

    def prepare(self, site: Site) -> None:
        """One login to open, one to renew, one to expire, a log to cut, a map to rewrite."""
        settings = f"keep_lines = {self.keep}\ncut_above = {self.above}"
        site.configure(log_settings=settings, access_settings='makemap = "makemap"')
        (site.folder / "makemap").symlink_to(MAKEMAP)
        site.write(*(noise(number, AT - 1750) for number in range(200)))
        site.write(login(STALE, at=AT - 1700), login(RENEWED, at=AT - 60))
        if not self.first:
            site.state.parent.mkdir()
            os.chown(site.state.parent, NOBODY, NOBODY)
            site.run("--at", rfc3339(AT - 30))
        site.write(*(noise(number, AT - 20) for number in range(200, 260)))
        site.write(login(NEW, at=AT - 10), login(RENEWED, at=AT + 100))


STEADY, SELDOM = Variant("ext4"), Variant("ext4", keep=40, above=250)
STEADY_COPY, SELDOM_COPY = Variant("tmpfs"), Variant("tmpfs", keep=40, above=250)
FIRST = Variant("ext4", first=True)
VARIANTS = [STEADY, SELDOM, STEADY_COPY, SELDOM_COPY, FIRST]

FOREIGN = "203.0.113.66"

_one_pass = Lock()  # a pass sets the umask while it starts makemap, and that is the whole process'


class Strangers(Variant):
    """A log whose lines hold a stranger's login, where its blocks and the copied tail may end."""

    def prepare(self, site: Site) -> None:
        """Let the login begin at each 256th byte, and so at each block, where the cut will be.

        Where the copied tail will end, the lines are shifted against those of the tail, so that the
        login stands there.
        """
        super().prepare(site)
        self._write(site, 256 - _HEAD, 60)
        self._write(site, 0, 100)

    def _write(self, site: Site, forged_at: int, number: int) -> None:
        gap = (forged_at - _HEAD - site.log.stat().st_size) % 256
        honest = noise(7, at=AT - 5).partition("from=<")[0] + "from=<"
        site.write("x" * (gap + 255) + "\n", (honest.ljust(_HEAD, "x") + _FORGED) * number)


STRANGERS, STRANGERS_COPY = Strangers("ext4", 60, 60), Strangers("tmpfs", 60, 60)
_FORGED = login(FOREIGN, "eve", at=AT - 5)
_HEAD = 256 - len(_FORGED)


class Bench:
    """One place for a prepared `site`; `end` is the outcome of a pass that nothing disturbs."""

    def __init__(self, folder: Path, variant: Variant) -> None:
        self.variant = variant
        self.folder = folder / "site"
        self._prepared = folder / "prepared"
        self._trace = folder / "trace"
        self.folder.mkdir(parents=True)
        self.site = Site(self.folder)
        variant.prepare(self.site)
        self.folder.rename(self._prepared)
        finish(self.fresh())
        self.end = outcome(self.site)
        assert self.site.relaying() == {OWN, RENEWED, NEW}
        assert b" lines removed\n" in self.end["log"]

    def fresh(self) -> Site:
        """The site as it was prepared."""
        shutil.rmtree(self.folder, ignore_errors=True)
        subprocess.run(["cp", "-a", self._prepared, self.folder], check=True)
        return self.site

    def traced(self, *faults: str) -> list[Call]:
        """What a pass that meets `faults` changes, call by call."""
        self.site.sapd("run", *NOW, prefix=strace.strace(*faults, trace=str(self._trace)))
        return strace.calls(self._trace, self.folder)

    def met(self, call: Call, fault: str, *before: str) -> subprocess.CompletedProcess[str]:
        """A pass from where the site was prepared that meets a fault at `call`, and others before.

        What Python opens to load its modules may differ in number, as when a folder of them has
        just been changed; a pass that was struck elsewhere is done again.
        """
        for _ in range(5):
            site = self.fresh()
            prefix = strace.strace(*before, fault, trace=str(self._trace))
            done = site.sapd("run", *NOW, prefix=prefix)
            if self._path(strace.struck(self._trace)) == self._path(call):
                return done
        raise AssertionError(f"{strace.struck(self._trace)} was struck instead")

    def _path(self, call: Call) -> list[str]:
        """The files of the site that a call is about."""
        return re.findall(r"/\d+/site\b([^\"<>]*)", call.text.rpartition(" = ")[0])

    def calls(self) -> list[Call]:
        """What the pass changes; of one like another variant's only what is its own."""
        self.fresh()
        found = self.traced()
        if self.variant == STEADY:
            return found
        if self.variant == FIRST:
            return found[: next(n for n, call in enumerate(found) if "state.json" in call.text)]
        about = [[call, then] for call, then in pairwise(found) if "/qpopper" in call.text]
        return list(dict.fromkeys(call for both in about for call in both))


@contextmanager
def benches(folder: Path, variant: Variant) -> Iterator[list[Bench]]:
    """As many as there are processors, on a file system of their own."""
    with mounted(folder, variant.kind, megabytes=32) as point:
        yield [Bench(point / str(number), variant) for number in range(os.cpu_count() or 1)]


def each(
    benches: list[Bench], cases: Iterable[tuple[Any, ...]], check: Callable[..., None]
) -> None:
    """Check each case on a bench that is free; fail with all that was wrong."""
    free: SimpleQueue[Bench] = SimpleQueue()
    for bench in benches:
        free.put(bench)

    def wrong(case: tuple[Any, ...]) -> str:
        bench = free.get()
        try:
            check(bench, *case)
        except (AssertionError, subprocess.CalledProcessError) as error:
            return f"{case}: {error}"
        finally:
            free.put(bench)
        return ""

    with ThreadPoolExecutor(len(benches)) as pool:
        failures = "\n\n".join(filter(None, pool.map(wrong, cases)))
    assert not failures, failures


def finish(site: Site, may_warn: str | None = None) -> None:
    """A pass that must have nothing to complain of, but for a warning with these words."""
    with _one_pass:
        report = run.once(config.load(str(site.config)), LATER)
    assert report.problems == []
    assert all(may_warn is not None and may_warn in said for _, said in report.warnings), (
        report.warnings
    )


def outcome(site: Site) -> dict[str, Any]:
    """All that a pass leaves, but for inodes, times and the number of the process that cut.

    What the trail tells twice counts once. No two databases of the same entries are alike, so of
    the content that was noted it only counts whether that is the map's, and of the seal whether it
    fits.
    """
    state = json.loads(site.state.read_text())
    published = state["published"]
    del published["file"]
    state["seal"] = saved.load(str(site.state.parent)).basis == state["basis"]
    content = blake2b(site.database.read_bytes(), digest_size=32).hexdigest()
    published["content"] = published["content"] == content
    return {
        "state": state,
        "map": site.entries(),
        "log": _MARKER.sub(rb"\1\n", site.log.read_bytes()),
        "trail": set(site.audit.read_bytes().splitlines()) if site.audit.exists() else set(),
        "list": who.grants(config.load(str(site.config)), LATER),
        "files": sorted(
            (str(path.relative_to(site.folder)), about.st_mode, about.st_uid, about.st_nlink)
            for path in site.folder.rglob("*")
            for about in [path.lstat()]
        ),
    }
