"""A run killed in the midst of cutting a log, to which lines came that it had not read."""

import ctypes  # noqa: F401 -- else the first cut would import it, step by step
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from sapd import config, cut, run, who
from tests.faults.killed import killed
from tests.servers.filesystems import mounted
from tests.site import Site, login

pytestmark = pytest.mark.servers

NOW = 1_800_000_000
UNREAD = login("192.0.2.1", "bob", NOW) + login("192.0.2.2", "eve", NOW)
FORGED = login("203.0.113.66", "eve", NOW)
SHIFT = 8192  # bytes that the cut takes out: whole blocks
READ = SHIFT + 200  # bytes of the log before what is unread


def lines_with_a_strangers_words_at(*offsets: int) -> str:
    """Lines of `READ` bytes, in which what looks like a login stands at these offsets."""
    text = ""
    for offset in offsets:
        text += "x" * (offset - len(text) - 7) + "\nfrom=<" + FORGED
    return text + "x" * (READ - len(text) - 1) + "\n"


@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_a_kill_at_any_step_of_a_cut_loses_no_login_and_makes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Where a step ends before the rest of a line, that rest is a stranger's words."""
    rests = READ + len(UNREAD) - SHIFT, SHIFT
    with mounted(tmp_path, kind, megabytes=16) as folder:
        for step in count():
            site = Site(folder)
            site.configure(log_settings="keep_lines = 1")
            site.log.write_text(lines_with_a_strangers_words_at(*rests))
            settings = config.load(str(site.config))
            if not run_killed_in_its_cut(site, settings, monkeypatch, step):
                break
            assert run.once(settings, NOW).status == 0
            assert {grant.address for grant in who.grants(settings, NOW)[0]} == {
                "192.0.2.1",
                "192.0.2.2",
            }, step
            site.state.unlink()
    assert step > 1


class _Over(BaseException):
    """A run that goes no further."""


def run_killed_in_its_cut(
    site: Site, settings: config.Config, monkeypatch: pytest.MonkeyPatch, step: int
) -> bool:
    """Have the server write before the cut, and the run end at that step of it, if it has one."""
    plan, perform = cut.plan, cut.perform
    came_so_far = False

    def plan_after_more(*args: Any) -> cut.Cut | None:
        site.write(UNREAD)
        return plan(*args)

    def performed_in_part(fd: int, planned: cut.Cut) -> None:
        nonlocal came_so_far
        assert planned.shift == SHIFT
        came_so_far = killed(step, lambda: perform(fd, planned))
        raise _Over

    with monkeypatch.context() as patch:
        patch.setattr(cut, "plan", plan_after_more)
        patch.setattr(cut, "perform", performed_in_part)
        with pytest.raises(_Over):
            run.once(settings, NOW)
    return came_so_far
