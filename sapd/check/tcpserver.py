"""Whether tcpserver's rules can be built, what in them has no effect, and who reads them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from sapd import errors
from sapd.check import table
from sapd.check.finding import Finding, Note, problem

if TYPE_CHECKING:
    from sapd.maps.live import Published
    from sapd.maps.tcpserver import Tcpserver


def findings(
    server: Tcpserver, published: Published | None, scratch: str, root: str
) -> Iterator[Finding]:
    """What a run would meet at the rules, and tcpserver; see `maps.Map.findings`."""
    yield table.program(server.builder, "ucspi-tcp")
    try:
        with TemporaryDirectory(dir=scratch) as folder:
            cdb = os.path.join(folder, "check.cdb")
            with server.trial(cdb).built(b""):
                pass
        count = len(server.source.by_address)
        yield Finding(0, f"{server.source_path}: tcprules makes {count} rules of it")
        yield from _rules(server)
    except errors.SapdError as error:
        yield problem(error)
    except OSError as error:
        reason = f"was not tried with tcprules: {scratch}: {error.strerror}"
        yield problem(errors.SapdError(errors.status_of(error), server.source_path, reason))
    yield table.live(server.path, published, "file of tcprules")
    yield from _readers(server, os.path.join(root, "proc"))
    yield Note(f"{server.NO_IPV6}: logins by IPv6 open nothing")
    yield table.revoked()


def _rules(server: Tcpserver) -> Iterator[Finding]:
    """Rules that don't do what they seem to."""
    for address, rule in server.source.by_address.items():
        if rule.denies and address.startswith("="):
            reason = f'"{rule}" comes behind the rules for addresses, and so behind sapd\'s'
            yield Note(f"{server.source_path}: {reason}; refuse the address instead")
    for _, rule in server.source.useless:
        reason = f'"{rule}" is never matched by tcpserver, though sapd heeds it'
        yield Note(f'{server.source_path}: {reason}; write networks as "192.0.2."')


def _readers(server: Tcpserver, proc: str) -> Iterator[Finding]:
    """The running tcpservers that ask these rules, and whether their user may read them."""
    found = False
    for pid in os.listdir(proc) if os.path.isdir(proc) else ():
        if not pid.isdecimal():
            continue
        try:
            with open(os.path.join(proc, pid, "cmdline"), "rb") as file:
                words = os.fsdecode(file.read()).split("\0")
            uid = os.stat(os.path.join(proc, pid)).st_uid
        except OSError:  # it has ended
            continue
        if os.path.basename(words[0]) != "tcpserver" or f"-x{server.path}" not in _options(words):
            continue
        found = True
        why = table.why_unreadable_for(str(uid), server.path)
        if why is not None:
            reason = f"{why}: tcpserver closes every connection; chmod a+r {server.path}"
            yield Finding(errors.NO_PERMISSION, f"{server.path}: {reason}")
    if found:
        yield Finding(0, f"tcpserver asks {server.path}")
    else:
        yield Note(f"no tcpserver that runs asks {server.path}, by -x {server.path}")


def _options(words: list[str]) -> str:
    """A command line in which it does not matter whether a blank stands behind -x."""
    return " ".join(words).replace("-x ", "-x")
