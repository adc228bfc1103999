"""sendmail's access map: a database made by makemap of the administrator's text and sapd's.

Its entries relay, or, with `self_closing`, say until when (examples/sendmail/self-closing.mc):
`sapd:ADDRESS`, the end in epoch seconds, and `Connect:ADDRESS`, OK, which exempts from DNS
blocklists and never relays.

Formats and behaviour are those of cf/README ("Anti-Spam Configuration Control"), makemap(8), and
what was measured with sendmail 8.17.

Failure contract. The new database is built beside the live one, as NAME.sapd-new and its suffix,
and checked; a leftover of a killed run is overwritten by the next. Nothing else is touched before
`live` puts it in place. On any failure before that the old database stands; so it does if it is of
another kind than the new one, which sendmail could not read.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from sapd import addresses, child, defaults, errors, files
from sapd.maps import LIMITS, Map, databases, live, sendmail_cf
from sapd.maps.access import Source

if TYPE_CHECKING:
    from sapd.check.finding import Finding
    from sapd.decision import Objection
    from sapd.maps.live import Published
    from sapd.toml_table import Table

MAKEMAP_LIMIT = 60.0
"""Seconds that makemap may take, and more for a large source (a million entries: about ten)."""

_LARGE = 1024 * 1024  # bytes of text
_SLOW = 500_000  # bytes of text a second, at least


RELAYS, ENDS, EXEMPTS = "RELAY", "sapd:", "Connect:"
"""The value of an entry that relays; the tags of those that close by themselves."""


class Sendmail(Map):
    """A database that sendmail reads.

    `tags` has the tag of sendmail's entries for each limit, by its setting.
    """

    tags: ClassVar = dict(zip(LIMITS, ("ClientRate", "ClientConn", "GreetPause"), strict=True))

    def __init__(
        self,
        database: str,
        source: str | None = None,
        makemap: str = "/usr/sbin/makemap",
        tag: str = "Connect:",
        limits: Mapping[str, int] | None = None,
        type: str = "hash",
        cf: str = sendmail_cf.DEFAULT,
        self_closing: bool = False,
    ) -> None:
        """`database` ends as its `type` demands, one of `sendmail_cf.SUFFIXES`.

        A `source` of None makes a separate map of sapd's entries alone. `limits` has further
        settings for each open address, by their names in [policy]. `cf` is sendmail's own
        configuration. With `self_closing` the entries have an end, and `tag` no meaning.
        """
        self.path = database
        self.type = type
        self.cf = cf
        self.closes_by_itself = self_closing
        # The rules for a separate map exempt from blocklists whoever has an end in it.
        self.exempts = self_closing and source is not None
        self.makemap = makemap
        self.limits = {self.tags[setting]: value for setting, value in (limits or {}).items()}
        self.source_path = source
        self.belongs_to = None if source is not None else os.path.dirname(database)
        self.tag = ENDS if self_closing else tag
        self._base = database.removesuffix(sendmail_cf.SUFFIXES[type])
        self._new = f"{self._base}.sapd-new{sendmail_cf.SUFFIXES[type]}"

    @classmethod
    def options_of(cls, access: Table, policy: Table) -> dict[str, Any]:
        """See `Map`."""
        access.only(
            *("server", "type", "source", "database", "makemap", "tag", "cf", "self_closing")
        )
        cf = access.path("cf", sendmail_cf.DEFAULT)
        kind, database = _database(access, cf)
        text = database.removesuffix(sendmail_cf.SUFFIXES[kind])
        source = None
        if access.has("source"):
            source = access.path("source")
        elif not access.has("database"):
            source = text
        elif os.path.exists(text):
            # Without it a run would replace the administrator's entries by sapd's alone.
            access.refuse("source", f'is missing; set source = "{text}", or name another database')
        if access.flag("self_closing") and access.has("tag"):
            access.refuse("tag", "has no effect with self_closing; remove it")
        tag = access.text("tag", "Connect:")
        if not re.fullmatch(r"([A-Za-z][A-Za-z0-9_-]*:)?", tag):
            access.refuse("tag", f'is "{tag}"; it is a word and a colon, as "Connect:", or empty')
        usual = next(filter(os.path.exists, defaults.MAKEMAP), defaults.MAKEMAP[0])
        return {
            "database": database,
            "source": source,
            "makemap": access.path("makemap", usual),
            "tag": tag,
            "limits": _limits(policy, separate=source is None),
            "type": kind,
            "cf": cf,
            "self_closing": access.flag("self_closing"),
        }

    def files(self) -> dict[str, str]:
        """See `Map`."""
        found = {"access.database": self.path, "access.makemap": self.makemap}
        return found if self.source_path is None else {"access.source": self.source_path, **found}

    def watched(self) -> list[str]:
        """See `Map`. The database's text must not be there unless it is the source.

        sendmail's configuration says of which type the map is.
        """
        found = self.files()
        del found["access.makemap"]
        return list(dict.fromkeys([*found.values(), self._base, self.cf]))

    def trial(self, database: str) -> Sendmail:
        """A map of the same source at another path, to see whether it can be built."""
        settings = (self.type, self.cf, self.closes_by_itself)
        return Sendmail(database, self.source_path, self.makemap, self.tag, None, *settings)

    @cached_property
    def source(self) -> Source:
        """The administrator's entries; raises `SapdError`."""
        return Source(self.source_path, self.tag)

    def objection_to(self, address: str) -> Objection | None:
        """See `Map`.

        With `self_closing` an address whose network relays has no entries: their OK would hide
        the network's RELAY from sendmail.
        """
        found = self.source.objection_to(address)
        if found is None and self.closes_by_itself:
            return self.source.relays_already(address)
        return found

    def permits(self, address: str) -> bool:
        """See `Map`."""
        return self.source.permits(address)

    def wanted(self, open_until: Mapping[str, float]) -> bytes:
        """The lines that let addresses relay, or say until when, and those of each one's limits.

        sendmail looks an IPv6 client up as eight groups without padding, or, where it is
        configured with UseCompressedIPv6Addresses, in the usual short form; both are written,
        unless the administrator wrote one. Nor is a limit written where he limited a network.
        """
        limits = {f"{tag}:": str(value) for tag, value in self.limits.items()}
        taken = self.source.address_keys()
        for tag in limits:
            taken |= self.source.keys_with_tag(tag)
        lines = []
        for address, end in sorted(open_until.items()):
            tags = {**self._tags(end), **limits}
            lines += [
                f"{tag}{key}\t{word}\n"
                for key in _keys(address)
                for tag, word in tags.items()
                if f"{tag}{key}".lower() not in taken
                and (tag not in limits or not any(part in taken for part in _networks(tag, key)))
            ]
        return "".join(lines).encode("ascii")

    def _tags(self, end: float) -> dict[str, str]:
        """{tag: value} of the entries for an address that is open until `end`."""
        if not self.closes_by_itself:
            return {self.tag: RELAYS}
        return {ENDS: f"{end:.0f}", **({EXEMPTS: "OK"} if self.exempts else {})}

    def summary(self, opened: int) -> str:
        """See `Map`."""
        return f"{self.source.count} own entries, {opened} open addresses"

    def is_published(self, wanted: bytes, published: Published | None) -> bool:
        """See `Map`."""
        return (
            published is not None
            and published.wanted == live.digest(self.source.text, wanted)
            and live.is_untouched(self.path, published)
        )

    def publish(self, wanted: bytes, before: Published | None = None) -> Published:
        """See `Map`. Where the disk has no room the new database is built in memory."""
        return live.published_despite(lambda folder: self._publish(wanted, before, folder))

    def _publish(
        self, wanted: bytes, before: Published | None, folder: str | None = None
    ) -> Published:
        text = live.digest(self.source.text, wanted)
        try:
            with self.built(wanted, folder) as new:
                mode = self._prepare(new.fd)
                published = live.put_in_place(
                    new, self.path, text, mode, None, before, self._examine
                )
                return published._replace(entries=self._expected(wanted))
        except OSError as error:
            raise errors.cannot_write(self.path, error) from None

    def _prepare(self, new: int) -> int:
        """The mode of a map that is missing so far, and its owner, if makemap doesn't care.

        Whoever may read a map may hold its lock. sendmail may read what belongs to its own user,
        to whom makemap gives it if root runs; of another user's files only what all may read
        (test_readable.py).
        """
        if self.source_path is None:
            is_sendmails = os.fstat(new).st_uid not in (0, os.geteuid())
            return 0o640 if is_sendmails else 0o644
        if self.type != "cdb":
            return 0o640
        text = os.stat(self.source_path)
        os.fchown(new, text.st_uid, text.st_gid)
        return stat.S_IMODE(text.st_mode) & 0o644

    def _examine(self, fd: int) -> None:
        """Refuse to write over a database of another type; `fd` is open on the live one."""
        kind = databases.kind_of(fd)
        if kind not in (None, self.type):
            reason = f"is a {kind} database and is not replaced by a {self.type} one"
            remedy = f'set access.type = "{kind}", or move it away'
            raise errors.SapdError(errors.BAD_CONFIG, self.path, f"{reason}; {remedy}")

    @contextlib.contextmanager
    def built(self, wanted: bytes, folder: str | None = None) -> Iterator[live.New]:
        """Build the new database, beside the live one or in a private folder, and check it.

        It is open meanwhile, and locked: a makemap that outlived a killed run may wake up and begin
        to write there. Raises `SapdError` if makemap refuses the text, or OSError.
        """
        path = self._new if folder is None else os.path.join(folder, os.path.basename(self._new))
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            self._make(path, self.source.text + wanted)
            new = files.open_in_place(path, writing=True)
            try:
                if not live.has_lock(new, fcntl.LOCK_SH, live.LOCK_WAIT):
                    raise self._failed(f"another program holds the lock of {path}")
                self._check(path, wanted)
                if not files.same_file(path, new):
                    reason = "was replaced while it was made; the old map stays in force"
                    raise errors.SapdError(errors.CANT_CREATE, path, reason)
                yield live.New(new, path, folder is not None)
            finally:
                os.close(new)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def _make(self, path: str, text: bytes) -> None:
        # Without a cache of that size makemap takes eight times as long over a million entries.
        cache = ["-c", str(4 * len(text))] if len(text) > _LARGE else []
        done = self._run([*cache, self.type, path], text, 2)
        if done.status != 0:
            raise self._complaint(done, path)

    def _check(self, path: str, wanted: bytes) -> None:
        """Count what makemap made of the text, and look for each of sapd's own entries in it."""
        made = self._run(["-u", self.type, path], b"", 1).said.lower().splitlines()
        expected = self._expected(wanted)
        if len(made) != expected:
            raise self._failed(f"makemap made {len(made)} entries of {expected}")
        if missing := set(wanted.lower().splitlines()) - set(made):
            raise self._failed(f"the new map lacks {len(missing)} of sapd's entries")

    def _expected(self, wanted: bytes) -> int:
        """How many entries the map has with these of sapd's."""
        return self.source.count + wanted.count(b"\n")

    def _failed(self, reason: str) -> errors.SapdError:
        reason = f"{reason}; the old map stays in force"
        return errors.SapdError(errors.MAKEMAP_FAILED, self.path, reason)

    def _run(
        self, arguments: Sequence[str], text: bytes, stream: int, limit: float | None = None
    ) -> child.Ended:
        # As root makemap insists on a sendmail.cf, from which it wants no more than TrustedUser.
        exists = os.path.exists(self.cf)
        options = ["-C", self.cf if exists else os.devnull]
        if exists and self.cf == sendmail_cf.DEFAULT:
            options = []  # its own default, which an ordinary user need not be able to read
        limit = limit or MAKEMAP_LIMIT + len(self.source.text) / _SLOW
        try:
            return child.run([self.makemap, *options, *arguments], text, stream, limit)
        except TimeoutError:
            reason = f"took longer than {limit:.0f} s; the old map stays in force"
            raise errors.SapdError(errors.MAKEMAP_FAILED, self.makemap, reason) from None
        except OSError as error:
            if error.filename is None:  # not the program: the text found no room
                raise
            reason = f"can't be run: {error.strerror}; it comes with sendmail (sendmail-bin)"
            raise errors.SapdError(errors.MAKEMAP_FAILED, self.makemap, reason) from None

    def _complaint(self, done: child.Ended, path: str) -> errors.SapdError:
        said = done.said.decode("utf-8", "backslashreplace").splitlines()
        said = [line for line in said if line and not line.startswith("WARNING:")]
        reason = said[0] if said else f"makemap ended with status {done.status}"
        reason = reason.removeprefix("makemap: ").removeprefix(f"{path}: ")
        subject = (reason.startswith("line ") and self.source_path) or self.path
        more = f" (and {len(said) - 1} more)" if len(said) > 1 else ""
        status = errors.status_of_words(reason)  # makemap calls all of them 73
        if status is None and reason.startswith("line "):  # for cdb a duplicate is 74
            status = errors.MAKEMAP_FAILED
        if status is None:
            known = (errors.CANT_CREATE, errors.IO_ERROR, errors.NO_PERMISSION)
            status = done.status if done.status in known else errors.MAKEMAP_FAILED
        reason = f"{reason}{more}; makemap refused it, the old map stays in force"
        return errors.SapdError(status, subject, reason)

    def with_live_entries(
        self, lets_in: Collection[str], before: Published | None
    ) -> Sendmail | None:
        """See `Map`. A dump that fails may end early, so the entries are counted."""
        if self.source_path is None or before is None or not live.is_untouched(self.path, before):
            return None
        dump = self._dump()
        if len(dump) != before.entries:
            return None
        limits = {
            setting: self.limits[tag] for setting, tag in self.tags.items() if tag in self.limits
        }
        settings = (self.type, self.cf, self.closes_by_itself)
        other = Sendmail(self.path, None, self.makemap, self.tag, limits, *settings)
        other.belongs_to, other.exempts = None, self.exempts
        own = set(other.wanted(dict.fromkeys(lets_in, 0.0)).lower().splitlines())
        ended = ENDS.encode() if self.closes_by_itself else b"\n"  # the ends differ
        entries = (
            line for line in dump if line.lower() not in own and not line.lower().startswith(ended)
        )
        other.source = Source(None, self.tag, b"\n".join(entries))
        return other

    def _dump(self) -> list[bytes]:
        """The entries of the live map, keys in lower case; raises `SapdError`."""
        if not os.path.lexists(self.path):
            return []
        dump = self._run(["-u", self.type, self.path], b"", 1, live.LOCK_WAIT)
        if dump.status != 0:
            reason = f"can't be read; makemap ended with status {dump.status}"
            raise errors.SapdError(errors.MAKEMAP_FAILED, self.path, reason)
        return dump.said.splitlines()

    def published_now(self, now: float, candidates: Collection[str]) -> Iterable[str]:
        """See `Map`."""
        own = self.source.address_keys()
        prefix = self.tag.lower().encode()
        found = set()
        for line in self._dump():
            key, _, value = line.lower().partition(b"\t")
            if not key.startswith(prefix) or not self._lets_in(value.strip(), now):
                continue
            if key.decode("latin-1") not in own:
                text = key.removeprefix(prefix).removeprefix(b"ipv6:")
                if (address := addresses.parse_address(text)) is not None:
                    found.add(address)
        return found

    def _lets_in(self, value: bytes, now: float) -> bool:
        if self.closes_by_itself:
            return value.isdigit() and now < int(value[:20])
        return value == b"relay"

    def findings(self, published: Published | None, scratch: str, root: str) -> Iterator[Finding]:
        """See `Map`."""
        from sapd.check import sendmail

        return sendmail.findings(self, published, scratch, root)


