"""The claims turned into the mail server's map, and the map put in place.

Formats and behaviour are sendmail's: cf/README ("Anti-Spam Configuration Control"), makemap(8),
and what was measured with sendmail 8.17.

Failure contract. A new database is built beside the live one, checked, and then copied into the
live inode under its lock: a rename would make sendmail answer 554 to the connection that opens it
at that moment, and would never be seen by a session that is already open. On any failure before
the copy the old database stays. A run killed inside the copy (milliseconds) leaves a mixed file;
the next one sees by its signature that this is not what was published, and does it again.
"""

import contextlib
import fcntl
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from sapd import child, errors, files, relay
from sapd.idle import boot_id

try:
    from _blake2 import blake2b  # hashlib's own; hashlib itself takes 4 ms to load OpenSSL's
except ImportError:
    from hashlib import blake2b

LOCK_WAIT = 10.0
"""Seconds to wait for another program that holds the database's lock."""

MAKEMAP_LIMIT = 600.0
"""Seconds that makemap may take (a million entries: about ten)."""

_PERMITS = {b"RELAY", b"OK", b"SKIP"}
_GROUP = r"(0|[1-9a-f][0-9a-f]{0,3})"
_LOOKED_UP = re.compile(
    rf"(0|[1-9]\d{{0,2}})(\.(0|[1-9]\d{{0,2}})){{0,3}}|ipv6:{_GROUP}(:{_GROUP}){{0,7}}"
)
_BLOCK = 1024 * 1024


class Published(NamedTuple):
    """Signature of what was last put in place.

    `path`: the database's; `wanted`: digest of the map's text; `database`: the file's device,
    inode, size, and the times of its last change in nanoseconds; `boot`: `idle.boot_id`,
    because a power cut may undo what was on its way to the disk.
    """

    path: str
    wanted: str
    database: tuple[int, ...]
    boot: str


class _Word(NamedTuple):
    """One entry of the administrator's: its offset in `source` in bytes, key and value.

    `counts` is whether sendmail looks such a key up. It never does with a network as CIDR, with
    brackets or with zeros in front, and only if so configured with `::`.
    """

    offset: int
    key: bytes
    value: bytes
    counts: bool

    @property
    def relays(self) -> bool:
        return self.value.upper() == b"RELAY"

    @property
    def permits(self) -> bool:
        return self.value.upper() in _PERMITS


class _Prefix(NamedTuple):
    """The first `length` bits, as the number `head`, of addresses with `bits` bits."""

    bits: int
    length: int
    head: int


class Source:
    """The administrator's own entries, which always win; `text` is the file's bytes."""

    def __init__(self, path: str | None, tag: str) -> None:
        """Read `path` (None: no entries of the administrator's); raises `SapdError`."""
        self.path = path
        self.text = b"" if path is None else _read(path)
        if self.text and not self.text.endswith(b"\n"):
            self.text += b"\n"
        self._tag = tag.encode()

    @property
    def count(self) -> int:
        """The number of entries that makemap makes of the text: one a line, but for comments."""
        return sum(1 for line in self.text.split(b"\n") if line and not line.startswith(b"#"))

    @cached_property
    def _words(self) -> dict[_Prefix, list[_Word]]:
        """The entries whose keys are addresses or networks; most of a big map may be others."""
        line = re.compile(
            rb"^((?:connect:|%s)?([\[\]0-9a-f:./]+|ipv6:[\[\]0-9a-f:./]+))[ \t\v\f\r]+(.*)$"
            % re.escape(self._tag),
            re.IGNORECASE | re.MULTILINE,
        )
        words: dict[_Prefix, list[_Word]] = {}
        for found in line.finditer(self.text):
            key = found[2].decode("ascii").lower()
            prefix = _prefix(key)
            if prefix is not None:
                counts = _LOOKED_UP.fullmatch(key) is not None
                word = _Word(found.start(), found[1], found[3].strip(), counts)
                words.setdefault(prefix, []).append(word)
        return words

    @cached_property
    def _lengths(self) -> list[int]:
        return sorted({prefix.length for prefix in self._words}, reverse=True)

    def says(self, address: str) -> str | None:
        """What the administrator's entries say against opening `address`.

        None: nothing. Empty: it relays already, by an entry of its own. Else the reason, in words.
        As sendmail does, this takes the entry with the longest prefix; beyond sendmail, it also
        heeds refusals in spellings that sendmail never matches, because what they mean is plain.
        """
        if not self._words:
            return None
        bits, number = relay.as_number(address)
        for length, words in self._about(bits, number):
            for word in words:
                if not (word.relays if length == bits else word.permits):
                    return self._quote(word)
            if any(word.counts for word in words):
                return "" if length == bits else None
        return None

    def permits(self, address: str) -> bool:
        """Whether the address relays by an entry for its network, if `says` is silent."""
        bits, number = relay.as_number(address)
        counting = ([w for w in words if w.counts] for _, words in self._about(bits, number))
        return any(word.relays for word in next(filter(None, counting), []))

    def _about(self, bits: int, number: int) -> Iterator[tuple[int, list[_Word]]]:
        """The entries that mean an address, the longest prefix first."""
        for length in self._lengths:
            words = self._words.get(_Prefix(bits, length, number >> max(bits - length, 0)))
            if words:
                yield length, words

    def entries(self, addresses: Iterable[str], limits: Sequence[tuple[str, int]] = ()) -> bytes:
        """The map's lines that let `addresses` relay, and those of each one's `limits`.

        sendmail looks an IPv6 client up as eight groups without padding, or, where it is
        configured with UseCompressedIPv6Addresses, in the usual short form; both are written,
        unless the administrator wrote one. Nor is a limit written where he limited a network.
        """
        tags = {self._tag.decode(): "RELAY"} | {f"{tag}:": str(limit) for tag, limit in limits}
        taken = {word.key.lower().decode() for words in self._words.values() for word in words}
        for tag, _ in limits:
            taken |= self._keys(f"{tag}:")
        lines = []
        for address in sorted(addresses):
            keys = [address]
            if ":" in address:
                _, number = relay.as_number(address)
                long = ":".join(f"{number >> shift & 0xFFFF:x}" for shift in range(112, -1, -16))
                keys = sorted({f"IPv6:{address}", f"IPv6:{long}"})
            lines += [
                f"{tag}{key}\t{word}\n"
                for key in keys
                for tag, word in tags.items()
                if f"{tag}{key}".lower() not in taken
                and (word == "RELAY" or not any(part in taken for part in _networks(tag, key)))
            ]
        return "".join(lines).encode("ascii")

    def _keys(self, tag: str) -> set[str]:
        """The administrator's keys with this tag, in small letters."""
        keys = re.findall(rb"^%s\S+" % tag.encode(), self.text, re.IGNORECASE | re.MULTILINE)
        return {key.lower().decode("latin-1") for key in keys}

    def _quote(self, word: _Word) -> str:
        line = self.text.count(b"\n", 0, word.offset) + 1
        text = (word.key + b" " + word.value).decode("utf-8", "backslashreplace")
        return f'{self.path} line {line} says "{text}"'


