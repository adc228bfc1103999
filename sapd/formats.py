"""A log line turned into a login, a logout, a connect, or nothing. Pure.

What a server writes is data: one TOML file a format in `popformats/`. This module knows only how
a line is framed: by syslog (RFC 3164's traditional form with either stamp, or RFC 5424 section 6),
or by the server's own file.

A line is evidence only if the POP server wrote every byte of it that matters (compare
CVE-2001-1075): patterns are bytes, must match the whole line, and stand behind the program's name,
so that no text which a stranger can choose, in a sender's address or an account that does not
exist, is taken for a login.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from functools import cached_property
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any, NamedTuple

from sapd.timestamps import STAMPS, Clock

LONGEST = 1000
"""Bytes. Loggers cut long messages, and a cut line may end where a stranger wants it to end."""

_FOLDER = Path(__file__).with_name("popformats")
_SD_ELEMENT = rb'\[[^\s=\]"]+(?: [^\s=\]"]+="(?:[^"\\\]]|\\.)*")*\]'


class Event(NamedTuple):
    """What a line says; `time` is UTC epoch seconds, `address` as `ipaddress` writes it."""

    event: str
    format: str
    address: str
    account: str
    time: float


class _Pattern(NamedTuple):
    needle: bytes
    event: str
    format: str
    line: re.Pattern[bytes]


def names() -> list[str]:
    """The known formats, in alphabetical order."""
    return sorted(file.stem for file in _FOLDER.glob("*.toml"))


def _load(name: str) -> list[_Pattern]:
    wanted = _read(name)
    programs = b"|".join(re.escape(program.encode()) for program in wanted["programs"])
    either = b"(?P<stamp>" + STAMPS["traditional"] + b"|" + STAMPS["rfc3339"] + b")"
    heads = [
        either + rb" \S+ (?:" + programs + rb")\[\d+\]: ",
        rb"<\d{1,3}>1 (?P<stamp>" + STAMPS["rfc3339"] + rb") \S+ (?:" + programs + rb") \d+ \S+ "
        rb"(?:-|(?:" + _SD_ELEMENT + rb")+) {1,2}",
    ]
    for head in wanted.get("own_file", []):
        own = head.encode()
        for shape, pattern in STAMPS.items():
            own = own.replace(b"{%s}" % shape.encode(), b"(?P<stamp>" + pattern + b")")
        heads.append(own)
    return [
        _Pattern(
            line["needle"].encode(),
            line["event"],
            name,
            re.compile(head + line["pattern"].encode()),
        )
        for line in wanted["line"]
        for head in heads
    ]


def _read(name: str) -> dict[str, Any]:
    with (_FOLDER / f"{name}.toml").open("rb") as file:
        read = tomllib.load(file)
    return {**_read(read["inherit"]), **read} if "inherit" in read else read


def parse_address(text: bytes) -> str | None:
    """The address in its usual spelling, an IPv4-mapped one as IPv4; None if it is none."""
    try:
        ip = ip_address(text.decode("ascii"))
    except ValueError:
        return None
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return str(mapped or ip)


class Recogniser:
    """Recognises the lines of the given formats; of two that fit a line, the first wins.

    `unusable` counts lines that fit a pattern but hold no valid address or no valid time.
    """

    def __init__(self, formats: Sequence[str], clock: Clock) -> None:
        """Take the formats, whose names must be among `names()`."""
        self._formats = formats
        self._clock = clock
        self.unusable = 0

    @cached_property
    def _by_needle(self) -> dict[bytes, list[_Pattern]]:
        """The patterns, compiled when there is a line to look at: in most minutes there is none."""
        found: dict[bytes, list[_Pattern]] = {}
        for name in self._formats:
            for pattern in _load(name):
                found.setdefault(pattern.needle, []).append(pattern)
        return found

    def recognise(self, line: bytes) -> Event | None:
        """What one line says, its newline included or, at the end of a rotated log, missing.

        Without the newline the line may be half a line, so it counts only if something follows
        the address: `192.0.2.1` may have been going to be `192.0.2.10`.
        """
        whole, text = line.endswith(b"\n"), line.removesuffix(b"\n")
        if len(text) >= LONGEST:
            return None
        for needle, patterns in self._by_needle.items():
            if needle not in text:
                continue
            for pattern in patterns:
                found = pattern.line.fullmatch(text)
                if found is None:
                    continue
                if not whole and found.end("address") == len(text):
                    return None
                address = parse_address(found["address"])
                time = self._clock.epoch(found["stamp"])
                if address is None or time is None:
                    self.unusable += 1
                    return None
                account = found["account"].decode("utf-8", "surrogateescape")
                return Event(pattern.event, pattern.format, address, account, time)
        return None

    def events(self, block: bytes) -> Iterator[Event]:
        """The events of a block of whole lines, in the order of its lines.

        Looks for the needles in the block at once, and at the lines that hold one: in a mail log
        shared with an MTA few lines do.
        """
        starts = set()
        for needle in self._by_needle:
            at = block.find(needle)
            while at >= 0:
                starts.add(block.rfind(b"\n", 0, at) + 1)
                end = block.find(b"\n", at)
                at = block.find(needle, end) if end >= 0 else -1
        for start in sorted(starts):
            end = block.find(b"\n", start)
            event = self.recognise(block[start : end + 1] if end >= 0 else block[start:])
            if event is not None:
                yield event
