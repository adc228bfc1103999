"""Whether Postfix's table can be built, and whether Postfix asks it where it should."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sapd import errors
from sapd.check import table
from sapd.check.finding import Finding, Note

if TYPE_CHECKING:
    from sapd.maps.live import Published
    from sapd.maps.postfix import Postfix

_EXAMPLE = "see sapd init --postfix"
_LISTS = ("smtpd_relay_restrictions", "smtpd_recipient_restrictions")
_ENDS = ("reject_unauth_destination", "defer_unauth_destination", "reject", "defer")


def findings(server: Postfix, published: Published | None) -> Iterator[Finding]:
    """What a run would meet at the table, and Postfix; see `maps.Map.findings`."""
    yield table.program(server.builder, "Postfix")
    kind = f"{server.type} table"
    spoilt = os.path.lexists(server.path) and not server.is_usable()
    yield table.live(server.path, published, kind, spoilt)
    types = _postconf(server, "-m").split()
    if types and server.type not in types:
        reason = f"this Postfix has no {server.type} tables, but {', '.join(types)}"
        remedy = f"install postfix-{server.type}, or set another in main.cf and here"
        yield Finding(errors.BAD_CONFIG, f"access.type: {reason}; {remedy}")
    lists = {name: _postconf(server, "-xh", name) for name in _LISTS}
    if not any(lists.values()):
        yield Note("Postfix was not compared: postconf does not tell its settings")
        return
    yield from _asking(server, lists)
    yield from _services(server)
    yield table.revoked()


def _asking(server: Postfix, lists: dict[str, str]) -> Iterator[Finding]:
    """Whether the table is asked, and before the client is refused."""
    named = f"{server.type}:{server.database}"
    setting = "smtpd_relay_restrictions"
    if not lists[setting]:  # as before Postfix 2.10
        setting = "smtpd_recipient_restrictions"
    words = _words(lists[setting])
    if named not in words:
        others = [word for word in words if word.endswith(f":{server.database}")]
        asks = f"asks {others[0]}, not {named}" if others else f"never asks {named}"
        reason = f"{setting} {asks}, so nobody is let in"
        yield Finding(errors.BAD_CONFIG, f"main.cf: {reason}; {_EXAMPLE}")
        return
    at = words.index(named)
    before = next((word for word in words[:at] if word in _ENDS), None)
    if before is not None:
        reason = f"{named} stands behind {before} in {setting}, and is never asked"
        yield Finding(errors.BAD_CONFIG, f"main.cf: {reason}; {_EXAMPLE}")
    elif at == 0 or words[at - 1] != "check_client_access":
        reason = f"{named} is not asked by check_client_access in {setting}"
        yield Finding(errors.BAD_CONFIG, f"main.cf: {reason}; {_EXAMPLE}")
    else:
        yield Finding(0, f"main.cf: {setting} asks {named}")
        if "permit_auth_destination" not in words[:at]:
            reason = f"a table that is missing or damaged would stop all mail, for {setting} has no"
            remedy = "permit_auth_destination before check_client_access"
            yield Note(f"main.cf: {reason} {remedy}; {_EXAMPLE}")


def _services(server: Postfix) -> Iterator[Finding]:
    """Services of master.cf with restrictions of their own, which replace those of main.cf."""
    named = f"{server.type}:{server.database}"
    for line in _postconf(server, "-P").splitlines():
        found = re.fullmatch(r"(\S+)/smtpd_relay_restrictions\s*=(.*)", line)
        if found and named not in _words(found[2]):
            reason = "has smtpd_relay_restrictions of its own, which don't ask sapd's table"
            yield Note(f"master.cf: {found[1]} {reason}; see sapd init --postfix master")


def _postconf(server: Postfix, *arguments: str) -> str:
    try:
        return server.postconf(*arguments).decode("utf-8", "replace").strip()
    except (OSError, errors.SapdError):
        return ""


def _words(restrictions: str) -> list[str]:
    return re.split(r"[,\s]+", restrictions.strip())
