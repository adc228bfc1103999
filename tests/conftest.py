"""Fixtures for all tests."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.site import Site

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users may enter, unlike tmp_path."""
    with tempfile.TemporaryDirectory(prefix="sapd-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)
