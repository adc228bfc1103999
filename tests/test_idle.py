"""A run leaves at once only where it would find nothing to do."""

import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from sapd import check, config, defaults, idle, run
from tests.servers.mounts import another_boot
from tests.site import Site, login, noise

pytestmark = pytest.mark.makemap


@pytest.fixture
def quiet(site: Site) -> Site:
    """A site where nothing happens any more, and that has noted it."""
    site.configure(top='formats_directory = "formats.d"\n[policy]\nnever = ["203.0.113.0/24"]')
    (site.folder / "formats.d").mkdir()
    site.write(*(noise(number) for number in range(10)), login("192.0.2.10"))
    site.run()
    settle(site)
    return site


def settle(site: Site) -> None:
    """Run until it is noted that nothing happens."""
    deadline = time.monotonic() + 20
    while not nothing_happened(site):
        assert time.monotonic() < deadline
        site.run()


def nothing_happened(site: Site) -> bool:
    return idle.nothing_happened(str(site.config))


def test_a_quiet_minute_is_noted_and_writes_nothing(quiet: Site) -> None:
    before = idle.Snapshot(map(str, quiet.folder.rglob("*")))
    quiet.run()
    assert idle.Snapshot(map(str, quiet.folder.rglob("*"))) == before


HAPPENINGS: dict[str, Callable[[Site], object]] = {
    "a line": lambda site: site.write(noise(1)),
    "half a line": lambda site: site.write("half"),
    "the log cut": lambda site: os.truncate(site.log, 10),
    "the log touched": lambda site: site.log.touch(),
    "the log rotated": lambda site: site.log.rename(f"{site.log}.1"),
    "the log replaced": lambda site: replace(site.log),
    "a rotated log appears": lambda site: Path(f"{site.log}.1").write_text(login("192.0.2.11")),
    "the log a link": lambda site: relink(site.log),
    "source": lambda site: site.source.write_text("192.0.2.10 REJECT\n"),
    "source gone": lambda site: site.source.unlink(),
    "database gone": lambda site: site.database.unlink(),
    "database rebuilt": lambda site: site.database.touch(),
    "database replaced": lambda site: replace(site.database),
    "state gone": lambda site: site.state.unlink(),
    "state edited": lambda site: site.state.write_text(site.state.read_text()),
    "configuration edited": lambda site: site.configure(window="1m"),
    "configuration touched": lambda site: site.config.touch(),
    "configuration replaced": lambda site: replace(site.config),
    "a format": lambda site: (site.folder / "formats.d/own.toml").write_text(""),
}


def replace(path: Path) -> None:
    """By one that looks the same but for its inode, as a careful editor does."""
    shutil.copy2(path, f"{path}~")
    os.rename(f"{path}~", path)


def relink(path: Path) -> None:
    path.rename(f"{path}-real")
    path.symlink_to(f"{path}-real")


@pytest.mark.parametrize("happening", HAPPENINGS.values(), ids=HAPPENINGS)
def test_what_happens_is_noticed(quiet: Site, happening: Callable[[Site], object]) -> None:
    happening(quiet)
    assert not nothing_happened(quiet)


def test_late_lines_of_a_rotated_log_are_noticed(quiet: Site) -> None:
    quiet.log.rename(f"{quiet.log}.1")
    quiet.write(noise(1))
    settle(quiet)
    with Path(f"{quiet.log}.1").open("a") as file:
        file.write(login("192.0.2.12"))
    quiet.run()
    assert quiet.open_addresses() == {"192.0.2.10", "192.0.2.12"}


