"""What is said of the mistakes that people make in the configuration: all of them, each in a line.

Each line names the file, the line or key, what is wrong, and a line that would be right.
"""

import json
import os
import re
import tomllib
from pathlib import Path

import pytest

from sapd import config, settings, toml_lines
from tests.site import Site

LOG = '[[log]]\npath = "mail.log"\nformats = ["dovecot"]\n'
MISTAKES: list[tuple[str, list[str]]] = [
    (
        "",
        ['log is missing; add the POP server\'s log; example: [[log]], and below it path = '
         '"/var/log/mail.log"'],
    ),
    (
        "windw = \"1h\"\n" + LOG,
        ['line 1: windw is not a setting; did you mean "window"? Example: window = "30m"'],
    ),
    (
        LOG + 'colour = "red"',
        ["line 4: log.colour is not a setting; known are cut_above, formats, "],
    ),
    (
        'never = ["10.0.0.0/8"]\n' + LOG,
        ['line 1: never belongs in [policy]; example: never = ["192.0.2.0/24"]'],
    ),
    (
        LOG + '[state]\nwindow = "1h"',
        ["line 5: state.window belongs at the top, before the first [ or in [[network]]; "
         'example: window = "30m"'],
    ),
    (
        'window = "1h"\n' + LOG.replace("path", "\n\npath") + '[policy]\n\n',
        [],
    ),
    (
        f'window = "1h"\n\nwindow = "2h"\n{LOG}path = "other"',
        ["window appears twice (lines 1 and 3); keep one of them",
         "log.path appears twice (lines 5 and 7); keep one of them"],
    ),
    (
        LOG + "[policy]\none_address_per_account = true\n[policy]\nnever = []",
        ["[policy] appears twice (lines 4 and 6); put all below one of them"],
    ),
    (
        "window = 30m\n" + LOG,
        ["line 1 is not TOML: Expected newline or end of document after a statement: "
         'window = 30m; example: window = "30m"'],
    ),
    (
        "window = 30\n" + LOG,
        ['line 1: window must be a quoted string; example: window = "30m"'],
    ),
    (
        'window = "30"\n' + LOG,
        ['line 1: window is "30"; write a number and s, m, h or d, as "30m", up to 366d; '
         'example: window = "30m"'],
    ),
    (
        "[[log]]\npath = /var/log/mail.log",
        ["line 2 is not TOML: Invalid value: path = /var/log/mail.log; "
         'example: path = "/var/log/mail.log"'],
    ),
    (
        '[log]\npath = "mail.log"',
        ["line 1: log must be one or more tables, as [[log]]; "
         'example: [[log]], and below it path = "/var/log/mail.log"'],
    ),
    (
        "[[log\n",
        ["line 1 is not TOML: Expected ']]' at the end of an array declaration: [[log; "
         "strings stand in quotes, lists in brackets, tables begin with [name] or [[name]]"],
    ),
    (
        "[[log]]\nformats = []\nkeep_lines = 0",
        ['line 1: log.path is missing; example: path = "/var/log/mail.log"',
         "line 2: log.formats is empty; known are ",
         "line 3: log.keep_lines is 0; it must be at least 1; example: keep_lines = 1_000_000"],
    ),
    (
        LOG.replace('["dovecot"]', '"dovecot"'),
        ['line 3: log.formats must be a list of quoted strings; example: formats = ["dovecot"]'],
    ),
    (
        LOG.replace("dovecot", "dovecott"),
        ['line 3: log.formats has no format "dovecott"; did you mean "dovecot"? '
         'Example: formats = ["dovecot"]'],
    ),
    (
        LOG + "keep_lines = 100\ncut_above = 50",
        ["line 5: log.cut_above is 50, less than keep_lines 100; make it at least that; "
         "example: cut_above = 1_100_000"],
    ),
    (
        LOG + 'timezone = "Berlin"',
        ['line 4: log.timezone is wrong: no time zone "Berlin"; names look like Europe/Berlin or '
         'UTC; example: timezone = "Europe/Berlin"'],
    ),
    (
        LOG + '[access]\nserver = "sendmial"',
        ['line 5: access.server is "sendmial"; did you mean "sendmail"? '
         'Example: server = "postfix"'],
    ),
    (
        LOG + '[access]\nserver = "exim"\nsource = "/etc/mail/access"\n[policy]\nclient_rate = 3',
        ['line 6: access.source has no effect with access.server = "exim"; remove it',
         'line 8: policy.client_rate has no effect with access.server = "exim"; remove it'],
    ),
    (
        LOG + '[access]\nserver = "tcpserver"',
        ['line 4: access.source is missing, which access.server = "tcpserver" needs; name the text '
         'of your own rules; example: source = "/etc/mail/access" (tcpserver: "/etc/tcp.smtp")'],
    ),
    (
        LOG + '[access]\ndatabase = "relay"\n',
        ["line 5: access.database must end in .db, because makemap appends it to hash maps; "
         'example: database = "/etc/mail/access.db"'],
    ),
    (
        LOG + '[policy]\nnever = ["10.0.0.1/8"]\ndeny_accounts = ""',
        ['line 5: policy.never has "10.0.0.1/8", which has host bits set; write '
         '"10.0.0.0/8"',
         'line 6: policy.deny_accounts must be a list of quoted strings; '
         'example: deny_accounts = ["backup", "bob@*"]'],
    ),
    (
        LOG + '[[network]]\nwindow = "8h"\n[[network]]\nnetworks = ["10.0.0.0/8"]\nwindow = 8',
        ['line 4: network.networks is missing; example: networks = ["10.0.0.0/8"]',
         'line 8: network.window must be a quoted string; example: window = "8h"'],
    ),
    (
        LOG + "[audit]\nkeep_lines = -1\nsyslog = 1",
        ["line 5: audit.keep_lines is -1; it must be at least 0; example: keep_lines = 10_000",
         "line 6: audit.syslog must be true or false; example: syslog = true"],
    ),
    (
        LOG + LOG,
        ['line 5: log.path names the same file as line 2; remove one [[log]]'],
    ),
    (
        'window = "0m"\n' + LOG,
        ['line 1: window is "0m"; it must be more than 0; example: window = "30m"'],
    ),
    (
        "\ufeffwindow = \"1h\"\n" + LOG,
        ["begins with a byte order mark; save the file without one"],
    ),
    (
        '[[log]]\njournal = ["dovecot"]\n',
        ['line 2: log.journal '],
    ),
    (
        LOG.replace("dovecot", "ourpop"),
        ['line 3: log.formats has no format "ourpop"; known are '],
    ),
    (
        LOG.replace("mail.log", "mail.log.1.gz"),
        ['line 2: log.path is compressed; name the file that is written to; '
         'example: path = "/var/log/mail.log"'],
    ),
    (
        'windw = "1h"\nnever = []\n[[log]]\npth = "a"\n[[log]]\npath = 3\nformats = ["x"]\n'
        '[access]\ntype = "hsh"\ntag = 1\n[stat]\n',
        ['line 1: windw is not a setting; did you mean "window"? Example: window = "30m"',
         'line 2: never belongs in [policy]; example: never = ["192.0.2.0/24"]',
         'line 4: log.pth is not a setting; did you mean "path"? '
         'Example: path = "/var/log/mail.log"',
         'line 6: log.path must be a quoted string; example: path = "/var/log/mail.log"',
         'line 7: log.formats has no format "x"; ',
         'line 9: access.type is "hsh"; did you mean "hash"? Example: type = "hash"',
         'line 10: access.tag must be a quoted string; example: tag = "Connect:"',
         'line 11: stat is not a setting; did you mean "state"? Example: [state], and below it '
         'directory = "/var/lib/sapd"'],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), MISTAKES)
