"""Which kind of database a file is, by what stands in it.

Berkeley DB: the fourth word of the first page, in either byte order (db_page.h: DB_HASHMAGIC,
DB_BTREEMAGIC). cdb: 256 pairs of a hash table's position and length, each behind the records and
within the file, the tables without gaps up to its end (https://cr.yp.to/cdb/cdb.txt).
"""

import os
import struct

_MAGIC = {0x061561: "hash", 0x053162: "btree"}
_POINTERS = struct.Struct("<512I")
_SLOT = 8  # bytes


def kind_of(fd: int) -> str | None:
    """hash, btree or cdb; None if the file that `fd` is open on is none of these."""
    head = os.pread(fd, _POINTERS.size, 0)
    for order in ("<I", ">I"):
        if len(head) >= 16 and (kind := _MAGIC.get(struct.unpack_from(order, head, 12)[0])):
            return kind
    return "cdb" if len(head) == _POINTERS.size and _is_cdb(head, os.fstat(fd).st_size) else None


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
