"""Logs made for timing: the same bytes every time, but for the stamps."""

import random
from datetime import UTC, datetime
from pathlib import Path

_PIECE = 4_000_000  # bytes made line by line; a longer log repeats them, a second later each


def lines(size: int, share: float, seed: int = 1) -> bytes:
    """Lines of a mail log, `share` of them logins of 3,000 users, stamped `STAMP`."""
    dice = random.Random(seed)
    found, length = [], 0
    while length < size:
        if dice.random() < share:
            user = dice.randrange(3000)
            line = (
                f"STAMP mx1 popper[{dice.randrange(300, 65000)}]: (v4.0.5) POP login by user "
                f'"user{user}" at (host.example.net) 10.0.{user // 250}.{user % 250} '
                "[pop_log.c:244]\n"
            )
        else:
            line = (
                f"STAMP mx1 sm-mta[{dice.randrange(300, 65000)}]: 4AMBf{dice.randrange(10**7)}: "
                f"from=<a{dice.randrange(10**5)}@example.net>, size={dice.randrange(10**6)}, "
                "nrcpts=1\n"
            )
        found.append(line)
        length += len(line) + 10
    return "".join(found).encode()


def write(path: Path, size: int, share: float, since: float, until: float) -> None:
    """Append `size` bytes of such lines, stamped from `since` to `until` (UTC epoch seconds)."""
    piece = lines(min(size, _PIECE), share)
    with path.open("ab") as file:
        start = file.tell()
        while (done := file.tell() - start) < size:
            moment = datetime.fromtimestamp(since + (until - since) * done / size, UTC)
            stamp = moment.strftime("%b %e %H:%M:%S").encode()
            file.write(piece.replace(b"STAMP", stamp)[: size - done])
        file.write(b"\n")
