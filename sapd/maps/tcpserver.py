"""tcpserver's rules (qmail): the administrator's, then sapd's, made by tcprules.

The format is that of tcprules(1), and what it makes is a cdb file. Measured with
ucspi-tcp 0.88: each connection opens the file; a rule for an address beats those for networks, and
of two for the same address the first holds. There is no IPv6.

Failure contract. The new rules are built beside the live ones, read back, and renamed onto them:
there are either the old rules or the new ones. Leftovers of a killed run are overwritten.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from sapd import addresses, child, errors, files
from sapd.decision import Objection, Reason
from sapd.maps import Map, builder, live, only
from sapd.maps.access import read
from sapd.maps.databases import cdb_records

if TYPE_CHECKING:
    from sapd.check.finding import Finding
    from sapd.maps.live import Published
    from sapd.toml_table import Table

MODE = 0o644
"""Of rules that were not there before: tcpserver reads them as a user of its own."""

_QUOTES = [chr(code) for code in (34, *range(33, 256))]
_READABLE = 0o444
_WORDS = {  # tcprules has its own for the system's errors
    "out of disk space": errors.IO_ERROR,
    "disk quota exceeded": errors.IO_ERROR,
    "input/output error": errors.IO_ERROR,
    "access denied": errors.NO_PERMISSION,
    "read-only file system": errors.CANT_CREATE,
}

_RULE = re.compile(r"([^:#][^:]*|):((?:allow|deny).*?)[ \t]*")
_RELAYS = re.compile(r",RELAYCLIENT=")
_RANGE = re.compile(r"((?:\d+\.)*)(\d+)-(\d+)(\.?|(?:\.\d+)+\.?)")
_SPELLING = re.compile(r"(\d+(?:\.\d+){0,3})\.?(?:/(\d+))?")


class Rule(NamedTuple):
    """One of the administrator's rules: the address that it is for, and its instructions."""

    address: str
    instructions: str

    @property
    def denies(self) -> bool:
        """Whether it refuses the connection."""
        return self.instructions.startswith("deny")

    @property
    def relays(self) -> bool:
        """Whether it lets the client relay."""
        return not self.denies and _RELAYS.search(self.instructions) is not None

    def __str__(self) -> str:
        """The rule as it is written, but for ranges."""
        return f"{self.address}:{self.instructions}"


class Rules:
    """The administrator's rules; `text` is the file's bytes."""

    def __init__(self, text: bytes) -> None:
        """Read them."""
        self.text = text
        if self.text and not self.text.endswith(b"\n"):
            self.text += b"\n"
        self.by_address: dict[str, Rule] = {}
        self.useless: list[tuple[addresses.Network, Rule]] = []
        for line in self.text.decode("latin-1").split("\n"):
            found = _RULE.fullmatch(line)
            for address in _expanded(found[1]) if found else ():
                rule = Rule(address, found[2])  # type: ignore[index]
                self.by_address.setdefault(address, rule)
                if rule.denies and (network := _meant(address)) is not None:
                    self.useless.append((network, rule))

    def for_network_of(self, address: str) -> Rule | None:
        """The rule that tcpserver takes for an IPv4 address without one of its own."""
        network = address
        while network:
            network = network.rpartition(".")[0]
            rule = self.by_address.get(f"{network}." if network else "")
            if rule is not None:
                return rule
        return None

    def meant_for(self, address: str) -> Rule | None:
        """A refusal in a spelling that tcpserver never matches, but whose meaning is plain."""
        if not self.useless:
            return None
        bits, number = addresses.to_bits(address)
        rules = (rule for net, rule in self.useless if addresses.lies_in(net, bits, number))
        return next(rules, None)


