"""Whether the map can be built, replaced, and read by sendmail."""

from __future__ import annotations

import os
from collections.abc import Iterator
from tempfile import TemporaryDirectory

from sapd import errors, files
from sapd.access import Published, Sendmail, Source, untouched
from sapd.check.finding import Finding, problem
from sapd.check.readable import why_unreadable, writable_folders
from sapd.config import Access

_HASH_MAGIC = 0x061561  # Berkeley DB, db_page.h: DB_HASHMAGIC, the fourth word of the first page


def findings(
    access: Access, state_directory: str, published: Published | None, root: str
) -> Iterator[Finding]:
    """What a run would meet at the map, and sendmail; `root` is where /etc is looked for."""
    if os.access(access.makemap, os.X_OK):
        yield Finding(0, f"{access.makemap}: is there")
    else:
        yield Finding(
            errors.MAKEMAP_FAILED,
            f"{access.makemap}: can't be run; it comes with sendmail (sendmail-bin)",
        )
    if access.source is not None:
        folder = state_directory
        if not os.path.isdir(folder):
            folder = os.path.dirname(folder)  # where the first run makes it
        try:
            source = Source(access.source, access.tag)
            with TemporaryDirectory(dir=folder) as scratch:
                server = Sendmail(os.path.join(scratch, "check.db"), access.makemap, source)
                with server.built(b""):
                    pass
            yield Finding(0, f"{access.source}: makemap makes {source.count} entries of it")
        except errors.SapdError as error:
            yield problem(error)
        except OSError as error:
            reason = f"was not tried with makemap: {folder}: {error.strerror}"
            yield problem(errors.SapdError(errors.status_of(error), access.source, reason))
    cf = os.path.join(root, "etc/mail/sendmail.cf")
    for folder in writable_folders(access.database, cf):
        reason = f"others may write there, so sendmail refuses {access.database}"
        yield Finding(errors.CANT_CREATE, f"{folder}: {reason}; chmod go-w {folder}")
    try:
        fd = files.open_in_place(access.database, writing=False)
    except FileNotFoundError:
        yield Finding(errors.CANT_CREATE, f"{access.database}: is missing; sapd run makes it")
        return
    except errors.SapdError as error:
        yield problem(error)
        return
    try:
        magic = os.pread(fd, 4, 12)
    finally:
        os.close(fd)
    if _HASH_MAGIC not in (int.from_bytes(magic, "little"), int.from_bytes(magic, "big")):
        yield Finding(
            errors.CANT_CREATE, f"{access.database}: is no hash database; sapd run makes it anew"
        )
    elif why := why_unreadable(access.database, cf):
        yield Finding(errors.NO_PERMISSION, f"{access.database}: {why}")
    elif not os.access(access.database, os.W_OK):
        reason = "is not writable for this user; run as root, or see examples/sendmail"
        yield Finding(errors.NO_PERMISSION, f"{access.database}: {reason}")
    elif published is not None and not untouched(access.database, published):
        yield Finding(
            errors.MAKEMAP_FAILED,
            f"{access.database}: was changed since sapd made it; sapd run makes it anew",
        )
    else:
        yield Finding(0, f"{access.database}: is a hash database")
