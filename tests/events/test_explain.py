"""Why a line is nothing."""

from pathlib import Path

import pytest

from sapd.events import explain, formats, frames
from sapd.events.context import Context
from sapd.events.recogniser import Recogniser, Rejection
from sapd.timestamps import Clock
from tests.events.test_recogniser import NOW, TEMPLATES, filled_in, heads, parts

HEAD = "Nov 22 10:41:05 mx1 "


def miss(line: str, *names: str, directory: str | None = None) -> explain.Miss:
    return explain.miss(formats.chosen(names or ("auto",), directory), line.encode() + b"\n")


@pytest.mark.parametrize(
    ("line", "name", "says"),
    [
        (
            "dovecot: pop3-login: Login: user=<bob>, method=ANONYMOUS, rip=192.0.2.1",
            "dovecot",
            "one reads: pop3-login: Login: user=<bob",
        ),
        (
            "teapop[7]: Successful login for bob [192.0.2.1] from h [192.0.2.10",
            "teapop",
            "one reads: Successful login for bob [192.0.2.1] from client.example.net [192.0.2.10]",
        ),
        ("popa3d[7]: Authentication passed for", "popa3d", "because it ends too early"),
        (
            "solid-pop3d[7]: user bob",
            "solid-pop3d",
            "not a login because it ends too early; one reads",
        ),
        ("popper[7]: hello", "qpopper", "it is qpopper's, but none of its events"),
        ("popper: (v4) POP login by user x", "qpopper", "has no process number, unlike that of qp"),
        ("pop3d[7]: LOGIN, user=bob, ip=[192.0.2.1]", "courier", "has a process number, unlike"),
        (
            "pop3d: LOGIN FAILED, user=bob, ip=[::ffff:192.0.2.1], port=[7]",
            "courier",
            'a failed login because of " FAILED, user=bob, ip=[::ffff:192.0.2.1], port=[7]"; a',
        ),
        (
            "dovecot: imap-login: Disconnected (auth failed, 1 attempts): user=<bob>",
            "dovecot",
            'but a failed login because of "Disconnected (auth failed, 1 attempts): user=<bob>"; '
            "a login reads: pop3-login: Login: user=<bob>, ",
        ),
        ("popper[7]: hello", "popa3d", 'its program, "popper", is none of popa3d'),
    ],
)
def test_what_a_line_lacks(line: str, name: str, says: str) -> None:
    assert says in miss(HEAD + line, name).reason


def test_all_formats_at_once() -> None:
    assert miss(HEAD + "POPPER[7]: x").reason == (
        'its program, "POPPER", is none that the formats name; the nearest is "popper"'
    )
    assert (
        "qpopper's, but not a login because of"
        in miss(HEAD + 'popper[7]: (v4) POP login by user "b" at 192.0.2.1').reason
    )
    assert "it does not begin as a line of syslog does" in miss("2026/11/22 popper: x").reason


def test_the_nearest_is_of_the_right_program_and_holds_a_needle() -> None:
    lines = [
        "x",
        HEAD + "sshd[7]: x",
        HEAD + "popper[7]: (v4.0.5) Servicing request from h at 192.0.2.1",
        HEAD + "popper: POP login by user",
        HEAD + 'popper[7]: POP login by user "b" at (h) 192.0.2.1',
    ]
    near = [miss(line, "qpopper").nearness for line in lines]
    assert near == sorted(near)
    assert near[1] < near[2]


def test_a_message_that_fits_without_a_needle(tmp_path: Path) -> None:
    (tmp_path / "ours.toml").write_text(
        'description = "x"\nprograms = ["ourpop"]\n[[line]]\nevent = "login"\nneedles = ["hello"]\n'
        "pattern = '(?:hello|hi) (?P<account>\\S+) at (?P<address>\\S*)'\n"
        "example = 'hello bob at 192.0.2.10'\n"
    )
    found = miss(HEAD + "ourpop[7]: hi bob at 192.0.2.10", "ours", directory=str(tmp_path))
    assert found.reason == 'it is ours\'s, but holds none of the needles "hello"'


DOVECOT = (
    "Nov 22 10:41:05 mx1 dovecot-backend: pop3-login: Login: user=<bob>, rip=192.0.2.1, mpid=7"
)


def test_another_programs_name_is_all_that_differs() -> None:
    says = 'set programs = ["dovecot-backend"] for the log'
    assert says in miss(DOVECOT, "dovecot").reason
    assert says in miss(DOVECOT).reason
    assert says not in miss(DOVECOT + ", x=y", "dovecot").reason
    assert says not in miss(DOVECOT, "qpopper").reason


def test_a_line_of_another_frame() -> None:
    found = explain.miss(formats.chosen(["auto"]), DOVECOT.encode(), "own-slashes")
    assert found.reason == "its frame is traditional, and that of the log own-slashes"


@pytest.mark.parametrize(
    ("name", "line", "because"),
    [
        ("courier", "pop3d: LOGIN, user=bob, ip=[192.0.2.1], port=[7], Stls=1 x", ', Stls=1 x"'),
        ("qpopper", 'popper[7]: (v4) POP login by user "b" at (h) 192.0.2.1 [TLS]', '" [TLS]"'),
        ("uw-imap", "imapd[7]: Login user=b host=h [192.0.2.1] quota=7", '" quota=7"'),
        ("cyrus", "imap[7]: login: h [192.0.2.1] bob PLAIN Hello", '"Hello"'),
        ("courier", "pop3d: LOGIN, user=bob, ip=[host], port=[7], Stls=1 x", None),
        ("courier", "pop3d: LOGIN FAILED, user=LOGIN, user=b, ip=[192.0.2.1], port=[7] x", None),
        ("courier", "imap[7]: LOGIN, user=bob, ip=[192.0.2.1], port=[7], Stls=1 x", None),
        ("qpopper", 'popper[7]: (v4) POP login by user "b" at (h h) 192.0.2.1 [TLS]', None),
        ("vm-pop3d", "vm-pop3d[7]: User 'x' logged in from 192.0.2.1 now", None),
    ],
)
def test_a_login_in_other_words(name: str, line: str, because: str | None) -> None:
    found = explain.near_login(formats.chosen([name]), (HEAD + line).encode(), "traditional")
    if because is None:
        assert found is None
    else:
        assert found is not None
        assert found.format == name
        assert because in found.difference


@pytest.mark.parametrize("name", formats.names())
def test_no_stranger_makes_a_near_login(name: str) -> None:
    """He fails to log in, with whatever name, from wherever; that must not turn monitoring red."""
    chosen = formats.chosen([name])
    where = heads(name)[0]
    frame = frames.name_of(where.encode() + b"x")
    assert frame is not None
    recogniser = Recogniser([name], Clock(NOW), context=Context(frame=frame))
    for part in sorted(parts(name)):
        for text in TEMPLATES[name]["failure"]:
            for account, client in ((part, "h"), (f"bob{part} ", "h"), ("bob", part)):
                line = (where + filled_in(text, account, client)).encode() + b"\n"
                found = recogniser.recognise(line)
                if found is None:
                    assert explain.near_login(chosen, line, frame) is None, line
                elif isinstance(found, Rejection) and name != "dovecot":
                    assert not found.of, line
