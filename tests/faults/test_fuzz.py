"""The parsers, fed with bytes that look for code not reached before.

A bounded and repeatable number of runs of each target; a long one is

    python -m tests.faults.fuzz lines -max_total_time=3600 FOUND

What once made a target fail, or reached what little else does, is kept in `seeds/`.
"""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.targets import TARGETS
from tests.folders import ROOT
from tests.impossible import impossible

RUNS = {
    "lines": 1500,
    "torn": 3000,
    "stamps": 3000,
    "saved": 1500,
    "source": 2000,
    "settings": 3000,
    "server": 2000,
}


@pytest.mark.parametrize("name", TARGETS)
def test_what_it_starts_from_does_no_harm(name: str) -> None:
    seeds = TARGETS[name].seeds()
    assert seeds
    for seed in seeds:
        TARGETS[name].run(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_no_bytes_do_harm(name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        impossible("atheris", "there is no such package for this machine and Python")
    command = [sys.executable, "-m", "tests.faults.fuzz", name]
    options = [f"-runs={RUNS[name]}", "-seed=1", "-timeout=20", f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run(
        [*command, *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    found = [path.read_bytes() for path in tmp_path.iterdir()]
    assert done.returncode == 0, (found, done.stdout, done.stderr[-3000:])
    # It may go on to the end of a round.
    assert int(re.findall(r"^Done (\d+) runs", done.stderr, re.MULTILINE)[0]) >= RUNS[name]
