"""Another program, run to its end: what goes in, what comes out, and no wait without a bound."""

import os
import time
from pathlib import Path

import pytest

from sapd import child

LARGE = bytes(range(256)) * 8192  # 2 MiB: more than any pipe holds


def open_descriptors() -> set[str]:
    return set(os.listdir("/dev/fd"))


def script(folder: Path, text: str) -> str:
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("stream", [1, 2])
def test_one_stream_is_heard_and_the_other_goes_nowhere(tmp_path: Path, stream: int) -> None:
    program = script(tmp_path, "echo out; echo err >&2; exit 3")
    assert child.run([program], b"", stream, 10) == (3, [b"out\n", b"err\n"][stream - 1])


def test_much_goes_in_and_out() -> None:
    assert child.run(["cat"], LARGE, 1, 30) == (0, LARGE)


def test_a_program_need_not_read_what_it_is_given() -> None:
    assert child.run(["true"], LARGE, 1, 30) == (0, b"")


def test_a_signal_is_told() -> None:
    assert child.run(["sh", "-c", "kill -TERM $$"], b"", 1, 10).status == -15


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    before = open_descriptors()
    with pytest.raises(FileNotFoundError) as raised:
        child.run([str(tmp_path / "gone")], b"", 1, 10)
    assert raised.value.filename == str(tmp_path / "gone")
    assert open_descriptors() == before


@pytest.mark.parametrize(
    "program",
    ["sleep 60", "exec >&- 2>&-; sleep 60", "while :; do echo more; done"],
    ids=["silent", "closed its output", "talks on"],
)
def test_a_program_that_never_ends_is_ended(program: str) -> None:
    before, start = open_descriptors(), time.monotonic()
    with pytest.raises(TimeoutError):
        child.run(["sh", "-c", program], b"", 1, 0.2)
    assert time.monotonic() - start < 5
    assert open_descriptors() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # nobody is left to be waited for


def test_what_it_makes_is_its_users_alone(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    os.umask(umask)
    child.run(["touch", str(tmp_path / "made")], b"", 1, 10)
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o600
    assert os.umask(umask) == umask


def test_output_is_read_while_a_program_runs() -> None:
    with child.Running(["sh", "-c", "echo one; echo why >&2; exit 4"]) as running:
        assert b"".join(running.blocks(10)) == b"one\n"
        assert running.end(10) == (4, b"why\n")


def test_a_running_program_that_falls_silent_is_ended() -> None:
    before = open_descriptors()
    with (
        child.Running(["sh", "-c", "echo one; exec sleep 60"]) as running,
        pytest.raises(TimeoutError),
    ):
        for _ in running.blocks(0.2):
            pass
    assert open_descriptors() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
