"""Postfix's access table of sapd's own entries, made by postmap: access(5), postmap(1).

Measured with Postfix 3.7: a smtpd process looks at its tables before each connection. It sees a
renamed one at once, and one that was changed in place only if the seconds of its mtime differ. One
that met a missing, empty or spoilt table answers 451 until its 100th connection, or a reload.

Failure contract. A text and the table made of it are written beside the live table, and that is
renamed onto it once it has been read back: postmap ends with 0 over lines that it leaves out.
Leftovers of a killed run are overwritten by the next. Where the disk has no room for that, closing
goes on: a smaller hash table is copied into the live one; in a cdb table, which Postfix has mapped
into its memory, the keys of whom it is to forget are spoilt. An lmdb table stays as it is.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sapd import addresses, child, errors, files
from sapd.maps import builder, live, only
from sapd.maps.databases import cdb_records, kind_of
from sapd.maps.live import New
from sapd.maps.table import DEFAULT, MODE, OwnTable

if TYPE_CHECKING:
    from sapd.check.finding import Finding
    from sapd.maps.live import Published
    from sapd.toml_table import Table

SUFFIXES = {"hash": ".db", "cdb": ".cdb", "lmdb": ".lmdb"}
"""{a type that sapd keeps: what Postfix appends to the table's name}"""

_REFUSED = {
    "btree": "hash has the same library, and is as good for whole addresses",
    "texthash": "Postfix reads such a table anew for every process, and stalls while it changes",
    "cidr": "Postfix reads such a table only when a process starts",
}
_LMDB_MAGIC = (b"\xde\xc0\xef\xbe", b"\xbe\xef\xc0\xde")  # in either byte order
_VALUE = b"OK"
_SPOILT = b"-"  # in the place of an address's first character


class Postfix(OwnTable):
    """An indexed table that Postfix reads."""

    def __init__(self, database: str, type: str, builder: str = "/usr/sbin/postmap") -> None:
        """`database` is the table's name as main.cf has it, without a suffix; `type` likewise."""
        super().__init__(database + SUFFIXES[type])
        self.database = database
        self.type = type
        self.builder = builder

    @classmethod
    def options_of(cls, access: Table, policy: Table) -> dict[str, Any]:
        """See `Map`."""
        only("postfix", access, policy, "database", "type", "builder")
        database = access.path("database", DEFAULT)
        for suffix in SUFFIXES.values():
            if database.endswith(suffix):
                name = database.removesuffix(suffix)
                access.refuse(
                    "database", f'ends in {suffix}, which Postfix appends; write "{name}"'
                )
        if os.path.exists(database):
            # A run would replace the administrator's table by one of sapd's entries alone.
            why = f'names a table that is made of the text "{database}"; name another, of sapd\'s'
            access.refuse("database", f"{why} alone")
        program = access.path("builder", "/usr/sbin/postmap")
        type = access.text("type") if access.has("type") else _default_type(access, program)
        if type in _REFUSED:
            access.refuse("type", f'is "{type}", but {_REFUSED[type]}; use {_or(SUFFIXES)}')
        type = access.one_of("type", SUFFIXES, type)
        return {"database": database, "type": type, "builder": program}

    def files(self) -> dict[str, str]:
        """See `Map`."""
        return {"access.database": self.path, "access.builder": self.builder}

    def watched(self) -> list[str]:
        """See `Map`."""
        return [self.path]

    def wanted(self, open_until: Mapping[str, float]) -> bytes:
        """A line for each address: `ipaddress` has IPv6 in the spelling that Postfix looks up."""
        lines = sorted(address.encode("ascii") + b"\t" + _VALUE for address in open_until)
        return b"".join(line + b"\n" for line in lines)

    def publish(self, wanted: bytes, before: Published | None = None) -> Published:
        """See `Map`."""
        asked = not self.is_usable() and self._is_named()
        made = super().publish(wanted, before)
        self.remark = (
            "had to be made anew; run `postfix reload`, or it is not seen" if asked else None
        )
        return made

    def _publish(self, wanted: bytes, before: Published | None, folder: str | None) -> Published:
        if folder is not None and self.type == "cdb":
            return self._close_in_place(wanted)
        if folder is not None and self.type == "lmdb":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
        try:
            with self._built(wanted, folder or os.path.dirname(self.path)) as (fd, path):
                return self._put(New(fd, path, folder is not None), wanted, before)
        except OSError as error:
            raise errors.cannot_write(self.path, error) from None

    def _close_in_place(self, wanted: bytes) -> Published:
        """Spoil the unwanted keys of a cdb table; raises OSError, also if a wanted one is missing.

        The hash tables behind the records lead to a key, but no key that is asked for equals it.
        """
        live_file = files.open_in_place(self.path, writing=True)
        try:
            content = os.pread(live_file, os.fstat(live_file).st_size, 0)
            records = {record.key.rstrip(b"\0"): record for record in cdb_records(content)}
            keys = {line.partition(b"\t")[0] for line in wanted.splitlines()}
            if not keys <= records.keys():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
            for key in records.keys() - keys:
                files.write_all(live_file, _SPOILT, records[key].offset)
            return live.changed_in_place(live_file, self.path, live.digest(wanted))
        finally:
            os.close(live_file)

    def is_usable(self) -> bool:
        """Whether the live table is one that Postfix can open, as far as its head tells."""
        try:
            with open(self.path, "rb") as file:
                if self.type != "lmdb":
                    return kind_of(file.fileno()) == self.type
                return file.read(20)[16:] in _LMDB_MAGIC
        except OSError:
            return False

    def _is_named(self) -> bool:
        """Whether Postfix asks this table, so that its processes met the one that was unusable."""
        try:
            settings = self.postconf("-n").decode("utf-8", "replace")
            return f"{self.type}:{self.database}" in settings + self.postconf("-P").decode()
        except (OSError, ValueError, errors.SapdError):
            return False

    def postconf(self, *arguments: str) -> bytes:
        """What postconf says, which lies beside postmap; raises `SapdError`, or OSError."""
        program = os.path.join(os.path.dirname(self.builder), "postconf")
        return builder.run(program, arguments, b"", 1, "Postfix").said

    @contextlib.contextmanager
    def _built(self, wanted: bytes, folder: str) -> Iterator[tuple[int, str]]:
        """Build the new table in a folder, and read it back; the new one, open, and its path."""
        text = os.path.join(folder, os.path.basename(self.database) + ".sapd-new")
        path = text + SUFFIXES[self.type]
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            # postmap goes on as the owner of the text: it is ours, whoever owns the folder.
            files.replace(text, wanted, MODE, durable=False)
            done = self._postmap([f"{self.type}:{text}"], b"", 2)
            if done.status != 0:
                raise builder.complaint(self.builder, done, self.path)
            new = builder.open_made(path, self.builder, self.path)
            try:
                self._check(text, wanted)
                if not files.same_file(path, new):
                    reason = f"was replaced while it was made; {builder.OLD_STANDS}"
                    raise errors.SapdError(errors.CANT_CREATE, path, reason)
                yield new, path
            finally:
                os.close(new)
        finally:
            for leftover in (text, path):
                with contextlib.suppress(OSError):
                    os.unlink(leftover)

    def _check(self, database: str, wanted: bytes) -> None:
        """Read a new table back; raises `SapdError` if it lacks an entry."""
        made, expected = set(self._found(database, wanted)), set(wanted.splitlines())
        if made != expected:
            counts = f"postmap made {len(made & expected)} entries of {len(expected)}"
            reason = f"{counts}; {builder.OLD_STANDS}"
            raise errors.SapdError(errors.MAKEMAP_FAILED, self.path, reason)

    def _postmap(self, arguments: list[str], text: bytes, stream: int) -> child.Ended:
        return builder.run(self.builder, arguments, text, stream, "Postfix")

    def _found(self, database: str, entries: bytes) -> list[bytes]:
        """Those entries, of which only the keys matter, that stand in a table: key, tab, value."""
        keys = b"".join(line.partition(b"\t")[0] + b"\n" for line in entries.splitlines())
        return self._postmap(["-q", "-", f"{self.type}:{database}"], keys, 1).said.splitlines()

    def published_now(self, now: float, candidates: Collection[str]) -> Iterable[str]:
        """See `Map`. postmap can't list a cdb table, so the candidates are looked up."""
        if not os.path.lexists(self.path):
            return []
        if not self.is_usable():
            reason = f"is not a {self.type} table; sapd run makes a new one"
            raise errors.SapdError(errors.MAKEMAP_FAILED, self.path, reason)
        found = self._found(self.database, "\n".join(sorted(candidates)).encode("ascii"))
        keys = (line.partition(b"\t")[0] for line in found)
        return {address for key in keys if (address := addresses.parse_address(key)) is not None}

    def findings(self, published: Published | None, scratch: str, root: str) -> Iterator[Finding]:
        """See `Map`."""
        from sapd.check import postfix

        return postfix.findings(self, published)


def _default_type(access: Table, program: str) -> str:
    """The type that this Postfix makes if none is named."""
    remedy = f"set it to {_or(SUFFIXES)}, as main.cf names the table"
    postconf = os.path.join(os.path.dirname(program), "postconf")
    try:
        done = builder.run(postconf, ["-h", "default_database_type"], b"", 1, "Postfix")
    except (OSError, errors.SapdError) as error:
        access.refuse("type", f"is missing, and postconf does not tell it ({error}); {remedy}")
    type = done.said.decode("ascii", "replace").strip()
    if type not in SUFFIXES:
        access.refuse("type", f'is missing, and Postfix\'s own is "{type}"; {remedy}')
    return type


def _or(words: Collection[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}"