def _networks(tag: str, key: str) -> list[str]:
    """The keys of the networks that an address's key lies in, in small letters."""
    separator = ":" if key.startswith("IPv6:") else "."
    parts = key.split(separator)
    return [f"{tag}{separator.join(parts[:n])}".lower() for n in range(1, len(parts))]


def _read(path: str) -> bytes:
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
    if re.fullmatch(r"\d{1,3}(\.\d{1,3}){0,3}\.?", text):
        octets = [int(octet) for octet in text.rstrip(".").split(".")]
        if max(octets) > 255:
            return None
        return _Prefix(32, 8 * len(octets), int.from_bytes(bytes(octets), "big"))
    if re.fullmatch(r"[0-9a-f]{1,4}(:[0-9a-f]{1,4}){0,6}:?", text) and key.startswith("ipv6:"):
        groups = text.rstrip(":").split(":")
        head = "".join(group.zfill(4) for group in groups)
        return _Prefix(128, 16 * len(groups), int(head, 16))
    try:
        network = relay.network(text, strict=False)
    except ValueError:
        return None
    bits, length = network.max_prefixlen, network.prefixlen
    return _Prefix(bits, length, int(network.network_address) >> (bits - length))


class Sendmail:
    """A hash database that sendmail reads, made by makemap."""

    def __init__(self, database: str, makemap: str, source: Source) -> None:
        """`database` is the file's path, ending in .db."""
        self.database = database
        self._makemap = makemap
        self._source = source
        self._new = database.removesuffix(".db") + ".sapd-new.db"

    def holds(self, own: bytes, published: Published | None) -> bool:
        """Whether the database is what was published last, and that is source and `own`."""
        return (
            published is not None
            and published.wanted == self._digest(own)
            and untouched(self.database, published)
        )

    def publish(self, own: bytes) -> Published:
        """Build the database from source and the lines `own`, and put it in place.

        Raises `SapdError`; unless it says otherwise, the old database stands.
        """
        try:
            with self.built(own) as new:
                found = self._put_in_place(new)
        except OSError as error:
            raise errors.cannot_write(self.database, error) from None
        finally:
            with contextlib.suppress(OSError):
                os.unlink(self._new)
        return Published(self.database, self._digest(own), found, boot_id())

    def _digest(self, own: bytes) -> str:
        digest = blake2b(self._source.text, digest_size=32)
        digest.update(b"\0" + own)
        return digest.hexdigest()

    # Building.

    @contextlib.contextmanager
    def built(self, own: bytes) -> Iterator[int]:
        """Build the new database beside the live one, and count what makemap made of it.

        It is open meanwhile, and locked: a makemap that outlived a killed run may wake up and begin
        to write there. Raises `SapdError` if makemap refuses the text, or OSError.
        """
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._new)
        text = self._source.text + own
        # Without a cache of that size makemap takes eight times as long over a million entries.
        cache = ["-c", str(4 * len(text))] if len(text) > _BLOCK else []
        done = self._run(cache, text, 2)
        if done.status != 0:
            raise self._complaint(done)
        new = files.open_in_place(self._new, writing=False)
        try:
            self._wait_for_lock(new, fcntl.LOCK_SH)
            wanted = self._source.count + own.count(b"\n")
            found = self._run(["-u"], b"", 1).said.count(b"\n")
            if found != wanted:
                raise errors.SapdError(
                    errors.MAKEMAP_FAILED,
                    self.database,
                    f"makemap made {found} entries of {wanted}; the old map stays in force",
                )
            if not files.same_file(self._new, new):
                reason = "was replaced while it was made; the old map stays in force"
                raise errors.SapdError(errors.CANT_CREATE, self._new, reason)
            yield new
        finally:
            os.close(new)

    def _run(self, options: list[str], text: bytes, stream: int) -> child.Ended:
        # As root makemap insists on a sendmail.cf, from which it wants no more than TrustedUser.
        if not os.path.exists("/etc/mail/sendmail.cf"):
            options = ["-C", os.devnull, *options]
        command = [self._makemap, *options, "hash", self._new]
        try:
            return child.run(command, text, stream, MAKEMAP_LIMIT)
        except TimeoutError:
            reason = f"took longer than {MAKEMAP_LIMIT:.0f} s; the old map stays in force"
            raise errors.SapdError(errors.MAKEMAP_FAILED, self._makemap, reason) from None
        except OSError as error:
            if error.filename is None:  # not the program: the text found no room
                raise
            reason = f"can't be run: {error.strerror}; it comes with sendmail (sendmail-bin)"
            raise errors.SapdError(errors.MAKEMAP_FAILED, self._makemap, reason) from None

    def _complaint(self, done: child.Ended) -> errors.SapdError:
        said = done.said.decode("utf-8", "backslashreplace").splitlines()
        said = [line for line in said if line and not line.startswith("WARNING:")]
        reason = said[0] if said else f"makemap ended with status {done.status}"
        reason = reason.removeprefix("makemap: ").removeprefix(f"{self._new}: ")
        of_source = reason.startswith("line ")
        subject = self._source.path if of_source and self._source.path else self.database
        more = f" (and {len(said) - 1} more)" if len(said) > 1 else ""
        status = errors.status_of_words(reason)  # makemap calls all of them 73
        if status is None:
            known = (errors.CANT_CREATE, errors.IO_ERROR, errors.NO_PERMISSION)
            status = done.status if done.status in known else errors.MAKEMAP_FAILED
        return errors.SapdError(
            status, subject, f"{reason}{more}; makemap refused it, the old map stays in force"
        )

    # Putting in place.

    def _put_in_place(self, new: int) -> tuple[int, ...]:
        while True:
            try:
                live = files.open_in_place(self.database, writing=True)
            except FileNotFoundError:
                return self._rename(new)
            try:
                self._wait_for_lock(live, fcntl.LOCK_EX)
                if files.same_file(self.database, live):
                    return self._copy(new, live)
            finally:
                os.close(live)

    def _wait_for_lock(self, database: int, how: int) -> None:
        deadline = time.monotonic() + LOCK_WAIT
        while True:
            try:
                return fcntl.flock(database, how | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    reason = f"another program has held its lock for {LOCK_WAIT:.0f} s"
                    raise errors.SapdError(
                        errors.CANT_CREATE, self.database, reason + "; the old map stays in force"
                    ) from None
                time.sleep(0.005)

    def _copy(self, new: int, live: int) -> tuple[int, ...]:
        """Copy the new database into the live inode, whose lock is held."""
        size, before = os.fstat(new).st_size, os.fstat(live)
        try:
            files.reserve(live, size)
        except OSError:
            os.ftruncate(live, before.st_size)
            raise
        try:
            offset = 0
            while data := os.pread(new, _BLOCK, offset):
                files.write_all(live, data, offset)
                offset += len(data)
            os.ftruncate(live, size)
            os.fsync(live)
            # An open SMTP session looks the map up anew only if the seconds of its mtime differ.
            mtime = max(time.time_ns(), before.st_mtime_ns + 1_000_000_000)
            os.utime(live, ns=(mtime, mtime))
        except OSError:
            return self._rename(new, before)
        return _signature(os.fstat(live))

    def _rename(self, new: int, before: os.stat_result | None = None) -> tuple[int, ...]:
        """Put the new file itself in place, where the live one is missing or was just spoilt."""
        if before is not None:
            os.fchown(new, before.st_uid, before.st_gid)
            os.fchmod(new, stat.S_IMODE(before.st_mode))
        else:  # in a separate map is nothing secret, and sendmail must read it
            os.fchmod(new, 0o644 if self._source.path is None else 0o640)
        os.fsync(new)
        os.rename(self._new, self.database)
        files.sync_directory(self.database)
        return _signature(os.fstat(new))


def untouched(database: str, published: Published) -> bool:
    """Whether nobody changed the database since it was published, and the machine was up."""
    try:
        found = _signature(os.lstat(database))
    except OSError:
        return False
    return (published.path, published.database, published.boot) == (database, found, boot_id())


def _signature(found: os.stat_result) -> tuple[int, ...]:
    return (
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )
