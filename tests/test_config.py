"""The configuration: what it means, and one clear line for each way to get it wrong."""

from ipaddress import ip_network
from pathlib import Path

import pytest

from sapd import config, errors
from sapd.maps import Access
from sapd.relay import Rules

GOOD = '[[log]]\npath = "qpopper"\n'


def load(tmp_path: Path, text: str | bytes) -> config.Config:
    path = tmp_path / "sapd.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return config.load(str(path))


def test_defaults(tmp_path: Path) -> None:
    found = load(tmp_path, GOOD)
    assert found.rules.window == 1800
    assert found.rules.windows == ()
    assert found.rules.never == ()
    assert found.logs == (config.Log(str(tmp_path / "qpopper"), ("qpopper",)),)
    assert found.access == Access(
        "sendmail",
        {
            "database": "/etc/mail/access.db",
            "source": "/etc/mail/access",
            "makemap": "/usr/sbin/makemap",
            "tag": "Connect:",
            "limits": {},
            "type": "hash",
            "cf": "/etc/mail/sendmail.cf",
            "self_closing": False,
        },
    )
    assert found.state_directory == "/var/lib/sapd"


def test_everything(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        """
        window = "2h"
        [[log]]
        path = "/var/log/qpopper"
        formats = ["qpopper-stats"]
        timezone = "Europe/Berlin"
        keep_lines = 10
        [[log]]
        path = "../mail.log"
        keep_lines = 10
        cut_above = 20
        [access]
        server = "sendmail"
        source = "/etc/mail/access"
        database = "relay.db"
        makemap = "/opt/makemap"
        tag = ""
        type = "btree"
        cf = "sendmail.cf"
        [state]
        directory = "state"
        [[network]]
        networks = ["10.0.0.0/8", "2001:db8::/32"]
        window = "90s"
        [policy]
        never = ["192.0.2.0/24"]
        """,
    )
    first, second = found.logs
    assert (first.path, first.formats, first.keep_lines, first.cut_above) == (
        "/var/log/qpopper", ("qpopper-stats",), 10, 10,
    )  # fmt: skip
    assert first.zone is not None
    assert (second.path, second.cut_above) == (str(tmp_path.parent / "mail.log"), 20)
    assert found.access.options == {
        "database": str(tmp_path / "relay.db"),
        "source": "/etc/mail/access",
        "makemap": "/opt/makemap",
        "tag": "",
        "limits": {},
        "type": "btree",
        "cf": str(tmp_path / "sendmail.cf"),
        "self_closing": False,
    }
    assert found.state_directory == str(tmp_path / "state")
    assert dict(found.rules.windows) == {
        ip_network("10.0.0.0/8"): 90,
        ip_network("2001:db8::/32"): 90,
    }
    assert found.rules.never == (ip_network("192.0.2.0/24"),)
    assert found.rules.longest == 7200


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "log is missing; add"),
        ("[[log]", "is not TOML"),
        (b"\xff", "line 1 is not UTF-8"),
        ("[" * 100_000, "is not TOML"),
        ('[log]\npath = "x"', r"log must be one or more tables, as \[\[log\]\]"),
        ("[[log]]\n", "log.path is missing"),
        ('[[log]]\npth = "x"', 'log.pth is not a setting; did you mean "path"'),
        ('[[logs]]\npath = "x"', 'logs is not a setting; did you mean "log"'),
        (GOOD + 'timezone = "Berlin1"', 'log.timezone is wrong: no time zone "Berlin1"'),
        (GOOD + 'timezone = "GMT-2"', 'log.timezone is wrong: no time zone "GMT-2"'),
        ('window = "367d"\n' + GOOD, 'window is "367d"; .* up to 366d'),
        ('[[log]]\npath = "a\\u0000b"', "log.path is not a path"),
        ("[[log]]\npath = 3", "log.path must be a quoted string"),
        ('[[log]]\npath = ""', "log.path is not a path"),
        (GOOD + GOOD, "line 4: log.path names the same file as line 2; remove one"),
        ('[[log]]\npath = "sapd.toml"', "the configuration is .* the same file as log.path"),
        ('[[log]]\npath = "a"\n[access]\nsource = "a"', 'access.source is ".*a", the same file'),
        (
            '[[log]]\npath = "s/state.json"\n[state]\ndirectory = "s"',
            "the state is .* the same file as log.path",
        ),
        (GOOD + 'format = "qpopper"', 'log.format is not a setting; did you mean "formats"'),
        (GOOD + 'colour = "red"', "log.colour is not a setting; known are cut_above, formats"),
        ('windows = "1h"\n' + GOOD, 'windows is not a setting; did you mean "window"'),
        ('window = "30"\n' + GOOD, 'window is "30"; write a number and s, m, h or d'),
        ('window = "0m"\n' + GOOD, 'window is "0m"'),
        ("window = 30\n" + GOOD, "window must be a quoted string"),
        (GOOD + 'formats = ["qpoper"]', 'has no format "qpoper"; did you mean "qpopper"'),
        (GOOD + "formats = []", "log.formats is empty"),
        (GOOD + 'formats = "qpopper"', "log.formats must be a list of quoted strings"),
        (GOOD + "formats = [1]", "log.formats must be a list of quoted strings"),
        (GOOD + 'programs = ["x:"]', 'log.programs has "x:"; write a name as it stands'),
        (GOOD + 'programs = ["*"]', r'log.programs has "\*"; write a name'),
        (GOOD + 'formats = ["auto"]\nprograms = ["x"]', "log.programs needs formats that are"),
        (GOOD + 'frame = "busbox"', 'log.frame is "busbox"; did you mean "busybox"?'),
        (GOOD + 'timezone = "Europe/Berln"', 'log.timezone is wrong: no time zone "Europe/Berln"'),
        (GOOD + "keep_lines = 0", "log.keep_lines is 0; it must be at least 1"),
        (GOOD + "keep_lines = true", "log.keep_lines must be a whole number"),
        (GOOD + "cut_above = 5", "log.cut_above needs keep_lines"),
        (GOOD + "keep_lines = 5\ncut_above = 4", "log.cut_above is 4, less than keep_lines 5"),
        (GOOD + '[access]\ndatabase = "relay"', "access.database must end in .db"),
        (GOOD + '[access]\ndatabase = "a.db"\ntype = "cdb"', "access.database must end in .cdb"),
        (GOOD + '[access]\ntype = "dbm"', 'access.type is "dbm"; '),
        (GOOD + "[access]\nself_closing = 1", "access.self_closing must be true or false"),
        (
            GOOD + '[access]\nself_closing = true\ntag = "Pop:"',
            "access.tag has no effect with self_closing; remove it",
        ),
        (
            GOOD + '[access]\nsource="a.db"\ndatabase="a.db"',
            "access.database is .* the same file as",
        ),
        (GOOD + '[access]\ntag = "Con nect:"', "access.tag is"),
        (GOOD + '[access]\nserver = "sendmial"', 'server is "sendmial"; did you mean "sendmail"'),
        (GOOD + "[access]\nserver = 3", "access.server must be a quoted string"),
        (GOOD + '[acces]\ntag = ""', 'acces is not a setting; did you mean "access"'),
        ("access = 3\n" + GOOD, r"access must be a table, as \[access\]"),
        (GOOD + '[[network]]\nwindow = "1h"', "network.networks is missing"),
        (GOOD + '[[network]]\nnetworks = ["10.0.0.0/8"]', "network.window is missing"),
        (
            GOOD + '[[network]]\nwindow = "1h"\nnetworks = ["10.0.0.1/8"]',
            'networks has "10.0.0.1/8", which has host bits set; write "10.0.0.0/8"',
        ),
        (
            GOOD + '[[network]]\nwindow = "1h"\nnetworks = ["10.0.0.0/8", "10.0.0.0/8"]',
            'names "10.0.0.0/8" a second time',
        ),
        (GOOD + '[policy]\nnever = ["example.net"]', 'policy.never has "example.net"'),
        (GOOD + "[policy]\nalways = []", "policy.always is not a setting"),
        (
            GOOD + '[policy]\nnever = ["10.0.0.0/8"]\n[[network]]\nwindow = "1h"\n'
            'networks = ["192.0.2.0/24", "10.1.0.0/16"]',
            'network.networks gives "10.1.0.0/16" a window, and policy.never shuts "10.0.0.0/8"',
        ),
        (
            GOOD + 'formats = ["qpopper-stats", "teapop-own"]\n',
            'log.formats has no format "teapop-own"',
        ),
        (
            GOOD + 'formats = ["qpopper-stats"]\n[policy]\nafter_logout = "2m"',
            "policy.after_logout needs logouts with their address, and log.formats has none: qpop",
        ),
        (
            GOOD + 'formats = ["uw-imap", "gnu-mailutils"]\n[policy]\nafter_logout = "2m"',
            "policy.after_logout needs .*: uw-imap, gnu-mailutils",
        ),
        *(
            (
                f'{GOOD}[access]\ndatabase = "relay.db"\n[policy]\n{setting}',
                f"policy.{setting.split(' ')[0]} needs access.source",
            )
            for setting in ("client_rate = 9", "client_connections = 9", 'greet_pause = "2s"')
        ),
        (GOOD + "[policy]\nclient_rate = 0", "policy.client_rate is 0; it must be at least 1"),
        (GOOD + '[policy]\ngreet_pause = "2"', 'policy.greet_pause is "2"; write a number and s'),
        (
            GOOD + "[policy]\nmax_accounts_per_address = true",
            "policy.max_accounts_per_address must be a whole number",
        ),
        (
            GOOD + '[policy]\none_address_per_account = "yes"',
            "policy.one_address_per_account must be true or false",
        ),
        (GOOD + '[policy]\ndeny_accounts = [""]', "policy.deny_accounts has an empty name"),
        (GOOD + '[policy]\nafter_logout = "0m"', 'policy.after_logout is "0m"'),
        (GOOD + "[audit]\nkeep_lines = -1", "audit.keep_lines is -1; it must be at least 0"),
        (GOOD + "[audit]\nsyslog = 1", "audit.syslog must be true or false"),
        (
            GOOD + '[state]\ndirectory = "."\n[access]\nsource = "audit.jsonl"',
            'the audit trail is ".*audit.jsonl", the same file as access.source',
        ),
    ],
)
def test_every_mistake_is_named(tmp_path: Path, text: str | bytes, reason: str) -> None:
    with pytest.raises(errors.SapdError, match=reason) as raised:
        load(tmp_path, text)
    assert raised.value.status == errors.BAD_CONFIG
    assert raised.value.subject == str(tmp_path / "sapd.toml")
    assert "\n" not in str(raised.value)