def test_every_mistake_is_told_in_a_line(site: Site, text: str, said: list[str]) -> None:
    site.config.write_text(text)
    done = site.sapd("list")
    assert done.returncode == (78 if said else done.returncode)
    lines = [line for line in done.stderr.splitlines() if line.startswith("sapd: error: ")]
    assert len(lines) == len(said), done.stderr
    for line, expected in zip(lines, said, strict=True):
        expected = expected.replace("FOLDER", str(site.folder))
        assert line.startswith(f"sapd: error: {site.config}: {expected}")
        assert expected.endswith(" ") or line.endswith(expected)


def test_a_format_of_ones_own_is_asked_for(site: Site) -> None:
    site.config.write_text(LOG.replace("dovecot", "ourpop"))
    said = site.sapd("list").stderr
    assert "; or put ourpop.toml into /etc/sapd/formats.d; example: " in said


def test_the_line_that_is_not_utf8(site: Site) -> None:
    site.config.write_bytes(f"{LOG}# B\xfcro\n".encode("latin-1"))
    done = site.sapd("list")
    assert (done.returncode, done.stderr) == (
        78, f"sapd: error: {site.config}: line 4 is not UTF-8; save the file in UTF-8\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("FIFO", "can't be read: it is not a regular file; name the configuration with -c"),
        ("folder", "is a folder; name the configuration with -c"),
        ("link", "is a link to nowhere, which is missing; mend or remove the link"),
    ],
)
def test_what_is_no_file_is_told_in_a_line(site: Site, what: str, said: str) -> None:
    site.config.unlink()
    if what == "FIFO":
        os.mkfifo(site.config, 0o600)
    elif what == "folder":
        site.config.mkdir()
    else:
        site.config.symlink_to("nowhere")
    for command in (["list"], ["run"], ["close", "--all"]):
        done = site.sapd(*command)
        assert (done.returncode, done.stdout) == (78, "")
        assert done.stderr == f"sapd: error: {site.config}: {said}\n"
    [found] = json.loads(site.sapd("check", "--json").stdout)
    assert f"{found['text']}; {found['remedy']}" == f"{site.config}: {said}"


