"""Fixtures for all tests."""

import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests import needs
from tests.servers.packages import SHARED
from tests.site import Site

APART = {f"tests/servers/test_{name}.py" for name in ("exim", "hosts", "mailservers", "postfix")}
"""The files whose tests take long and share nothing, so that several processes may have them."""

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
os.umask(0o022)  # as sapd's own entry point has it for what the tests call without it


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also the long loops: tests/slow.sh")


def pytest_configure(config: pytest.Config) -> None:
    needs.watch()
    if not hasattr(config, "workerinput"):  # the process that starts the others, or the only one
        os.environ[SHARED] = tempfile.mkdtemp(prefix="sapd-")


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ[SHARED], ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the slow ones out; not by addopts, which any other `-m` would replace."""
    if not config.getoption("slow"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Like loadfile, where one process has all tests of a file, but for those in `APART`."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    def unit(nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return nodeid if path in APART else path

    scheduler = LoadFileScheduling(config, log)
    scheduler._split_scope = unit
    return scheduler


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool | None, bool | None]:
    needs.marked(mark.name for mark in item.iter_markers())
    try:
        return (yield)
    finally:
        needs.marked(None)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users may enter, unlike tmp_path."""
    with tempfile.TemporaryDirectory(prefix="sapd-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)
