"""All goals, one after the other: see the package."""

import json
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from math import inf
from pathlib import Path

from sapd import formats
from tests.benchmarks import logs
from tests.benchmarks.timing import Result, Side, against, spread
from tests.site import MAKEMAP, Site, login, noise

PYTHON = str(Path(sys.executable))
SAPD = str(Path(sys.executable).with_name("sapd"))
PASS = Side([PYTHON, "-c", "pass"])
MEBI = 1024 * 1024
Goal = tuple[str, str, float, Result]


def site_in(folder: Path, **settings: str) -> Site:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    site = Site(folder)
    site.configure(**settings)
    return site


def of_run(site: Site, before: Callable[[], object] = lambda: None) -> Side:
    return Side([SAPD, "run", "-c", str(site.config)], before)


def again(site: Site) -> Callable[[], None]:
    """Put state and map back as they are now."""
    kept = {path: path.read_bytes() for path in (site.state, site.database)}

    def put_back() -> None:
        for path, data in kept.items():
            path.write_bytes(data)

    return put_back


def minutes(folder: Path) -> Iterator[Goal]:
    site = site_in(folder)
    networks = [f"Connect:198.51.{n // 250}.{n % 250}\tRELAY\n" for n in range(1000)]
    site.source.write_text("".join(networks))
    site.write(*(noise(n) for n in range(1000)), login("192.0.2.1"))
    for _ in range(3):
        site.run()
        time.sleep(0.3)
    yield "minute with nothing new", "`python -c pass`", 1.5, against(of_run(site), PASS, 40)
    minute = 0

    def write() -> None:
        nonlocal minute
        minute += 1
        site.write(*(noise(n) for n in range(70)))
        site.write(*(login(f"10.{minute}.0.{n}", f"user{n}") for n in range(30)))

    result = against(of_run(site, write), PASS, 20)
    yield "minute with 100 lines, 30 logins, a map of 1,000", "`python -c pass`", 4, result


def scans(folder: Path) -> Iterator[Goal]:
    needles = [
        needle.decode()
        for name in formats.names()
        for line in formats.load(name).lines
        for needle in line.needles
    ]
    every = [part for needle in dict.fromkeys(needles) for part in ("-e", needle)]
    for share, bar in ((0.01, 3), (0.30, 9)):
        site = site_in(folder)
        now = time.time()
        site.write(noise(0))
        site.run()
        logs.write(site.log, 1024 * MEBI, share, now - 1500, now)
        put_back = again(site)
        peer = Side(["grep", "-F", "-c", "login by ", str(site.log)])
        name = f"scan of 1 GB, {share:.0%} logins"
        yield name, "`grep -F -c`", bar, against(of_run(site, put_back), peer, 5)
        site.configure(log_settings='formats = ["auto"]')
        peer = Side(["grep", "-F", "-c", *every, str(site.log)])
        result = against(of_run(site, put_back), peer, 5)
        yield f"{name}, all formats", "`grep -F -c`, all needles", 4.5, result


def first_runs(folder: Path) -> Iterator[Goal]:
    now = time.time()
    small, big = site_in(folder / "small"), site_in(folder / "big")
    logs.write(small.log, 100 * MEBI, 0.1, now - 86400, now)
    logs.write(big.log, 2048 * MEBI, 0.1, now - 20 * 86400, now)

    def anew(site: Site) -> Side:
        return of_run(site, lambda: site.state.unlink(missing_ok=True))

    result = against(anew(big), anew(small), 7)
    yield "first run on 2 GB", "first run on 100 MB", 1.5, result
    whole = Side([SAPD, "match", "--summary", "-c", str(big.config), str(big.log)])
    result = against(anew(big), whole, 1, warm_up=0)
    yield "first run on 2 GB", "`sapd match --summary`, all of it", 0.01, result