def test_time_alone_ends_it(quiet: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    for moment, quietly in [(1700, True), (1801, False), (-600, False), (10 * 86400, False)]:
        monkeypatch.setattr(idle, "time", lambda moment=moment: now + moment)
        assert nothing_happened(quiet) == quietly, moment


@pytest.mark.servers
def test_another_boot_ends_it(quiet: Site) -> None:
    code = (
        f"import sys; from sapd import idle; sys.exit(idle.nothing_happened({str(quiet.config)!r}))"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, check=False).returncode == 1
    with_boot = [*another_boot(quiet.folder / "boot"), *command]
    assert subprocess.run(with_boot, check=False).returncode == 0


def test_another_program_ends_it(
    quiet: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = str(idle.Snapshot([str(shutil.copy2(idle.__file__, tmp_path))]))
    monkeypatch.setattr(idle, "_PROGRAM", other)
    assert not nothing_happened(quiet)


def test_it_is_noted_for_one_configuration(quiet: Site) -> None:
    other = quiet.folder / "other.toml"
    shutil.copy2(quiet.config, other)
    assert not idle.nothing_happened(str(other))
    link = quiet.folder / "link.toml"
    link.symlink_to(quiet.config)
    assert not idle.nothing_happened(str(link))


@pytest.mark.parametrize("text", [b"", b"\0" * 500, b"\xff", b"\n" * 20, b"idle"])
def test_a_damaged_note_says_nothing(quiet: Site, text: bytes) -> None:
    note = quiet.state.with_name(idle.NAME)
    whole = note.read_bytes()
    for damaged in (text, whole[:-1], whole + b"\n", whole.replace(b"\t", b" ", 1), whole[1:]):
        note.write_bytes(damaged)
        assert not nothing_happened(quiet)
    note.write_bytes(whole)
    assert nothing_happened(quiet)
    note.rename(f"{note}~")
    note.symlink_to(f"{note}~")
    assert not nothing_happened(quiet)
    note.unlink()
    os.mkfifo(note)
    assert not nothing_happened(quiet)


def test_a_guess_that_is_wrong_is_not_believed(quiet: Site) -> None:
    """The note of another folder is of another configuration."""
    quiet.config.write_text('# [state]\n# directory = "elsewhere"\n' + quiet.config.read_text())
    shutil.copytree(quiet.state.parent, quiet.folder / "elsewhere")
    assert not nothing_happened(quiet)
    settle_slowly = quiet.sapd("run")
    assert (settle_slowly.returncode, settle_slowly.stdout) == (0, "")


LOG = '[[log]]\npath = "state"\nformats = [\n  "qpopper",\n]\n'
STATE_TABLES = {
    # What is read for sure.
    "none": ("", True),
    "double quotes": ('[state]\ndirectory = "here"\n', True),
    "single quotes": ("[state]\ndirectory = '/var/lib/here'\n", True),
    "behind others": (f'[access]\nsource = "a"\n{LOG}[state]\ndirectory = "here"', True),
    "before others": (f'[state]\ndirectory = "here"\n{LOG}directory = "of a log"\n', True),
    "comments": ('#[state]\n[state] # "x"\n# directory = "no"\ndirectory = "here" # "x"', True),
    "blanks": (' [ state ]\t\r\n\tdirectory\t=  "here"\t\r\n', True),
    "the other quotes inside": ("""[state]\ndirectory = "here's"\n""", True),
    "a hash inside": ('[state]\ndirectory = "he#re"\n', True),
    "dots": ('[state]\ndirectory = "../x/./here/"\n', True),
    "empty table": ("[state]\n", True),
    # What is not.
    "escape": (r'[state]' + "\n" + r'directory = "h\u0065re"', False),
    "a quote inside": ('[state]\ndirectory = "he\\"re"\n', False),
    "several lines": ('[state]\ndirectory = """here"""\n', False),
    "several lines of literals": ("[state]\ndirectory = '''here'''\n", False),
    "in a text of several lines": (
        'window = """\n[state]\ndirectory = "no"\n"""\n[state]\ndirectory = "here"', False
    ),
    "dotted key": ('state.directory = "here"\n', False),
    "dotted key with blanks": ('state . directory = "here"\n', False),
    "dotted key in quotes": ('"state".directory = "here"\n', False),
    "dotted key with an escape": ('"st\\u0061te".directory = "here"\n', False),
    "inline table": ('state = { directory = "here" }\n', False),
    "table in quotes": ('["state"]\ndirectory = "here"\n', False),
    "table with an escape": ('["st\\u0061te"]\ndirectory = "here"\n', False),
    "key in quotes": ('[state]\n"directory" = "here"\n', False),
    "table in it": ('[state.directory]\nx = "here"\n', False),
    "list of tables": ('[[state]]\ndirectory = "here"\n', False),
    "no text": ("[state]\ndirectory = 3\n", False),
    "empty": ('[state]\ndirectory = ""\n', False),
    "another line's end in a comment": (
        '# \u2028[state]\u2028directory = "no"\n[state]\ndirectory = "here"\n', True
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "is_read"), STATE_TABLES.values(), ids=STATE_TABLES)
def test_the_states_folder_is_what_toml_says_or_not_told(
    tmp_path: Path, text: str, is_read: bool
) -> None:
    path = tmp_path / "sapd.toml"
    path.write_text(text, newline="")
    state = tomllib.loads(text).get("state", {})
    found = idle.state_directory(str(path))
    if not is_read:
        assert found is None
        return
    expected = os.path.normpath(tmp_path / state.get("directory", defaults.STATE_DIRECTORY))
    assert found == expected


def test_check_says_when_the_short_way_is_off_and_such_a_minute_is_right_all_the_same(
    site: Site,
) -> None:
    site.write(login("192.0.2.10"))
    off = f"{site.config}: idle passes are slower than necessary"

    def said() -> list[str]:
        found = check.findings(config.load(str(site.config)), str(site.folder))
        return [finding.text for finding in found if finding.text.startswith(off)]

    settle(site)
    assert said() == []
    text = site.config.read_text()
    for same in ("directory = 'state'", 'directory = "state/"  # here'):
        site.config.write_text(text.replace('directory = "state"', same))
        settle(site)
        assert said() == []
    site.config.write_text(text.replace("[state]", '["state"]'))
    assert said() == [f"{off}; write [state] directory in one line, in quotes, without escapes"]
    for _ in range(3):
        site.run()
        assert not nothing_happened(site)
    assert site.open_addresses() == {"192.0.2.10"}


@pytest.mark.parametrize("options", [["-n"], ["-v"], ["-vv"]])
def test_only_a_plain_run_leaves_at_once(quiet: Site, options: list[str]) -> None:
    done = quiet.sapd("run", *options, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert "sapd.reading.maillog" in done.stderr
    done = quiet.sapd("run", env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert "sapd.reading.maillog" not in done.stderr


def refuse(site: Site) -> None:
    site.source.write_text("Connect:192.0.2.10\tREJECT\n")
    site.write(login("192.0.2.10"))


WARNINGS: dict[str, tuple[Callable[[Site], object], str]] = {
    "ahead": (
        lambda site: site.write(login("192.0.2.10", at=time.time() + 600)),
        "logins stamped more than 120 s ahead of now",
    ),
    "refused": (refuse, "192.0.2.10: not opened"),
}


@pytest.mark.parametrize(("trouble", "words"), WARNINGS.values(), ids=WARNINGS)
def test_what_is_warned_of_is_noted_once_it_was_said(
    site: Site, trouble: Callable[[Site], object], words: str
) -> None:
    settle(site)
    trouble(site)
    assert not nothing_happened(site)
    done = site.sapd("run")
    assert (done.returncode, words in done.stderr) == (0, True)
    assert not nothing_happened(site)
    settle(site)


def test_what_goes_on_failing_is_never_noted(site: Site) -> None:
    settle(site)
    site.write(login("192.0.2.10"))
    site.configure(access_settings='makemap = "/nonexistent"')
    for _ in range(4):
        assert site.sapd("run").returncode == 69
        assert not nothing_happened(site)


def test_a_change_between_the_look_and_the_reading_is_seen_the_next_time(
    quiet: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here of the configuration, right after it was read, and of the log, right after its end."""
    settings = config.load(str(quiet.config))
    time.sleep(0.15)
    quiet.configure(window="1m")
    time.sleep(0.15)
    run.once(settings)
    assert not nothing_happened(quiet)
