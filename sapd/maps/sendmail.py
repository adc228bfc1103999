"""sendmail's access map: a hash database made by makemap of the administrator's text and sapd's.

Formats and behaviour are those of cf/README ("Anti-Spam Configuration Control"), makemap(8), and
what was measured with sendmail 8.17.

Failure contract. The new database is built beside the live one, as NAME.sapd-new.db, and checked;
a leftover of a killed run is overwritten by the next. Nothing else is touched before `live` puts
it in place. On any failure before that the old database stands.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from sapd import addresses, child, defaults, errors, files
from sapd.maps import LIMITS, Map, live
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
_GROUP = "smmsp"  # of sendmail's programs, where they are not root's


class Sendmail(Map):
    """A hash database that sendmail reads.

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
    ) -> None:
        """`database` ends in .db; a `source` of None makes a separate map of sapd's entries alone.

        `limits` has further settings for each open address, by their names in [policy].
        """
        self.path = database
        self.makemap = makemap
        self.limits = {self.tags[setting]: value for setting, value in (limits or {}).items()}
        self.source_path = source
        self.belongs_to = None if source is not None else os.path.dirname(database)
        self._tag = tag
        self._new = database.removesuffix(".db") + ".sapd-new.db"

    @classmethod
    def options_of(cls, access: Table, policy: Table) -> dict[str, Any]:
        """See `Map`."""
        access.only("server", "source", "database", "makemap", "tag")
        database = access.path("database", "/etc/mail/access.db")
        if not database.endswith(".db"):
            access.refuse("database", "must end in .db, because makemap appends it")
        text = database.removesuffix(".db")
        source = None
        if access.has("source"):
            source = access.path("source")
        elif not access.has("database"):
            source = text
        elif os.path.exists(text):
            # Without it a run would replace the administrator's entries by sapd's alone.
            access.refuse("source", f'is missing; set source = "{text}", or name another database')
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
        }

    def files(self) -> dict[str, str]:
        """See `Map`."""
        found = {"access.database": self.path, "access.makemap": self.makemap}
        return found if self.source_path is None else {"access.source": self.source_path, **found}

    def watched(self) -> list[str]:
        """See `Map`. The database's text must not be there unless it is the source."""
        found = self.files()
        del found["access.makemap"]
        return list(dict.fromkeys([*found.values(), self.path.removesuffix(".db")]))

    def trial(self, database: str) -> Sendmail:
        """A map of the same source at another path, to see whether it can be built."""
        return Sendmail(database, self.source_path, self.makemap, self._tag)

    @cached_property
    def source(self) -> Source:
        """The administrator's entries; raises `SapdError`."""
        return Source(self.source_path, self._tag)

    def objection_to(self, address: str) -> Objection | None:
        """See `Map`."""
        return self.source.objection_to(address)

    def permits(self, address: str) -> bool:
        """See `Map`."""
        return self.source.permits(address)

    def wanted(self, open_until: Mapping[str, float]) -> bytes:
        """The lines that let addresses relay, and those of each one's limits.

        sendmail looks an IPv6 client up as eight groups without padding, or, where it is
        configured with UseCompressedIPv6Addresses, in the usual short form; both are written,
        unless the administrator wrote one. Nor is a limit written where he limited a network.
        """
        tags = {self._tag: "RELAY"} | {f"{tag}:": str(n) for tag, n in self.limits.items()}
        taken = self.source.address_keys()
        for tag in self.limits:
            taken |= self.source.keys_with_tag(f"{tag}:")
        lines = []
        for address in sorted(open_until):
            keys = [address]
            if ":" in address:
                keys = sorted({f"IPv6:{address}", f"IPv6:{addresses.groups(address)}"})
            lines += [
                f"{tag}{key}\t{word}\n"
                for key in keys
                for tag, word in tags.items()
                if f"{tag}{key}".lower() not in taken
                and (word == "RELAY" or not any(part in taken for part in _networks(tag, key)))
            ]
        return "".join(lines).encode("ascii")

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
        try:
            return self._publish(wanted, before)
        except errors.SapdError as problem:
            if problem.status != errors.IO_ERROR:
                raise
        try:
            with live.memory_folder() as folder:
                return self._publish(wanted, before, folder)
        except OSError as error:
            raise errors.cannot_write(self.path, error) from None

    def _publish(
        self, wanted: bytes, before: Published | None, folder: str | None = None
    ) -> Published:
        mode, group = (0o640, _GROUP if self.source_path is None else None)
        text = live.digest(self.source.text, wanted)
        try:
            with self.built(wanted, folder) as new:
                return live.put_in_place(new, self.path, text, mode, group, before)
        except OSError as error:
            raise errors.cannot_write(self.path, error) from None

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
                    raise self._failed(f"{path} was replaced while it was made")
                yield live.New(new, path, folder is not None)
            finally:
                os.close(new)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def _make(self, path: str, text: bytes) -> None:
        # Without a cache of that size makemap takes eight times as long over a million entries.
        cache = ["-c", str(4 * len(text))] if len(text) > _LARGE else []
        done = self._run([*cache, "hash", path], text, 2)
        if done.status != 0:
            raise self._complaint(done, path)

    def _check(self, path: str, wanted: bytes) -> None:
        """Count what makemap made of the text, and look for each of sapd's own entries in it."""
        made = self._run(["-u", "hash", path], b"", 1).said.lower().splitlines()
        expected = self.source.count + wanted.count(b"\n")
        if len(made) != expected:
            raise self._failed(f"makemap made {len(made)} entries of {expected}")
        if missing := set(wanted.lower().splitlines()) - set(made):
            raise self._failed(f"the new map lacks {len(missing)} of sapd's entries")

    def _failed(self, reason: str) -> errors.SapdError:
        reason = f"{reason}; the old map stays in force"
        return errors.SapdError(errors.MAKEMAP_FAILED, self.path, reason)

    def _run(
        self, arguments: Sequence[str], text: bytes, stream: int, limit: float | None = None
    ) -> child.Ended:
        # As root makemap insists on a sendmail.cf, from which it wants no more than TrustedUser.
        no_cf = [] if os.path.exists("/etc/mail/sendmail.cf") else ["-C", os.devnull]
        limit = limit or MAKEMAP_LIMIT + len(self.source.text) / _SLOW
        try:
            return child.run([self.makemap, *no_cf, *arguments], text, stream, limit)
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
        if status is None:
            known = (errors.CANT_CREATE, errors.IO_ERROR, errors.NO_PERMISSION)
            status = done.status if done.status in known else errors.MAKEMAP_FAILED
        reason = f"{reason}{more}; makemap refused it, the old map stays in force"
        return errors.SapdError(status, subject, reason)

    def with_live_entries(self, lets_in: Collection[str]) -> Sendmail | None:
        """See `Map`."""
        if self.source_path is None:
            return None
        limits = {
            setting: self.limits[tag] for setting, tag in self.tags.items() if tag in self.limits
        }
        other = Sendmail(self.path, None, self.makemap, self._tag, limits)
        other.belongs_to = None
        own = set(other.wanted(dict.fromkeys(lets_in, 0.0)).lower().splitlines())
        entries = (line for line in self._dump() if line.lower() not in own)
        other.source = Source(None, self._tag, b"\n".join(entries))
        return other

    def _dump(self) -> list[bytes]:
        """The entries of the live map, keys in lower case; raises `SapdError`."""
        if not os.path.lexists(self.path):
            return []
        dump = self._run(["-u", "hash", self.path], b"", 1, live.LOCK_WAIT)
        if dump.status != 0:
            reason = f"can't be read; makemap ended with status {dump.status}"
            raise errors.SapdError(errors.MAKEMAP_FAILED, self.path, reason)
        return dump.said.splitlines()

    def published_now(self, now: float, candidates: Collection[str]) -> Iterable[str]:
        """See `Map`."""
        own = self.source.address_keys()
        prefix = self._tag.lower().encode()
        found = set()
        for line in self._dump():
            key, _, value = line.lower().partition(b"\t")
            if value.strip() != b"relay" or not key.startswith(prefix):
                continue
            if key.decode("latin-1") not in own:
                text = key.removeprefix(prefix).removeprefix(b"ipv6:")
                if (address := addresses.parse_address(text)) is not None:
                    found.add(address)
        return found

    def findings(self, published: Published | None, scratch: str, root: str) -> Iterator[Finding]:
        """See `Map`."""
        from sapd.check import sendmail

        return sendmail.findings(self, published, scratch, root)


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
