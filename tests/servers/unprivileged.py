"""sapd as an ordinary user may start it, wherever the tests' own Python lies."""

import importlib.util
import shutil
from importlib.metadata import distribution
from pathlib import Path

NOBODY = 65534
PREFIX = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
PYTHON = "/usr/bin/python3"


def installed_for_everybody(folder: Path) -> dict[str, str]:
    """Copy sapd and what it needs into `folder`/library; the environment for `PYTHON`."""
    library = folder / "library"
    for package in ("sapd", "click", "dateutil"):
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        shutil.copytree(Path(spec.origin).parent, library / package)
    six = importlib.util.find_spec("six")  # only dateutil 2 needs it
    if six is not None and six.origin is not None:
        shutil.copy(six.origin, library)
    about = Path(str(distribution("sapd").locate_file("")))
    for found in about.glob("sapd-*.dist-info"):  # which --version reads
        shutil.copytree(found, library / found.name)
    return {"PYTHONPATH": str(library), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONSAFEPATH": "1"}


def let_everybody_in(folder: Path) -> None:
    """Make a folder of the tests' reachable for any user."""
    for above in (folder, *folder.parents):
        mode = above.stat().st_mode
        if mode & 0o005 != 0o005:
            above.chmod(mode | 0o055)
