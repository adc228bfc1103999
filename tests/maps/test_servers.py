"""What the other mail servers' maps have in common: their settings, and what they refuse."""

import json
from pathlib import Path
from typing import Any

import pytest

from sapd import maps
from sapd.errors import SapdError
from sapd.toml_table import Table

NEEDED: dict[str, dict[str, Any]] = {
    "postfix": {"type": "hash"},
    "exim": {},
    "opensmtpd": {},
    "tcpserver": {"source": "/etc/tcp.smtp"},
}
OTHERS = {
    "postfix": ["source", "makemap", "tag", "self_closing", "cf", "table"],
    "exim": ["source", "makemap", "builder", "tag", "self_closing", "cf", "type", "table"],
    "opensmtpd": ["source", "makemap", "tag", "self_closing", "cf", "type"],
    "tcpserver": ["makemap", "tag", "self_closing", "cf", "type", "table"],
}
EACH = pytest.mark.parametrize("server", NEEDED)


def access_of(access: dict[str, Any], policy: dict[str, Any] | None = None) -> maps.Access:
    file = "/etc/sapd/sapd.toml"
    return maps.access_of(Table(file, "access", access), Table(file, "policy", policy or {}))


def refusal(access: dict[str, Any], policy: dict[str, Any] | None = None) -> str:
    with pytest.raises(SapdError) as raised:
        access_of(access, policy)
    assert raised.value.status == 78
    return raised.value.reason


@EACH
def test_the_options_make_a_map_and_can_be_kept_as_json(server: str) -> None:
    access = access_of({"server": server, **NEEDED[server]})
    assert access.server == server
    options = json.loads(json.dumps(access.options))
    assert options == access.options
    made = maps.chosen(maps.Access(server, options))
    assert made.path in made.files().values()
    assert made.path in made.watched()


@pytest.mark.parametrize(
    ("server", "setting"), [(server, name) for server, names in OTHERS.items() for name in names]
)
def test_a_setting_of_another_server_is_refused_with_both_names(server: str, setting: str) -> None:
    said = refusal({"server": server, **NEEDED[server], setting: "x"})
    assert said == f'access.{setting} has no effect with access.server = "{server}"; remove it'


@EACH
@pytest.mark.parametrize(
    ("limit", "value"), [("client_rate", 3), ("client_connections", 2), ("greet_pause", "2s")]
)
def test_a_limit_is_refused_with_both_names(server: str, limit: str, value: object) -> None:
    said = refusal({"server": server, **NEEDED[server]}, {limit: value})
    assert said == f'policy.{limit} has no effect with access.server = "{server}"; remove it'


@EACH
def test_what_is_no_setting_at_all_is_refused(server: str) -> None:
    said = refusal({"server": server, **NEEDED[server], "databse": "x"})
    assert said.startswith('access.databse is not a setting; did you mean "database"? Example: ')


@pytest.mark.parametrize(
    ("access", "words"),
    [
        ({"server": "postfx"}, 'access.server is "postfx"; did you mean "postfix"?'),
        ({"server": "tcpserver"}, "access.source is missing, which access.server"),
        ({"server": "postfix", "type": "texthash"}, 'is "texthash", but Postfix reads'),
        ({"server": "postfix", "type": "cidr"}, 'is "cidr", but Postfix reads'),
        ({"server": "postfix", "type": "hsh"}, 'access.type is "hsh"; did you mean "hash"?'),
        (
            {"server": "postfix", "type": "hash", "database": "/x/relay.db"},
            'access.database ends in .db, which Postfix appends; write "/x/relay"',
        ),
        ({"server": "postfix", "builder": "/nowhere/postmap"}, "access.type is missing, and "),
    ],
)
def test_mistakes_are_named(access: dict[str, Any], words: str) -> None:
    assert words in refusal(access)


def test_a_builder_that_can_not_be_run_is_told(tmp_path: Path) -> None:
    from sapd.maps import builder

    with pytest.raises(SapdError) as raised:
        builder.run(str(tmp_path / "postmap"), [], b"", 2, "Postfix")
    assert raised.value.status == 69
    assert raised.value.subject == str(tmp_path / "postmap")
    assert "it comes with Postfix" in raised.value.reason


def test_a_builder_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sapd.maps import builder

    monkeypatch.setattr(builder, "LIMIT", 0.2)
    program = tmp_path / "postmap"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    with pytest.raises(SapdError, match="took longer than") as raised:
        builder.run(str(program), [], b"", 2, "Postfix")
    assert raised.value.status == 69


def test_a_table_of_the_administrators_own_is_never_replaced(tmp_path: Path) -> None:
    """Postfix's is made of a text that stands beside it."""
    text = tmp_path / "access"
    text.write_text("192.0.2.7 REJECT\n")
    said = refusal({"server": "postfix", "type": "hash", "database": str(text)})
    assert f'names a table that is made of the text "{text}"' in said


@pytest.mark.parametrize("server", ["exim", "opensmtpd"])
def test_a_text_of_the_administrators_own_is_never_replaced(tmp_path: Path, server: str) -> None:
    """Unless it has been sapd's already: then it was damaged, and is made good."""
    text = tmp_path / "hosts"
    options = {"server": server, "database": str(text)}
    if server == "opensmtpd":
        options["builder"] = "/bin/true"
    made = maps.chosen(access_of(options))
    published = made.publish(made.wanted({"192.0.2.10": 1_000_000}))
    made.publish(made.wanted({"192.0.2.11": 1_000_000}))  # the state was lost meanwhile
    text.write_text("host.example.net\n")
    with pytest.raises(SapdError, match="holds what sapd did not write") as raised:
        made.publish(made.wanted({}))
    assert raised.value.status == 73
    assert text.read_text() == "host.example.net\n"
    made.publish(made.wanted({}), published)
    assert "host" not in text.read_text()
