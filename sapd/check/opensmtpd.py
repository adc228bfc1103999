"""Whether smtpd.conf has sapd's table, and whether smtpd can be told of a change."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sapd import errors
from sapd.check import table
from sapd.check.finding import Finding, Note
from sapd.check.look import Look

if TYPE_CHECKING:
    from sapd.maps.live import Published
    from sapd.maps.opensmtpd import OpenSMTPD

_EXAMPLE = "see sapd init --opensmtpd"


def findings(server: OpenSMTPD, published: Published | None, root: str) -> Iterator[Finding]:
    """What a run would meet at the table, and smtpd; see `maps.Map.findings`."""
    yield table.program(server.builder, "OpenSMTPD")
    if os.geteuid() != 0:
        reason = "smtpctl wants root to update a table; run sapd as root"
        yield Finding(errors.NO_PERMISSION, f"{server.builder}: {reason}")
    text = Look().text(server.path).encode("utf-8", "replace")
    yield table.live(server.path, published, "table", not text.startswith(server.FIRST))
    if os.path.lexists(server.path) and not text.strip():
        yield Finding(errors.BAD_CONFIG, f"{server.path}: is empty, and so smtpd does not start")
    yield from _asking(server, os.path.join(root, "etc/smtpd.conf"))


def _asking(server: OpenSMTPD, conf: str) -> Iterator[Finding]:
    text = Look().text(conf)
    if not text:
        yield Note(f"smtpd was not compared: {conf} can't be read")
        return
    done = table.ask(["smtpd", "-n", "-f", conf], 2)
    if done is not None and done.status != 0:
        words = done.said.decode("utf-8", "replace").splitlines() or ["no reason given"]
        yield Finding(errors.BAD_CONFIG, f"smtpd does not take its configuration: {words[0]}")
    lines = re.sub(r"\\\n", " ", re.sub(r"(?m)#.*$", "", text)).splitlines()
    named = rf"\s*table\s+\"?{re.escape(server.table)}\"?\s+\"?(?:file:)?([^\s\"]+)\"?\s*"
    files = [found[1] for line in lines if (found := re.fullmatch(named, line))]
    match = re.compile(rf"\s*match\b.*\bsrc\s+<\"?{re.escape(server.table)}\"?>")
    asked = [line.strip() for line in lines if match.match(line)]
    if not files:
        reason = f"has no table {server.table}, which access.table names"
        yield Finding(errors.BAD_CONFIG, f"{conf}: {reason}; {_EXAMPLE}")
    elif os.path.realpath(files[-1]) != os.path.realpath(server.path):
        reason = f"table {server.table} is {files[-1]}, and sapd writes {server.path}"
        yield Finding(errors.BAD_CONFIG, f"{conf}: {reason}; make them the same")
    elif not asked:
        reason = f"nobody is let in, for no `match from src <{server.table}>' asks it"
        yield Finding(errors.BAD_CONFIG, f"{conf}: {reason}; {_EXAMPLE}")
    else:
        yield Finding(0, f"{conf}: {asked[0]}")
