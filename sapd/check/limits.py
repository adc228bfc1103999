"""Whether sendmail heeds the limits that sapd writes beside the open addresses."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from sapd import errors
from sapd.check.finding import Finding, Note
from sapd.check.look import Look
from sapd.config import LIMITS, Access

_FEATURES = {  # of sendmail's, that look a limit up
    "client_rate": "ratecontrol",
    "client_connections": "conncontrol",
    "greet_pause": "greet_pause",
}


def findings(access: Access, cf: str) -> Iterator[Finding]:
    """Whether the rules in sendmail.cf look each limit up, and in the map that sapd writes."""
    text = Look().text(cf)
    configured = dict(access.limits)
    for setting, tag in LIMITS.items():
        if tag not in configured:
            continue
        if text == "":
            reason = f"is not known to be heeded, because {cf} can't be read"
            yield Note(f"policy.{setting}: {reason}")
        elif re.search(rf"(?m)^R.*\b{tag}\b", text) is None:
            feature = f"FEATURE(`{_FEATURES[setting]}')"
            remedy = f"add {feature} to sendmail.mc, as examples/sendmail/limits.mc"
            reason = f"has no effect, for {cf} does not look {tag} up"
            yield Finding(errors.BAD_CONFIG, f"policy.{setting}: {reason}; {remedy}")
        elif (asked := _asked(text)) and not _same(asked, access.database):
            reason = f"has no effect, for sendmail looks {tag} up in {asked} only"
            remedy = f"remove it, or keep that one instead of {access.database}"
            yield Finding(errors.BAD_CONFIG, f"policy.{setting}: {reason}; {remedy}")
        else:
            counted = f", and counts over {_window(text)}" if tag == "ClientRate" else ""
            yield Finding(0, f"policy.{setting}: sendmail looks {tag} up{counted}")


def _asked(text: str) -> str | None:
    """The database behind the map `access`, in which the rules look; None if it is no one file."""
    found = re.findall(r"(?m)^Kaccess[ \t]+(?:hash|btree)\b.*[ \t](/\S+)", text)
    return f"{found[-1].removesuffix('.db')}.db" if found else None


def _same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _window(text: str) -> str:
    """The time over which sendmail counts a client's connections; its default is a minute."""
    found = re.findall(r"(?mi)^O ConnectionRateWindowSize[ \t]*=[ \t]*(\w+)", text)
    return found[-1] if found else "60s"