def _database(access: Table, cf: str) -> tuple[str, str]:
    """The map's type and the database's path: as set, else what sendmail's configuration says."""
    text = sendmail_cf.read(cf)
    if access.has("database"):
        path = access.path("database")
        named = sendmail_cf.of_database(text, path)
    else:
        path = ""
        named = [found for name, found in sendmail_cf.keyed_maps(text).items() if name == "access"]
    kinds = [found.kind for found in named if found.kind in sendmail_cf.SUFFIXES]
    default = kinds[-1] if kinds else "cdb" if path.endswith(".cdb") else "hash"
    if named and not kinds and not access.has("type"):
        words = f"its map {named[-1].name} is of class {named[-1].kind}"
        access.refuse("type", f"can't be taken from {cf}: {words}; set database and type")
    kind = access.one_of("type", sendmail_cf.SUFFIXES, default)
    suffix = sendmail_cf.SUFFIXES[kind]
    if not path:
        files = [found.file for found in named if found.kind in sendmail_cf.SUFFIXES]
        return kind, (files[-1] if files else "/etc/mail/access") + suffix
    if not path.endswith(suffix):
        access.refuse(
            "database", f"must end in {suffix}, because makemap appends it to {kind} maps"
        )
    return kind, path


def _keys(address: str) -> list[str]:
    """The keys by which sendmail may look an address up."""
    if ":" not in address:
        return [address]
    return sorted({f"IPv6:{address}", f"IPv6:{addresses.groups(address)}"})


def _networks(tag: str, key: str) -> list[str]:
    """The keys of the networks that an address's key lies in, in lower case."""
    separator = ":" if key.startswith("IPv6:") else "."
    parts = key.split(separator)
    return [f"{tag}{separator.join(parts[:n])}".lower() for n in range(1, len(parts))]


def _limits(policy: Table, *, separate: bool) -> dict[str, int]:
    """The limits in [policy]; a pause is in milliseconds (cf/README, greet_pause)."""
    limits: dict[str, int] = {}
    for key in LIMITS:
        if not policy.has(key):
            continue
        if separate:
            why = "needs access.source: a map without it is a separate one"
            policy.refuse(key, f"{why}, and sendmail looks limits up in its own access.db alone")
        pause = key == "greet_pause"
        limits[key] = int(policy.seconds(key) * 1000) if pause else policy.count(key) or 0
    return limits
