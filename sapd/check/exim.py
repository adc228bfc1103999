"""Whether Exim asks sapd's table, closes by itself, and can read it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sapd import errors
from sapd.check import table
from sapd.check.finding import Finding, Note, problem

if TYPE_CHECKING:
    from sapd.maps.exim import Exim
    from sapd.maps.live import Published

_EXAMPLE = "see sapd init --exim"


def findings(server: Exim, published: Published | None) -> Iterator[Finding]:
    """What a run would meet at the table, and Exim; see `maps.Map.findings`."""
    yield table.live(server.path, published, "table")
    try:
        many = len(server.entries())
    except errors.SapdError as error:
        yield problem(error)
        return
    if many > server.MANY:
        reason = f"has {many} addresses, and Exim reads it from the start for each mail"
        yield Note(f"{server.path}: {reason}: 110 ms with 100,000")
    yield from _asking(server)
    yield from _reading(server)
    yield table.revoked()


def _asking(server: Exim) -> Iterator[Finding]:
    """Whether the configuration that Exim runs with asks the table, and heeds the ends."""
    text = _exim("-bP", "config")
    if not text:
        yield Note("Exim was not compared: `exim -bP config' says nothing; try it as root")
        return
    asks = [line for line in _joined(text) if server.path in line and "lsearch" in line]
    if not asks:
        reason = f"Exim's configuration never looks up {server.path}, so nobody is let in"
        yield Finding(errors.BAD_CONFIG, f"{reason}; {_EXAMPLE}")
        return
    yield Finding(0, f"Exim asks {server.path}")
    if any("$tod_epoch" not in line for line in asks):
        reason = f"Exim asks {server.path} without comparing the end with $tod_epoch"
        yield Finding(errors.BAD_CONFIG, f"{reason}: nothing closes by itself; {_EXAMPLE}")
    if any("exists{" not in line.replace(" ", "") for line in asks):
        reason = f"Exim answers 421 or 451 to all mail while {server.path} is missing"
        yield Note(f"{reason}, for it is not in ${{if exists{{...}}}}; {_EXAMPLE}")


def _reading(server: Exim) -> Iterator[Finding]:
    """Whether Exim's user gets at the table."""
    user = re.search(r"exim_user = (\S+)", _exim("-bP", "exim_user"))
    why = table.why_unreadable_for(user[1], server.path) if user else None
    if why is not None:
        reason = f"{why}: nobody is let in, or all mail is deferred; chmod a+rX {server.path}"
        yield Finding(errors.NO_PERMISSION, f"{server.path}: {reason}")


def _exim(*arguments: str) -> str:
    for name in ("exim4", "exim"):
        done = table.ask([name, *arguments])
        if done is not None and done.status == 0:
            return done.said.decode("utf-8", "replace")
    return ""


def _joined(text: str) -> list[str]:
    """The lines, with those that a backslash continues."""
    return re.sub(r"\\\s*\n\s*", "", text).splitlines()
