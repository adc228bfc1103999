"""How fast lines are looked at, in logs of several shapes."""

import time
from math import inf
from pathlib import Path

from sapd.events import formats
from tests.benchmarks import logs
from tests.benchmarks.logs import Shape
from tests.benchmarks.sites import MEBI, Row, Rows, again, of_run, site_in
from tests.benchmarks.timing import Side, against
from tests.site import noise

SIZE = 200 * MEBI
SHAPES = {
    "": Shape(),
    ", RFC 3339 stamps": Shape(stamp="rfc3339"),
    ", 50 hosts": Shape(hosts=50),
    ", qpopper and Dovecot mixed": Shape(servers=("qpopper", "dovecot")),
}
NEEDLES = {"qpopper": "POP login by user ", "dovecot": "Login: user=<"}


def scans(folder: Path) -> Rows:
    for share, bar in ((0.01, 3), (0.10, inf), (0.30, 9)):
        for what, shape in SHAPES.items():
            names = ", ".join(f'"{name}"' for name in shape.servers)
            peers = [part for name in shape.servers for part in ("-e", NEEDLES[name])]
            peer = f"`grep -F -c`, {len(shape.servers)} needle{'s' * (len(shape.servers) > 1)}"
            yield _row(folder, share, what, shape, f"formats = [{names}]", peers, peer, bar)
        peers = [part for needle in _needles() for part in ("-e", needle)]
        settings, peer = 'formats = ["auto"]', "`grep -F -c`, all needles"
        yield _row(folder, share, ", all formats", Shape(), settings, peers, peer, 4.5)


def _row(
    folder: Path,
    share: float,
    what: str,
    shape: Shape,
    settings: str,
    needles: list[str],
    peer: str,
    bar: float,
) -> Row:
    site = site_in(folder, log_settings=settings)
    now = time.time()
    site.write(noise(0))
    site.run()
    put_back = again(site)
    logs.write(site.log, SIZE, share, now - 1500, now, shape)
    grep = Side(["grep", "-F", "-c", *needles, str(site.log)])
    result = against(of_run(site, put_back), grep, 5)
    return Row(f"scan of 200 MB, {share:.0%} logins{what}", peer, bar, result)


def _needles() -> list[str]:
    """Those of all formats."""
    found = [
        needle.decode()
        for name in formats.names()
        for line in formats.load(name).lines
        for needle in line.needles
    ]
    return list(dict.fromkeys(found))