class Tcpserver(Map):
    """The rules in a cdb file that tcpserver reads."""

    NO_IPV6 = "tcpserver has no IPv6"

    def __init__(self, source: str, database: str, builder: str = "/usr/bin/tcprules") -> None:
        """`source` is the administrator's text, `database` what is made of it."""
        self.source_path = source
        self.path = database
        self.builder = builder

    @classmethod
    def options_of(cls, access: Table, policy: Table) -> dict[str, Any]:
        """See `Map`."""
        only("tcpserver", access, policy, "source", "database", "builder")
        if not access.has("source"):
            remedy = "name the text of your own rules"
            access.refuse(
                "source", f'is missing, which access.server = "tcpserver" needs; {remedy}'
            )
        source = access.path("source")
        return {
            "source": source,
            "database": access.path("database", source + ".cdb"),
            "builder": access.path("builder", "/usr/bin/tcprules"),
        }

    def files(self) -> dict[str, str]:
        """See `Map`."""
        return {
            "access.source": self.source_path,
            "access.database": self.path,
            "access.builder": self.builder,
        }

    def watched(self) -> list[str]:
        """See `Map`."""
        return [self.source_path, self.path]

    def trial(self, database: str) -> Tcpserver:
        """Rules of the same source at another path, to see whether they can be built."""
        return Tcpserver(self.source_path, database, self.builder)

    @cached_property
    def source(self) -> Rules:
        """The administrator's rules; raises `SapdError`."""
        return Rules(read(self.source_path))

    def objection_to(self, address: str) -> Objection | None:
        """See `Map`."""
        if ":" in address:
            return Objection(Reason.UNSUPPORTED, self.NO_IPV6)
        own = self.source.by_address.get(address)
        if own is not None:
            reason = Reason.RELAYS_ALREADY if own.relays else Reason.REFUSED
            return Objection(reason, str(own))
        rule = self.source.meant_for(address) or self.source.for_network_of(address)
        return Objection(Reason.REFUSED, str(rule)) if rule and rule.denies else None

    def objects_by(self) -> bytes:
        """See `Map`."""
        return self.source.text

    def permits(self, address: str) -> bool:
        """See `Map`."""
        rule = None if ":" in address else self.source.for_network_of(address)
        return rule is not None and rule.relays

    def wanted(self, open_until: Mapping[str, float]) -> bytes:
        """A rule for each address: what the administrator's rule for its network sets, and more.

        tcpserver takes one rule alone. Without what that one sets, an open address would pass by
        the administrator's virus scanner, for instance.
        """
        lines = []
        for address in sorted(open_until):
            rule = self.source.for_network_of(address)
            instructions = "allow" if rule is None else rule.instructions
            if not _RELAYS.search(instructions):
                instructions += ',RELAYCLIENT=""'
            lines.append(f"{address}:{instructions}\n")
        return "".join(lines).encode("latin-1")

    def summary(self, opened: int) -> str:
        """See `Map`."""
        return f"{len(self.source.by_address)} own rules, {super().summary(opened)}"

    def is_published(self, wanted: bytes, published: Published | None) -> bool:
        """See `Map`."""
        return live.is_published(self.path, self._digest(wanted), published)

    def _digest(self, wanted: bytes) -> str:
        return live.digest(self.source.text, wanted)

    def publish(self, wanted: bytes, before: Published | None = None) -> Published:
        """See `Map`."""
        return live.published_despite(lambda folder: self._publish(wanted, before, folder))

    def _publish(self, wanted: bytes, before: Published | None, folder: str | None) -> Published:
        try:
            with self.built(wanted, folder) as new:
                if new.elsewhere:
                    return live.put_in_place(
                        new, self.path, self._digest(wanted), MODE, None, before
                    )
                mode = self._take_over_rights(new.fd)
                return live.rename_into_place(new, self.path, self._digest(wanted), mode)
        except OSError as error:
            raise errors.cannot_write(self.path, error) from None

    @contextlib.contextmanager
    def built(self, wanted: bytes, folder: str | None = None) -> Iterator[live.New]:
        """Build the new rules, beside the live ones or in a private folder, and read them back.

        Raises `SapdError`, or OSError.
        """
        name = f"{os.path.basename(self.path)}.sapd-new"
        path = os.path.join(folder or os.path.dirname(self.path), name)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            text = self.source.text + wanted
            done = builder.run(self.builder, [path, f"{path}.tmp"], text, 2, "ucspi-tcp")
            if done.status != 0:
                raise self._complaint(done)
            new = builder.open_made(path, self.builder, self.path)
            try:
                self._check(path, wanted)
                if not files.same_file(path, new):
                    reason = f"was replaced while it was made; {builder.OLD_STANDS}"
                    raise errors.SapdError(errors.CANT_CREATE, path, reason)
                yield live.New(new, path, folder is not None)
            finally:
                os.close(new)
        finally:
            for leftover in (path, f"{path}.tmp"):
                with contextlib.suppress(OSError):
                    os.unlink(leftover)

    def _check(self, path: str, wanted: bytes) -> None:
        """Read new rules back; raises `SapdError` if one of sapd's is missing, or OSError."""
        made = _relaying(_records(path))
        expected = {line.partition(":")[0] for line in wanted.decode("latin-1").split("\n")[:-1]}
        if not expected <= made:
            counts = f"tcprules made {len(expected & made)} rules of {len(expected)}"
            reason = f"{counts}; {builder.OLD_STANDS}"
            raise errors.SapdError(errors.MAKEMAP_FAILED, self.path, reason)

    def _complaint(self, done: child.Ended) -> errors.SapdError:
        subject = self.source_path if b"unable to parse" in done.said else self.path
        found = builder.complaint(self.builder, done, subject)
        for words, status in _WORDS.items():
            if words in found.reason:
                return errors.SapdError(status, subject, found.reason)
        return found

    def _take_over_rights(self, new: int) -> int:
        """Give the new file the old one's owner and group; its mode, which lets any user read.

        Raises OSError.
        """
        try:
            before = os.lstat(self.path)
        except FileNotFoundError:
            return MODE
        about = os.fstat(new)
        if (about.st_uid, about.st_gid) != (before.st_uid, before.st_gid):
            os.fchown(new, before.st_uid, before.st_gid)
        return stat.S_IMODE(before.st_mode) | _READABLE

    def with_live_entries(
        self, lets_in: Collection[str], before: Published | None
    ) -> Tcpserver | None:
        """See `Map`."""
        if before is None or not live.is_untouched(self.path, before):
            return None
        other = self.trial(self.path)
        rules = (
            f"{address}:{_instructions(value)}\n"
            for address, value in self._live().items()
            if address not in lets_in
        )
        other.source = Rules("".join(rules).encode("latin-1"))
        return other

    def _live(self) -> dict[str, bytes]:
        """The rules in force; raises `SapdError`."""
        if not os.path.lexists(self.path):
            return {}
        try:
            return _records(self.path)
        except OSError as error:
            reason = f"can't be read: {error.strerror}"
            raise errors.SapdError(errors.status_of(error), self.path, reason) from None

    def published_now(self, now: float, candidates: Collection[str]) -> Iterable[str]:
        """See `Map`."""
        found = _relaying(self._live()) - self.source.by_address.keys()
        return {address for address in found if _is_address(address)}

    def findings(self, published: Published | None, scratch: str, root: str) -> Iterator[Finding]:
        """See `Map`."""
        from sapd.check import tcpserver

        return tcpserver.findings(self, published, scratch, root)


