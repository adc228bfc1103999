"""What the tests' machine is known not to be able to do: each point, with its reason.

A test that can't do what it is for calls `impossible`. It then fails, unless the point stands here:
nothing is passed over in silence.
"""

from typing import NoReturn

import pytest

KNOWN: dict[str, str] = {}
"""{point: reason}."""


def impossible(point: str, why: str) -> NoReturn:
    """Skip the test if the list names the point, else fail; `why` is what the machine said."""
    if point in KNOWN:
        pytest.skip(f"{point}: {KNOWN[point]}")
    pytest.fail(f"{point}: {why}; if this machine can't, say so in tests/impossible.py")