def test_policies_and_the_trail(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        """
        [[log]]
        path = "qpopper"
        [policy]
        after_logout = "2m"
        max_accounts_per_address = 5
        one_address_per_account = true
        deny_accounts = ["eve", "*@example.net"]
        client_rate = 30
        client_connections = 5
        greet_pause = "2s"
        [audit]
        keep_lines = 0
        syslog = true
        """,
    )
    assert found.rules == Rules(1800, (), (), 120, 5, True, ("eve", "*@example.net"))
    assert found.access.options["limits"] == {
        "client_rate": 30, "client_connections": 5, "greet_pause": 2000,
    }  # fmt: skip
    assert found.audit == config.Audit(0, syslog=True)
    plain = load(tmp_path, GOOD)
    assert (plain.audit, plain.access.options["limits"]) == (config.Audit(10_000), {})


def test_no_file(tmp_path: Path) -> None:
    for path, words in {
        tmp_path / "none.toml": "is missing; `sapd init` makes one for this machine, or name yours",
        tmp_path: "name the configuration with -c",
    }.items():
        with pytest.raises(errors.SapdError, match=words) as raised:
            config.load(str(path))
        assert raised.value.status == errors.BAD_CONFIG


def test_a_separate_map_is_not_laid_over_the_administrators(tmp_path: Path) -> None:
    text = GOOD + '[access]\ndatabase = "access.db"\n'
    assert load(tmp_path, text).access.options["source"] is None
    (tmp_path / "access").touch()
    with pytest.raises(errors.SapdError, match=r"access\.source is missing; set source"):
        load(tmp_path, text)
    named = load(tmp_path, text + 'source = "access"')
    assert named.access.options["source"] == str(tmp_path / "access")


def test_mapped_networks_are_those_of_ipv4(tmp_path: Path) -> None:
    found = load(tmp_path, GOOD + '[policy]\nnever = ["::ffff:192.0.2.0/120"]')
    assert found.rules.never == (ip_network("192.0.2.0/24"),)


def test_one_file_by_two_names(tmp_path: Path) -> None:
    (tmp_path / "qpopper").touch()
    (tmp_path / "link").symlink_to("qpopper")
    with pytest.raises(errors.SapdError, match=r"the same file as log\.path"):
        load(tmp_path, GOOD + '[access]\nsource = "link"')
