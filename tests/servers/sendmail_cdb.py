"""A sendmail that knows cdb maps, as RHEL's does: Debian's own source package, built with CDB.

Debian's packages have it without. The source is fetched by apt, built in a folder of the tests,
and gone at their end; it takes about 20 seconds, so what needs it is marked as slow.
"""

import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.servers.packages import source, unpacked

SETTINGS = """\
define(`confMAPDEF', `-DNEWDB -DCDB -DMAP_REGEX')
define(`confENVDEF', `-DNETINET6=1 -DHASFLOCK=1 -DNIS=0')
define(`confINCDIRS', `-I{include}')
define(`confLIBS', `{libraries}/libcdb.a {libraries}/libdb.a -lpthread -lresolv')
define(`confOPTIMIZE', `-O0')
define(`confLDOPTS', `')
"""
PARTS = ("libsm", "libsmutil", "libsmdb", "sendmail", "makemap")


class Programs(NamedTuple):
    """Where the two programs are."""

    sendmail: str
    makemap: str


@cache
def built() -> Programs:
    """The programs; RuntimeError with the compiler's words if they can't be built."""
    tree = source("sendmail")
    libraries = unpacked("libcdb-dev", "libdb-dev") / "usr"
    (archive,) = libraries.glob("lib/*/libcdb.a")
    settings = SETTINGS.format(include=libraries / "include", libraries=archive.parent)
    (tree / "devtools/Site/site.config.m4").write_text(settings)
    for part in PARTS:
        done = subprocess.run(
            ["./Build"], cwd=tree / part, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{part} can't be built: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return Programs(*(str(program(tree, name)) for name in Programs._fields))


def program(tree: Path, name: str) -> Path:
    (found,) = tree.glob(f"obj.*/{name}/{name}")
    return found
