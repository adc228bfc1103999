"""A test that needs what its marks don't speak of fails, wherever it runs."""

import os
import subprocess
from pathlib import Path

import pytest

from sapd import child
from tests.site import MAKEMAP, Site


@pytest.mark.parametrize(
    ("program", "mark"), [(MAKEMAP, "makemap"), ("setpriv", "root"), ("strace", "servers")]
)
def test_no_program_is_started_without_its_mark(program: str, mark: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=f"mark it with @pytest.mark.{mark}$"):
        subprocess.run([program], check=False)
    with pytest.raises(pytest.fail.Exception, match=f"mark it with @pytest.mark.{mark}$"):
        subprocess.run(["env", program], check=False)
    with pytest.raises(pytest.fail.Exception, match=f"mark it with @pytest.mark.{mark}$"):
        child.run([program], b"", 1, 5)


def test_no_file_is_given_away(tmp_path: Path) -> None:
    os.chown(tmp_path, -1, os.getegid())
    with pytest.raises(pytest.fail.Exception, match=r"mark it with @pytest.mark.root$"):
        os.chown(tmp_path, os.geteuid() + 1, -1)


def test_no_sapd_makes_a_map(site: Site) -> None:
    """Here a stand-in does, so that the test itself needs no makemap."""
    stand_in = site.folder / "python"
    stand_in.write_text(f"#!/bin/sh\necho >{site.database}\n")
    stand_in.chmod(0o755)
    with pytest.raises(pytest.fail.Exception, match=r"mark it with @pytest.mark.makemap$"):
        site.sapd("run", python=str(stand_in))
