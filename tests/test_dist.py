"""What is in the wheel and in the source distribution: all that is needed, and nothing else."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path, PurePosixPath

import pytest

from sapd import __main__ as program
from sapd.shipped import FILES
from tests.folders import PACKAGE, ROOT
from tests.test_imports import ARROWS

BUILT = os.environ.get("SAPD_DIST")  # where tests/run.sh built what it tries


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both: those that are tried, or new ones of this checkout."""
    if BUILT:
        return Path(BUILT)
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def sources(names: list[str]) -> set[str]:
    apart = ("sapd/bin/", "sapd/share/")
    return {name for name in names if name.startswith("sapd/") and not name.startswith(apart)}


def test_the_wheel_and_the_sdist(dist: Path) -> None:
    [wheel], [sdist] = dist.glob("*.whl"), dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        members = {PurePosixPath(*Path(m.name).parts[1:]): m for m in archive.getmembers()}
    given = [str(name) for name in members]
    assert {PurePosixPath(name).parts[0] for name in given} == {
        ".ci", ".gitignore", "PKG-INFO", "README.md",
        "cron", "examples", "pyproject.toml", "sapd", "tests",
    }  # fmt: skip
    unwanted = r"(^|/)(__pycache__|state|\..*_cache|\.hypothesis)/|\.(pyc|db|new)$"
    assert [name for name in given if re.search(unwanted, name)] == []
    assert members[PurePosixPath(".ci/run")].mode & 0o111

    with zipfile.ZipFile(wheel) as zipped:
        packed = zipped.namelist()
        [script] = [name for name in packed if name.endswith(".data/scripts/sapd")]
        [about] = [name for name in packed if name.endswith(".dist-info/METADATA")]
        assert zipped.read(script).startswith(b"#!python\n")
        metadata = Parser().parsestr(zipped.read(about).decode())
        for name in sources(packed):
            assert zipped.read(name) == (PACKAGE.parent / name).read_bytes(), name
        for name in (path for files in FILES.values() for path in files.values()):
            assert zipped.read(f"sapd/share/{name}") == (ROOT / name).read_bytes(), name
        assert len([name for name in packed if name.startswith("sapd/share/")]) == len(
            {path for files in FILES.values() for path in files.values()}
        )
    assert sources(packed) == sources(given)
    modules = {name.replace(".", "/").replace("__init__", "") for name in ARROWS}
    for module in filter(None, modules):
        assert {f"sapd/{module}.py", f"sapd/{module}/__init__.py"} & sources(packed), module
    for page, folder in {"sapd.8": "man8", "sapd.toml.5": "man5"}.items():
        assert f"{script.split('/')[0]}/data/share/man/{folder}/{page}" in packed
    assert {name.split("/")[0] for name in packed} - {"sapd"} == {
        script.split("/")[0], about.split("/")[0]
    }  # fmt: skip
    assert metadata["Requires-Python"] == ">=3.11"
    needed = [re.match(r"[\w-]+", row) for row in metadata.get_all("Requires-Dist", [])]
    assert sorted(found[0] for found in needed if found) == ["click", "python-dateutil"]


def test_what_is_tried_is_the_wheel() -> None:
    """Where `tests/run.sh` starts the tests; elsewhere it is the checkout."""
    assert program.__file__ == str(PACKAGE / "__main__.py")
    assert (PACKAGE.parent == ROOT) == (BUILT is None)
    code = "import sapd; print(sapd.__file__)"
    found = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert Path(found.strip()).parent == PACKAGE
