"""The administrator's own entries in the text of sendmail's access map. They always win.

The format is that of cf/README, "Anti-Spam Configuration Control", and what was measured with
sendmail 8.17.
"""

import os
import re
import stat
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

from sapd import addresses, errors
from sapd.decision import Objection, Reason

_PERMITS = {b"RELAY", b"OK", b"SKIP"}
_GROUP = r"(0|[1-9a-f][0-9a-f]{0,3})"
_LOOKED_UP = re.compile(
    rf"(0|[1-9]\d{{0,2}})(\.(0|[1-9]\d{{0,2}})){{0,3}}|ipv6:{_GROUP}(:{_GROUP}){{0,7}}"
)
_OCTETS = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){0,3}\.?")
_GROUPS = re.compile(r"[0-9a-f]{1,4}(:[0-9a-f]{1,4}){0,6}:?")


class Entry(NamedTuple):
    """One entry of the administrator's about an address or a network.

    `is_looked_up` is whether sendmail looks such a key up. It never does with a network as CIDR,
    with brackets or with leading zeros, and only if so configured with `::`.
    """

    key: bytes
    value: bytes
    is_looked_up: bool

    @property
    def relays(self) -> bool:
        """Whether it opens the relay."""
        return self.value.upper() == b"RELAY"

    @property
    def permits(self) -> bool:
        """Whether it refuses nothing."""
        return self.value.upper() in _PERMITS

    def __str__(self) -> str:
        """Key and value, in one line."""
        return (self.key + b" " + self.value).decode("utf-8", "backslashreplace")


class _Prefix(NamedTuple):
    """The first `length` bits, as the number `head`, of addresses with `bits` bits."""

    bits: int
    length: int
    head: int


class Source:
    """The administrator's entries; `text` is the file's bytes."""

    def __init__(self, path: str | None, tag: str, text: bytes = b"") -> None:
        """Read `path`, or take `text` if that is None; raises `SapdError`."""
        self.text = text if path is None else read(path)
        if self.text and not self.text.endswith(b"\n"):
            self.text += b"\n"
        self._tag = tag.encode()

    @property
    def count(self) -> int:
        """The number of entries that makemap makes of the text: one a line, but for comments."""
        return sum(1 for line in self.text.split(b"\n") if line and not line.startswith(b"#"))

    @cached_property
    def _entries(self) -> dict[_Prefix, list[Entry]]:
        """The entries whose keys are addresses or networks; most of a big map may be others."""
        line = re.compile(
            rb"^((?:connect:|%s)?([\[\]0-9a-f:./]+|ipv6:[\[\]0-9a-f:./]+))[ \t\v\f\r]+(.*)$"
            % re.escape(self._tag),
            re.IGNORECASE | re.MULTILINE,
        )
        entries: dict[_Prefix, list[Entry]] = {}
        for found in line.finditer(self.text):
            key = found[2].decode("ascii").lower()
            prefix = _prefix(key)
            if prefix is not None:
                is_looked_up = _LOOKED_UP.fullmatch(key) is not None
                entry = Entry(found[1], found[3].strip(), is_looked_up)
                entries.setdefault(prefix, []).append(entry)
        return entries

    @cached_property
    def _lengths(self) -> list[int]:
        return sorted({prefix.length for prefix in self._entries}, reverse=True)

    def objection_to(self, address: str) -> Objection | None:
        """What the entries have against opening an address.

        As sendmail does, this takes the entry with the longest prefix; beyond sendmail, it also
        heeds refusals in spellings that sendmail never matches, because what they mean is plain.
        """
        if not self._entries:
            return None
        bits, number = addresses.to_bits(address)
        for length, entries in self._about(bits, number):
            for entry in entries:
                if not (entry.relays if length == bits else entry.permits):
                    return Objection(Reason.REFUSED, str(entry))
            if any(entry.is_looked_up for entry in entries):
                if length < bits:
                    return None
                return Objection(Reason.RELAYS_ALREADY, str(entries[0]))
        return None

    def permits(self, address: str) -> bool:
        """Whether the address relays by an entry for its network, if there is no objection."""
        return self.relays_already(address) is not None

    def relays_already(self, address: str) -> Objection | None:
        """The entry by which the address relays, if there is no objection of another kind."""
        about = self._about(*addresses.to_bits(address))
        looked_up = ([entry for entry in entries if entry.is_looked_up] for _, entries in about)
        for entry in next(filter(None, looked_up), []):
            if entry.relays:
                return Objection(Reason.RELAYS_ALREADY, str(entry))
        return None

    def _about(self, bits: int, number: int) -> Iterator[tuple[int, list[Entry]]]:
        """The entries that mean an address, the longest prefix first."""
        for length in self._lengths:
            prefix = _Prefix(bits, length, number >> max(bits - length, 0))
            if entries := self._entries.get(prefix):
                yield length, entries

    def address_keys(self) -> set[str]:
        """The keys of all entries about addresses and networks, in lower case."""
        return {entry.key.lower().decode() for found in self._entries.values() for entry in found}

    def keys_with_tag(self, tag: str) -> set[str]:
        """All keys with this tag, in lower case."""
        keys = re.findall(rb"^%s\S+" % tag.encode(), self.text, re.IGNORECASE | re.MULTILINE)
        return {key.lower().decode("latin-1") for key in keys}


def read(path: str) -> bytes:
    """The text of the administrator's file; raises `SapdError`."""
    try:
        with open(path, "rb", opener=_nonblocking) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(0, "it is not a regular file")
            return file.read()
    except OSError as error:
        status = errors.BAD_CONFIG
        if isinstance(error, PermissionError):
            status = errors.NO_PERMISSION
        reason = f"can't be read: {error.strerror}; the old map stays in force"
        raise errors.SapdError(status, path, reason) from None


def _nonblocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _prefix(key: str) -> _Prefix | None:
    """The addresses that a key of the access map means, None if it means no addresses."""
    text = key.removeprefix("ipv6:").strip("[]")
    if _OCTETS.fullmatch(text):
        try:
            octets = bytes(map(int, text.rstrip(".").split(".")))
        except ValueError:  # more than 255
            return None
        return _Prefix(32, 8 * len(octets), int.from_bytes(octets, "big"))
    if key.startswith("ipv6:") and _GROUPS.fullmatch(text):
        groups = text.rstrip(":").split(":")
        head = "".join(group.zfill(4) for group in groups)
        return _Prefix(128, 16 * len(groups), int(head, 16))
    try:
        network = addresses.parse_network(text, strict=False)
    except ValueError:
        return None
    bits, length = network.max_prefixlen, network.prefixlen
    return _Prefix(bits, length, int(network.network_address) >> (bits - length))
