"""Which matches of a journal prove something, and which settings go with one."""

from pathlib import Path

import pytest

from sapd import config, errors
from sapd.reading import journal_matches

UNIT = "_SYSTEMD_UNIT=dovecot.service"


@pytest.mark.parametrize(
    "matches",
    [
        [UNIT],
        [UNIT, "_SYSTEMD_UNIT=imap.service"],
        [UNIT, "SYSLOG_IDENTIFIER=dovecot", "_COMM=log"],
        ["_UID=0", "SYSLOG_IDENTIFIER=popa3d"],
        ["_UID=103"],
        ["_SYSTEMD_UNIT=runner.service"],
        ["_SYSTEMD_UNIT=popa3d@1-192.0.2.1:110.service"],
    ],
)
def test_matches_that_choose_a_servers_own_entries(matches: list[str]) -> None:
    assert journal_matches.objection_to(matches) is None


@pytest.mark.parametrize(
    ("matches", "why"),
    [
        ([], "needs _SYSTEMD_UNIT="),
        (["SYSLOG_IDENTIFIER=dovecot"], "any user can have SYSLOG_IDENTIFIER"),
        (["_COMM=dovecot", "_EXE=/usr/sbin/dovecot"], "any user can have _COMM, _EXE"),
        (["_SYSTEMD_USER_UNIT=dovecot.service"], "any user can have _SYSTEMD_USER_UNIT"),
        (["UNIT=dovecot.service"], "needs _SYSTEMD_UNIT="),
        (["_TRANSPORT=syslog"], "needs _SYSTEMD_UNIT="),
        (["dovecot.service"], "a match is FIELD=value"),
        ([UNIT, "+", "_UID=0"], "a match is FIELD=value"),
        (["/usr/sbin/dovecot"], "a match is FIELD=value"),
        (["--unit=dovecot"], "a match is FIELD=value"),
        (["_SYSTEMD_UNIT="], "a match is FIELD=value"),
        (["_UID=1000"], 'has _UID "1000"'),
        (["_UID=65534"], 'has _UID "65534"'),
        (["_UID=root"], "it is not a number"),
        (["_SYSTEMD_UNIT=dovecot"], "it is not the name of a service"),
        (["_SYSTEMD_UNIT=dovecot.service x.service"], "it is not the name of a service"),
        *(
            ([f"_SYSTEMD_UNIT={unit}"], f'has the unit "{unit}"')
            for unit in (  # noqa: SIM905 -- a table would take a page
                "user@1000.service session-3.scope session-c1.scope cron.service crond.service "
                "atd.service inetd.service xinetd.service openbsd-inetd.service ssh.service "
                "sshd.service sshd@3-192.0.2.1:22-192.0.2.9:999.service getty@tty1.service "
                "init.scope run-u12.service run-r1a2b.scope docker.service sendmail.service "
                "postfix@-.service exim4.service apache2.service php8.2-fpm.service any.scope"
            ).split()
        ),
        ([UNIT, "_SYSTEMD_UNIT=cron.service"], 'has the unit "cron.service"'),
        (["_UID=0", "_SYSTEMD_UNIT=cron.service"], 'has the unit "cron.service"'),
        (["_UID=0", "_UID=1000"], 'has _UID "1000"'),
    ],
)
def test_matches_that_prove_nothing_are_refused_by_name(matches: list[str], why: str) -> None:
    assert why in str(journal_matches.objection_to(matches))


def load(tmp_path: Path, log: str) -> config.Config:
    (tmp_path / "sapd.toml").write_text(
        f'[[log]]\n{log}\n[access]\ndatabase = "relay.db"\ntag = ""\n[state]\ndirectory = "state"\n'
    )
    return config.load(str(tmp_path / "sapd.toml"))


def test_a_journal_in_the_configuration(tmp_path: Path) -> None:
    (log,) = load(tmp_path, f'journal = ["{UNIT}"]\nformats = ["dovecot"]').logs
    assert log.journal == (UNIT,)
    assert log.path == f"journal {UNIT}"


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("keep_lines = 100", "log.keep_lines is for files; .* SystemMaxUse="),
        ("keep_lines = 100\ncut_above = 200", "SystemMaxUse="),
        ('timezone = "UTC"', "log.timezone is for files"),
        ('path = "x"', "log.path stands beside journal"),
        ('formats = ["auto"]', 'log.formats has "auto"'),
        ('formats = ["courier"]', 'log.formats has "courier": journald takes the blanks off'),
    ],
)
def test_settings_that_a_journal_can_not_have(tmp_path: Path, more: str, why: str) -> None:
    with pytest.raises(errors.SapdError, match=why) as raised:
        load(tmp_path, f'journal = ["{UNIT}"]\n{more}')
    assert raised.value.status == errors.BAD_CONFIG


def test_a_match_that_proves_nothing_in_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(errors.SapdError, match=r'log.journal has the unit "cron.service"'):
        load(tmp_path, 'journal = ["_SYSTEMD_UNIT=cron.service"]')