def cut(folder: Path) -> Iterator[Goal]:
    site = site_in(folder)
    now = time.time()
    logs.write(site.log, 130 * MEBI, 0.1, now - 86400, now)
    with site.log.open("rb") as log:
        count = sum(1 for _ in log)
    keep = count * 100 // 130
    settings = f"keep_lines = {keep}\ncut_above = {{}}"
    site.configure(log_settings=settings.format(count + 1000))
    site.run()
    assert json.loads(site.state.read_text())["logs"][str(site.log)]["lines"] == count
    site.configure(log_settings=settings.format(count - 1))
    put_back, original = again(site), folder / "original"
    shutil.copyfile(site.log, original)

    def before() -> None:
        put_back()
        shutil.copyfile(original, site.log)

    end = folder / "end"
    recipe = f"tail -n {keep} {site.log} > {end}; cp {end} {site.log}"
    result = against(of_run(site, before), Side(["sh", "-c", recipe], before), 7)
    yield "cut of 130 MB to 100 MB", "`tail > tmp; cp tmp log`", 0.3, result


def many_addresses(folder: Path) -> Iterator[Goal]:
    site = site_in(folder, window="1d")
    now = time.time()
    with site.log.open("w") as log:
        log.writelines(
            login(f"10.{n // 62500}.{n // 250 % 250}.{n % 250}", f"user{n}", now - 60)
            for n in range(100_000)
        )
    site.run()
    put_back = again(site)
    site.write(*(login(f"11.0.{n // 250}.{n % 250}", f"user{n}", now) for n in range(1000)))
    entries = folder / "entries"
    site.run()
    entries.write_text("".join(f"{key}\t{value}\n" for key, value in site.entries().items()))
    peer = Side(["sh", "-c", f"{MAKEMAP} hash {folder}/peer.db < {entries}"])
    result = against(of_run(site, put_back), peer, 5)
    yield "100,000 open addresses, 1,000 more", "makemap of that map", 2.5, result


def debian(folder: Path) -> Iterator[Goal]:
    """Beside tools of Debian's that do a part of it; without bars."""
    site = site_in(folder)
    now = time.time()
    site.write(noise(0))
    site.run()
    offset = folder / "offset"
    logtail = Side(["logtail2", "-f", str(site.log), "-o", str(offset)])
    logs.write(site.log, 1024 * MEBI, 0.01, now - 1500, now)
    put_back = again(site)
    mawk = Side(["mawk", "/login by /{n[$(NF-1)] = $0} END {for (a in n) print a}", str(site.log)])
    name = "scan of 1 GB, 1% logins"
    yield (
        name,
        "`mawk`, the last login of each address",
        inf,
        against(of_run(site, put_back), mawk, 5),
    )
    site.log.write_bytes(b"")
    for _ in range(3):
        site.run()
        time.sleep(0.3)
    yield "minute with nothing new", "`logtail2`", inf, against(of_run(site), logtail, 20)


GOALS = {
    goals.__name__: goals for goals in (minutes, scans, first_runs, cut, many_addresses, debian)
}


def main() -> None:
    words = sys.argv[1:]
    folder = Path(words[0] if words else ".", "benchmarks.tmp").absolute()
    chosen = [GOALS[name] for name in words[1:]] or GOALS.values()
    print(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, ",
        end="",
    )
    print(f"{datetime.now(UTC):%Y-%m-%d}\n")
    print("| | sapd: median (least to most) | peer | takes | ratio | bar | memory |")
    print("|---|---|---|---|---|---|---|")
    missed = 0
    try:
        for goals in chosen:
            for name, peer, bar, result in goals(folder):
                missed += result.ratio > bar
                verdict = "" if result.ratio <= bar else " **missed**"
                print(
                    f"| {name} | {spread(result.ours)} | {peer} | {spread(result.peers)} | "
                    f"{result.ratio:.3g} | {'' if bar == inf else f'{bar:g}'}{verdict} | "
                    f"{result.memory:.0f} MiB |",
                    flush=True,
                )
            shutil.rmtree(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{missed or 'no'} bar{'s' if missed > 1 else ''} missed")


if __name__ == "__main__":
    main()