def test_there_are_twenty() -> None:
    assert len([said for _, said in MISTAKES if said]) >= 20


def test_the_examples_are_good_toml() -> None:
    for table, keys in settings.EXAMPLES.items():
        for key, example in keys.items():
            if table:
                assert tomllib.loads(re.sub(r" \(.*", "", example)).keys() == {key}


def test_the_lines_of_settings() -> None:
    text = 'a = 1\n# a = 2\n[[log]]\n  path = "x"\n[[log]]\npath="y"\n[ policy ]\nnever=[\n]\n'
    assert [(line, *place) for line, place in toml_lines.places(text)] == [
        (1, "", 0, "a"), (3, "log", 0, ""), (4, "log", 0, "path"), (5, "log", 1, ""),
        (6, "log", 1, "path"), (7, "policy", 0, ""), (8, "policy", 0, "never"),
    ]  # fmt: skip
    assert toml_lines.line_of(text, toml_lines.Place("log", 1, "path")) == 6
    assert toml_lines.line_of(text, toml_lines.Place("log", 1, "formats")) == 5
    assert toml_lines.line_of(text, toml_lines.Place("state", 0, "directory")) is None
    assert toml_lines.line_of("policy.never = []", toml_lines.Place("policy", 0, "never")) == 1


def test_what_can_be_read_beside_a_mistake_is_not_made_of_what_is_wrong(tmp_path: Path) -> None:
    """A section that has any mistake is not gone by, though it was read on without that."""
    path = tmp_path / "sapd.toml"
    for wrong in ('never = ["x"]', "after_logout = 3", "max_accounts_per_address = 0"):
        path.write_text(f"{LOG}[policy]\ndeny_accounts = []\n{wrong}\n")
        with pytest.raises(config.Mistake) as raised:
            config.load(str(path))
        assert raised.value.readable.rules is None
        assert raised.value.readable.access is not None
    path.write_text(f"{LOG}[[network]]\nnetworks = []\nwindow = 1\n")
    with pytest.raises(config.Mistake) as raised:
        config.load(str(path))
    assert raised.value.readable.rules is None
    path.write_text(f"{LOG}keep_lines = 0\n[access]\ntag = 1\n")
    with pytest.raises(config.Mistake) as raised:
        config.load(str(path))
    assert raised.value.readable.rules is not None
    assert raised.value.readable.access is None