def _expanded(address: str) -> Iterator[str]:
    """The addresses that a rule's address stands for: 192.0.2.7-9 is three, 10.2-3. is two."""
    found = _RANGE.fullmatch(address)
    if found is None:
        yield address
        return
    for number in range(int(found[2]), min(int(found[3]), 255) + 1):
        yield f"{found[1]}{number}{found[4]}"


def _is_address(text: str) -> bool:
    return addresses.parse_address(text.encode("ascii", "replace")) is not None


def _meant(address: str) -> addresses.Network | None:
    """The network that is meant by 192.0.2.0/24 or 192.0.2, which tcpserver never matches."""
    found = _SPELLING.fullmatch(address)
    if found is None:
        return None
    octets = [int(octet) for octet in found[1].split(".")]
    if address == ".".join(map(str, octets)) + ("." if len(octets) < 4 else ""):
        return None  # what tcpserver looks up
    padded = ".".join(map(str, [*octets, 0, 0, 0][:4]))
    try:
        return addresses.parse_network(f"{padded}/{found[2] or 8 * len(octets)}", strict=False)
    except ValueError:
        return None


def _records(path: str) -> dict[str, bytes]:
    """{address: instructions} in a cdb file, the first of equal ones; raises OSError.

    tcprules writes D for deny, +NAME=VALUE for each variable, each with a zero byte behind it.
    """
    with open(path, "rb") as file:
        content = file.read()
    found: dict[str, bytes] = {}
    for _, key, value in cdb_records(content):
        found.setdefault(key.decode("latin-1"), value)
    return found


def _instructions(value: bytes) -> str:
    """A record's value as tcprules reads it."""
    parts = value.decode("latin-1").split("\0")[:-1]
    found = "allow"
    if parts and parts[0] == "D":
        found, parts = "deny", parts[1:]
    for part in parts:
        name, _, setting = part.removeprefix("+").partition("=")
        quote = next(mark for mark in _QUOTES if mark not in setting)
        found += f",{name}={quote}{setting}{quote}"
    return found


def _relaying(records: Mapping[str, bytes]) -> set[str]:
    return {
        address
        for address, value in records.items()
        if value[:1] != b"D" and b"\0+RELAYCLIENT=" in b"\0" + value
    }
