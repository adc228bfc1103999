"""What a run has to load, which is most of what a minute costs."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from sapd import idle
from sapd.__main__ import _plain_run
from sapd.defaults import CONFIG
from tests.faults.tracing import Trace
from tests.site import Site, login, noise

pytestmark = pytest.mark.makemap

HEAVY = {
    "ipaddress",
    "subprocess",
    "hashlib",
    "click",
    "dateutil",
    "dataclasses",
    "inspect",
    "pathlib",
    "ast",
    "difflib",
    "tempfile",
}


def loaded(site: Site, *arguments: str, beside: str = "") -> set[str]:
    """The modules that the program loads, and Python alone does not."""
    code = (
        "import os, sys; before = set(sys.modules); os._exit = sys.exit\n"
        f"sys.argv = {['sapd', *arguments]!r}\n"
        "try:\n from sapd.__main__ import main; main()\n"
        "except SystemExit as end:\n assert not end.code, end.code\n"
        "print(*sorted(set(sys.modules) - before), file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=site.folder)
    return set(done.stderr.split())


def test_an_idle_minute_loads_next_to_nothing(site: Site) -> None:
    site.write(noise(1), login("192.0.2.10"))
    plain = ("run", "-c", str(site.config))
    for _ in range(10):
        found = loaded(site, *plain)
        if "sapd.run" not in found:
            break
    assert found == {"__future__", "sapd", "sapd.__main__", "sapd.idle", "sapd.defaults"}


@pytest.mark.servers
def test_an_idle_turn_reads_two_small_files_and_looks_at_the_rest(
    site: Site, tmp_path_factory: pytest.TempPathFactory
) -> None:
    site.write(noise(1), login("192.0.2.10"))
    while not idle.nothing_happened(str(site.config)):
        site.run()
    trace = Trace(tmp_path_factory.mktemp("trace") / "of")
    done = site.sapd("run", "--for", "2s", prefix=trace.prefix)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    [calls] = trace.processes()
    asked = [(call, path) for call in calls for path in call.paths if str(site.folder) in path]
    opened = Counter(Path(path).name for call, path in asked if call.name == "openat")
    assert opened == {"sapd.toml": 3, "idle": 3}
    assert all("O_RDONLY" in call.arguments for call, _ in asked if call.name == "openat")
    looks = Counter(path for call, path in asked if call.name != "openat")
    # In each turn the name, and where it leads to; of the trace of a pass the name alone.
    assert set(looks.values()) <= {3, 6}, looks
    assert len(looks) < 12


def test_a_busy_run_loads_no_heavy_modules(site: Site) -> None:
    site.write(noise(1))
    site.run()  # the first looks for the window's edge
    site.write(login("192.0.2.10"))
    found = loaded(site, "run", "-c", str(site.config))
    assert "sapd.maps.sendmail" in found
    assert found & HEAVY == set()
    assert {name for name in found if name.startswith("sapd")} == {
        "sapd", "sapd.__main__", "sapd.addresses", "sapd.audit", "sapd.child", "sapd.config",
        "sapd.cut", "sapd.decision", "sapd.defaults", "sapd.errors", "sapd.events",
        "sapd.events.context", "sapd.events.doubts", "sapd.events.formats", "sapd.events.frames",
        "sapd.events.framing", "sapd.events.kinds", "sapd.events.prefixes",
        "sapd.events.recogniser", "sapd.events.scan", "sapd.files", "sapd.idle", "sapd.intake",
        "sapd.maps", "sapd.maps.access", "sapd.maps.databases", "sapd.maps.live",
        "sapd.maps.makemap", "sapd.maps.sendmail", "sapd.maps.sendmail_cf",
        "sapd.maps.sendmail_entries", "sapd.messages", "sapd.publishing", "sapd.reading",
        "sapd.reading.dated", "sapd.reading.logfile", "sapd.reading.maillog",
        "sapd.reading.place", "sapd.reading.plan", "sapd.reading.rotated", "sapd.relay",
        "sapd.report", "sapd.run", "sapd.settings", "sapd.state", "sapd.timestamps",
        "sapd.toml_file", "sapd.toml_table",
    }  # fmt: skip


def test_help_loads_nothing_that_reads_logs_only_to_check_them(site: Site) -> None:
    found = loaded(site, "--help")
    assert "click" in found
    assert not any(name.startswith("sapd.check") for name in found)
    assert "sapd.events.explain" not in found
    assert "dateutil" not in found


def test_a_pass_that_is_repeated_loads_no_click(site: Site) -> None:
    site.write(noise(1), login("192.0.2.10"))
    found = loaded(site, "run", "--for", "1s", "--every", "1s", "-c", str(site.config))
    assert "sapd.repeat" in found
    assert "click" not in found


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["list"], ["run", "-n"], ["run", "-v", "-v"], ["run", "-c"], ["run", "--every", "1s"],
        ["run", "-c", "a", "-c", "b"], ["run", "-c", "a", "--config", "b"], ["run", "--at", "1s"],
        ["run", "--for", "1s", "--for", "2s"], ["run", "--for=1s"], ["list", "-c", "a"],
    ],
)  # fmt: skip
def test_whatever_is_no_plain_run_is_left_to_click(arguments: list[str]) -> None:
    assert _plain_run(arguments) is None


def test_a_plain_run_needs_no_click() -> None:
    assert _plain_run(["run"]) == {"-c": os.environ.get("SAPD_CONFIG") or CONFIG}
    assert _plain_run(["run", "--config", "a"]) == {"-c": "a"}
    assert _plain_run(["run", "--for", "1m", "-c", "a"]) == {"-c": "a", "--for": "1m"}
