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
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sapd import defaults, errors, files
from sapd.maps import LIMITS, Map, databases, live, sendmail_cf
from sapd.maps.access import Source
from sapd.maps.makemap import Makemap
from sapd.maps.sendmail_entries import ENDS, TAGS, Entries

if TYPE_CHECKING:
    from sapd.check.finding import Finding
    from sapd.decision import Objection
    from sapd.maps.live import Published
    from sapd.toml_table import Table


class Sendmail(Map):
    """A database that sendmail reads: makemap makes it of the `source`, and of sapd's `entries`."""

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
        self.source_path = source
        self.belongs_to = None if source is not None else os.path.dirname(database)
        self.closes_by_itself = self_closing
        self.makemap = Makemap(makemap, type, cf, database, source)
        self.entries = Entries(
            ENDS if self_closing else tag,
            {TAGS[setting]: value for setting, value in (limits or {}).items()},
            self_closing,
            # The rules for a separate map exempt from blocklists whoever has an end in it.
            exempts=self_closing and source is not None,
        )

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
            access.refuse_to_remove("tag", "has no effect with self_closing")
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
        found = {"access.database": self.path, "access.makemap": self.makemap.program}
        return found if self.source_path is None else {"access.source": self.source_path, **found}

    def watched(self) -> list[str]:
        """See `Map`. The database's text must not be there unless it is the source.

        sendmail's configuration says of which type the map is.
        """
        found = self.files()
        del found["access.makemap"]
        return list(dict.fromkeys([*found.values(), self._name()[0], self.makemap.cf]))

    def _name(self) -> tuple[str, str]:
        """The path of the database without its type's suffix, and that."""
        suffix = sendmail_cf.SUFFIXES[self.makemap.type]
        return self.path.removesuffix(suffix), suffix

    def trial(self, database: str) -> Sendmail:
        """A map of the same source at another path, to see whether it can be built."""
        return self._of(database, self.source_path)

    def _of(self, database: str, source: str | None) -> Sendmail:
        """One with the same settings but for these, and without limits."""
        make = self.makemap
        settings = (make.type, make.cf, self.closes_by_itself)
        return Sendmail(database, source, make.program, self.entries.tag, None, *settings)

    @cached_property
    def source(self) -> Source:
        """The administrator's entries; raises `SapdError`."""
        return Source(self.source_path, self.entries.tag)

    def objection_to(self, address: str) -> Objection | None:
        """See `Map`.

        With `self_closing` an address whose network relays has no entries: their OK would hide
        the network's RELAY from sendmail.
        """
        found = self.source.objection_to(address)
        if found is None and self.closes_by_itself:
            return self.source.relays_already(address)
        return found

    def objects_by(self) -> bytes:
        """See `Map`."""
        return self.source.text

    def permits(self, address: str) -> bool:
        """See `Map`."""
        return self.source.permits(address)

    def wanted(self, open_until: Mapping[str, float]) -> bytes:
        """See `Map`."""
        taken = self.source.address_keys()
        for tag in self.entries.limiting:
            taken |= self.source.keys_with_tag(tag)
        return self.entries.lines(open_until, taken)

    def summary(self, opened: int) -> str:
        """See `Map`."""
        return f"{self.source.count} own entries, {super().summary(opened)}"

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
        if self.makemap.type != "cdb":
            return 0o640
        text = os.stat(self.source_path)
        os.fchown(new, text.st_uid, text.st_gid)
        return stat.S_IMODE(text.st_mode) & 0o644

    def _examine(self, fd: int) -> None:
        """Refuse to write over a database of another type; `fd` is open on the live one."""
        kind = databases.kind_of(fd)
        if kind not in (None, self.makemap.type):
            reason = f"is a {kind} database and is not replaced by a {self.makemap.type} one"
            remedy = f'set access.type = "{kind}", or move it away'
            raise errors.SapdError(errors.BAD_CONFIG, self.path, f"{reason}; {remedy}")

    @contextlib.contextmanager
    def built(self, wanted: bytes, folder: str | None = None) -> Iterator[live.New]:
        """Build the new database, beside the live one or in a private folder, and check it.

        It is open meanwhile, and locked: a makemap that outlived a killed run may wake up and begin
        to write there. Raises `SapdError` if makemap refuses the text, or OSError.
        """
        base, suffix = self._name()
        path = f"{base}.sapd-new{suffix}"
        if folder is not None:
            path = os.path.join(folder, os.path.basename(path))
        text, own = self.source.text + wanted, wanted.lower().splitlines()
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            self.makemap.make(path, text)
            new = files.open_in_place(path, writing=True)
            try:
                if not live.has_lock(new, fcntl.LOCK_SH, live.LOCK_WAIT):
                    raise self.makemap.failed(f"another program holds the lock of {path}")
                self.makemap.check(path, text, self._expected(wanted), own)
                if not files.same_file(path, new):
                    reason = "was replaced while it was made; the old map stays in force"
                    raise errors.SapdError(errors.CANT_CREATE, path, reason)
                yield live.New(new, path, folder is not None)
            finally:
                os.close(new)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def _expected(self, wanted: bytes) -> int:
        """How many entries the map has with these of sapd's."""
        return self.source.count + wanted.count(b"\n")

    def with_live_entries(
        self, lets_in: Collection[str], before: Published | None
    ) -> Sendmail | None:
        """See `Map`. A dump that fails may end early, so the entries are counted."""
        if self.source_path is None or before is None or not live.is_untouched(self.path, before):
            return None
        dump = self.makemap.live_entries(live.LOCK_WAIT)
        if len(dump) != before.entries:
            return None
        other = self._of(self.path, None)
        other.belongs_to, other.entries = None, self.entries
        own = set(other.wanted(dict.fromkeys(lets_in, 0.0)).lower().splitlines())
        ended = ENDS.encode() if self.closes_by_itself else b"\n"  # the ends differ
        rest = (
            line for line in dump if line.lower() not in own and not line.lower().startswith(ended)
        )
        other.source = Source(None, self.entries.tag, b"\n".join(rest))
        return other

    def published_now(self, now: float, candidates: Collection[str]) -> Iterable[str]:
        """See `Map`."""
        administrators = self.source.address_keys()
        lines = self.makemap.live_entries(live.LOCK_WAIT)
        let_in = (self.entries.address_let_in(line, administrators, now) for line in lines)
        return {address for address in let_in if address is not None}

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
            "database",
            f"must end in {suffix}, because makemap appends it to {kind} maps",
            f'database = "/etc/mail/access{suffix}"',
        )
    return kind, path


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
