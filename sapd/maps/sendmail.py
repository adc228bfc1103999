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

from sapd import addresses, child, errors, files
from sapd.maps import LIMITS, Map, live
from sapd.maps.access import Source

if TYPE_CHECKING:
    from sapd.check.finding import Finding
    from sapd.decision import Objection
    from sapd.maps.live import Published
    from sapd.toml_table import Table

MAKEMAP_LIMIT = 600.0
"""Seconds that makemap may take (a million entries: about ten)."""

_LARGE = 1024 * 1024  # bytes of text


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
        return {
            "database": database,
            "source": source,
            "makemap": access.path("makemap", "/usr/sbin/makemap"),
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

    def publish(self, wanted: bytes) -> Published:
        """See `Map`."""
        try:
            with self.built(wanted) as new:
                # In a separate map is nothing secret, and sendmail must read it.
                mode = 0o644 if self.source_path is None else 0o640
                found = live.put_in_place(new, self._new, self.path, mode)
        except OSError as error:
            raise errors.cannot_write(self.path, error) from None
        finally:
            with contextlib.suppress(OSError):
                os.unlink(self._new)
        return live.Published(
            self.path, live.digest(self.source.text, wanted), found, live.boot_id()
        )

    @contextlib.contextmanager
    def built(self, wanted: bytes) -> Iterator[int]:
        """Build the new database beside the live one, and count what makemap made of it.

        It is open meanwhile, and locked: a makemap that outlived a killed run may wake up and begin
        to write there. Raises `SapdError` if makemap refuses the text, or OSError.
        """
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._new)
        text = self.source.text + wanted
        # Without a cache of that size makemap takes eight times as long over a million entries.
        cache = ["-c", str(4 * len(text))] if len(text) > _LARGE else []
        done = self._run([*cache, "hash", self._new], text, 2)
        if done.status != 0:
            raise self._complaint(done)
        new = files.open_in_place(self._new, writing=False)
        try:
            live.wait_for_lock(new, fcntl.LOCK_SH, self.path)
            expected = self.source.count + wanted.count(b"\n")
            made = self._run(["-u", "hash", self._new], b"", 1).said.count(b"\n")
            if made != expected:
                raise errors.SapdError(
                    errors.MAKEMAP_FAILED,
                    self.path,
                    f"makemap made {made} entries of {expected}; the old map stays in force",
                )
            if not files.same_file(self._new, new):
                reason = "was replaced while it was made; the old map stays in force"
                raise errors.SapdError(errors.CANT_CREATE, self._new, reason)
            yield new
        finally:
            os.close(new)

    def _run(self, arguments: Sequence[str], text: bytes, stream: int) -> child.Ended:
        # As root makemap insists on a sendmail.cf, from which it wants no more than TrustedUser.
        no_cf = [] if os.path.exists("/etc/mail/sendmail.cf") else ["-C", os.devnull]
        try:
            return child.run([self.makemap, *no_cf, *arguments], text, stream, MAKEMAP_LIMIT)
        except TimeoutError:
            reason = f"took longer than {MAKEMAP_LIMIT:.0f} s; the old map stays in force"
            raise errors.SapdError(errors.MAKEMAP_FAILED, self.makemap, reason) from None
        except OSError as error:
            if error.filename is None:  # not the program: the text found no room
                raise
            reason = f"can't be run: {error.strerror}; it comes with sendmail (sendmail-bin)"
            raise errors.SapdError(errors.MAKEMAP_FAILED, self.makemap, reason) from None

    def _complaint(self, done: child.Ended) -> errors.SapdError:
        said = done.said.decode("utf-8", "backslashreplace").splitlines()
        said = [line for line in said if line and not line.startswith("WARNING:")]
        reason = said[0] if said else f"makemap ended with status {done.status}"
        reason = reason.removeprefix("makemap: ").removeprefix(f"{self._new}: ")
        subject = (reason.startswith("line ") and self.source_path) or self.path
        more = f" (and {len(said) - 1} more)" if len(said) > 1 else ""
        status = errors.status_of_words(reason)  # makemap calls all of them 73
        if status is None:
            known = (errors.CANT_CREATE, errors.IO_ERROR, errors.NO_PERMISSION)
            status = done.status if done.status in known else errors.MAKEMAP_FAILED
        reason = f"{reason}{more}; makemap refused it, the old map stays in force"
        return errors.SapdError(status, subject, reason)

    def published_now(self, now: float, candidates: Collection[str]) -> Iterable[str]:
        """See `Map`; an address is let in if all of its entries stand in the database."""
        if not os.path.lexists(self.path):
            return []
        dump = self._run(["-u", "hash", self.path], b"", 1)
        if dump.status != 0:
            reason = f"can't be read; makemap ended with status {dump.status}"
            raise errors.SapdError(errors.MAKEMAP_FAILED, self.path, reason)
        own = self.source.address_keys()
        prefix = self._tag.lower().encode()
        found = set()
        for line in dump.said.splitlines():
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
