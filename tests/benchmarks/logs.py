"""Logs made for timing: the same bytes every time, but for the stamps."""

import random
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

_PIECE = 4_000_000  # bytes made line by line; a longer log repeats them, a second later each


class Shape(NamedTuple):
    """What a log looks like: its stamps, the hosts that write to it, and its POP servers."""

    stamp: str = "traditional"
    hosts: int = 1
    servers: tuple[str, ...] = ("qpopper",)


_STAMPS = {"traditional": "%b %e %H:%M:%S", "rfc3339": "%Y-%m-%dT%H:%M:%S+00:00"}
_LOGINS = {
    "qpopper": (
        'popper[{pid}]: (v4.0.5) POP login by user "user{user}" at (host.example.net) {ip} '
        "[pop_log.c:244]"
    ),
    "dovecot": (
        "dovecot: pop3-login: Login: user=<user{user}>, method=PLAIN, rip={ip}, lip=192.0.2.1, "
        "mpid={pid}, session=<{user}AbC>"
    ),
}


def lines(size: int, share: float, shape: Shape = Shape(), seed: int = 1) -> bytes:  # noqa: B008
    """Lines of a mail log, `share` of them logins of 3,000 users, stamped `STAMP`."""
    dice = random.Random(seed)
    found, length = [], 0
    while length < size:
        host, pid = f"mx{dice.randrange(shape.hosts) + 1}", dice.randrange(300, 65000)
        if dice.random() < share:
            user = dice.randrange(3000)
            login = _LOGINS[dice.choice(shape.servers)]
            text = login.format(pid=pid, user=user, ip=f"10.0.{user // 250}.{user % 250}")
        else:
            text = (
                f"sm-mta[{pid}]: 4AMBf{dice.randrange(10**7)}: "
                f"from=<a{dice.randrange(10**5)}@example.net>, size={dice.randrange(10**6)}, "
                "nrcpts=1"
            )
        line = f"STAMP {host} {text}\n"
        found.append(line)
        length += len(line) + 10
    return "".join(found).encode()


def write(
    path: Path,
    size: int,
    share: float,
    since: float,
    until: float,
    shape: Shape = Shape(),  # noqa: B008
) -> None:
    """Append `size` bytes of such lines, stamped from `since` to `until` (UTC epoch seconds)."""
    piece = lines(min(size, _PIECE), share, shape)
    with path.open("ab") as file:
        start = file.tell()
        while (done := file.tell() - start) < size:
            moment = datetime.fromtimestamp(since + (until - since) * done / size, UTC)
            stamp = moment.strftime(_STAMPS[shape.stamp]).encode()
            file.write(piece.replace(b"STAMP", stamp)[: size - done])
        file.write(b"\n")
