"""Which kind of database a file is, by what stands in it.

Berkeley DB: the fourth word of the first page, in either byte order (db_page.h: DB_HASHMAGIC,
DB_BTREEMAGIC). cdb: 256 pairs of a hash table's position and length, each behind the records and
within the file, the tables without gaps up to its end (https://cr.yp.to/cdb/cdb.txt). A record is
the length of its key and of its data, each four bytes, then both; the first table stands behind the
last.
"""

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

_MAGIC = {0x061561: "hash", 0x053162: "btree"}
_POINTERS = struct.Struct("<512I")
_LENGTHS = struct.Struct("<II")
_SLOT = 8  # bytes


def kind_of(fd: int) -> str | None:
    """hash, btree or cdb; None if the file that `fd` is open on is none of these."""
    head = os.pread(fd, _POINTERS.size, 0)
    for order in ("<I", ">I"):
        if len(head) >= 16 and (kind := _MAGIC.get(struct.unpack_from(order, head, 12)[0])):
            return kind
    return "cdb" if len(head) == _POINTERS.size and _is_cdb(head, os.fstat(fd).st_size) else None


class Record(NamedTuple):
    """A record of a cdb file; `offset` is its key's in the file."""

    offset: int
    key: bytes
    data: bytes


def cdb_records(content: bytes) -> Iterator[Record]:
    """The records of a cdb file, in its order; raises OSError if it is none."""
    head, at = content[: _POINTERS.size], _POINTERS.size
    end = min(_POINTERS.unpack(head)[::2]) if len(head) == at else 0
    if not at <= end <= len(content):
        raise OSError(0, "it is not a cdb file")
    while at < end:
        if end - at < _LENGTHS.size:
            raise OSError(0, "it is a damaged cdb file")
        key, data = _LENGTHS.unpack_from(content, at)
        at += _LENGTHS.size
        yield Record(at, content[at : at + key], content[at + key : at + key + data])
        at += key + data


def _is_cdb(head: bytes, size: int) -> bool:
    pointers = _POINTERS.unpack(head)
    tables: list[tuple[int, int]] = sorted(zip(pointers[::2], pointers[1::2], strict=True))
    end = tables[0][0]
    if end < _POINTERS.size:
        return False
    for position, length in tables:
        if position != end:
            return False
        end += length * _SLOT
    return end == size
