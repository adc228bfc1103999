"""What each setting of [policy] and each [[network]] changes for the clients of a real sendmail."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers.namespace import Answer, Namespace
from tests.servers.sendmail import Sendmail
from tests.site import Site, login, when

pytestmark = pytest.mark.servers

EXAMPLES = Path(__file__).parent.parent / "examples" / "sendmail"
CLIENT, CLIENT6, OTHER, STRANGER = "192.0.2.10", "2001:db8::10", "192.0.2.11", "192.0.2.12"
FAR, HASTY = "198.51.100.7", "203.0.113.7"
CLIENTS = [CLIENT, CLIENT6, OTHER, STRANGER, FAR, HASTY]
# For the limits: sendmail remembers connections for a minute, so each test has its own.
RATED = [f"192.0.2.{number}" for number in range(100, 120)]
RATED6 = ["2001:db8::100", "2001:db8:1::100"]
MINUTE = 60.0


def ago(minutes: float) -> float:
    return time.time() - minutes * MINUTE


def logout(address: str, account: str = "bob", at: float | None = None) -> str:
    """What qpopper logs at the end of a session, newline included."""
    head = login(address, account, at).partition("(v4.0.5)")[0]
    return f"{head}Stats: {account} 0 0 0 0 client.example.net {address} [pop_updt.c:296]\n"


class MailServer(Site):
    """A site whose map a running sendmail asks."""

    def __init__(self, sendmail: Sendmail) -> None:
        for path in sendmail.mail.iterdir():
            path.unlink()
        folder = sendmail.folder / "site"  # root's own, as the configuration's folder must be
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o755)
        super().__init__(folder, mail=sendmail.mail)
        self.namespace = sendmail.namespace

    def rule(self, settings: str) -> None:
        """Run with these settings as if they had always been so."""
        self.configure(top=settings)
        shutil.rmtree(self.state.parent, ignore_errors=True)
        self.run()

    def policy(self, settings: str) -> None:
        self.rule(f"[policy]\n{settings}\n")

    def codes(self, *clients: str) -> list[int]:
        return [self.namespace.probe(client).code for client in clients]

    def answers(self, client: str, times: int) -> list[tuple[int, str]]:
        """The codes and texts of one connection after the other, without the recipient."""
        found = [self.namespace.probe(client) for _ in range(times)]
        return [(answer.code, answer.text.partition("... ")[2] or answer.text) for answer in found]


@contextmanager
def running(*examples: str) -> Iterator[Sendmail]:
    """A sendmail with the lines of these examples, for a module's tests."""
    lines = "".join((EXAMPLES / example).read_text() for example in examples)
    with (
        tempfile.TemporaryDirectory(prefix="sapd-test-") as name,
        Namespace([*CLIENTS, *RATED, *RATED6]) as namespace,
    ):
        folder = Path(name)
        folder.chmod(0o755)
        with Sendmail(namespace, folder, lines) as sendmail:
            yield sendmail


@pytest.fixture(scope="module")
def sendmail() -> Iterator[Sendmail]:
    with running("access.mc") as sendmail:
        yield sendmail


@pytest.fixture
def site(sendmail: Sendmail) -> MailServer:
    return MailServer(sendmail)


def read_the_log_again(site: MailServer) -> None:
    site.rewrite_state(logs={})


def log_the_lines_again(site: MailServer) -> None:
    site.write(site.log.read_text())


AGAIN = pytest.mark.parametrize("again", [read_the_log_again, log_the_lines_again])
Again = Callable[[MailServer], None]


def test_a_network_has_its_own_window(site: MailServer) -> None:
    site.write(login(FAR, at=ago(120)), login(CLIENT, at=ago(120)), login(HASTY, at=ago(2)))
    site.run()
    assert site.codes(FAR, CLIENT, HASTY) == [550, 550, 250]
    site.rule(
        '[[network]]\nnetworks = ["198.51.100.0/24"]\nwindow = "8h"\n'
        '[[network]]\nnetworks = ["203.0.113.0/24"]\nwindow = "1m"\n'
    )
    assert site.codes(FAR, CLIENT, HASTY) == [250, 550, 550]


def test_what_is_never_opened(site: MailServer) -> None:
    site.write(login(CLIENT), login(CLIENT6), login(OTHER))
    site.run()
    assert site.codes(CLIENT, CLIENT6, OTHER) == [250, 250, 250]
    site.policy('never = ["192.0.2.10/32", "2001:db8::/64"]')
    assert site.codes(CLIENT, CLIENT6, OTHER) == [550, 550, 250]


# Whose login and logout, from where, and how many minutes ago.
IN, OUT = login, logout
SESSIONS = {
    "shortened": ("5m", [(IN, CLIENT, "bob", 10), (OUT, CLIENT, "bob", 6)], 250, 550),
    "not yet over": ("5m", [(IN, CLIENT, "bob", 10), (OUT, CLIENT, "bob", 4)], 250, 250),
    "still in": ("5m", [(IN, CLIENT, "bob", 10)], 250, 250),
    "in again": (
        "5m",
        [(IN, CLIENT, "bob", 10), (OUT, CLIENT, "bob", 9), (IN, CLIENT, "bob", 8)],
        *(250, 250),
    ),
    "of before": ("5m", [(OUT, CLIENT, "bob", 11), (IN, CLIENT, "bob", 10)], 250, 250),
    "prolonged": ("30m", [(IN, CLIENT, "bob", 40), (OUT, CLIENT, "bob", 20)], 550, 250),
    "too late": ("30m", [(IN, CLIENT, "bob", 40), (OUT, CLIENT, "bob", 5)], 550, 550),
    "logout alone": ("5m", [(OUT, CLIENT, "bob", 1)], 550, 550),
    "of another account": ("5m", [(IN, CLIENT, "bob", 10), (OUT, CLIENT, "eve", 6)], 250, 250),
    "at another address": ("5m", [(IN, CLIENT, "bob", 10), (OUT, OTHER, "bob", 6)], 250, 250),
    "one of two": (
        "5m",
        [(IN, CLIENT, "bob", 10), (IN, CLIENT, "eve", 9), (OUT, CLIENT, "bob", 8)],
        *(250, 250),
    ),
}


@AGAIN
@pytest.mark.parametrize(
    ("setting", "lines", "before", "after"), SESSIONS.values(), ids=SESSIONS.keys()
)
def test_a_logout_ends_a_session(
    site: MailServer,
    setting: str,
    lines: list[tuple[Callable[..., str], str, str, float]],
    before: int,
    after: int,
    again: Again,
) -> None:
    for line, address, account, minutes in lines:
        site.write(line(address, account, ago(minutes)))
    site.run()
    assert site.codes(CLIENT, OTHER) == [before, 550]
    site.policy(f'after_logout = "{setting}"')
    assert site.codes(CLIENT, OTHER) == [after, 550]
    again(site)
    site.run()
    assert site.codes(CLIENT, OTHER) == [after, 550]


def test_the_time_behind_a_logout_ends_by_itself(site: MailServer) -> None:
    site.policy('after_logout = "3s"')
    site.write(login(CLIENT))
    site.run()
    site.write(logout(CLIENT))
    site.run()
    assert site.codes(CLIENT) == [250]
    time.sleep(4)
    site.run()
    assert site.codes(CLIENT) == [550]


def test_too_many_accounts_close_an_address(site: MailServer) -> None:
    site.write(login(CLIENT, "bob", ago(20)), login(CLIENT, "eve"), login(OTHER, "eve"))
    site.policy("max_accounts_per_address = 2")
    assert site.codes(CLIENT, OTHER) == [250, 250]
    site.write(login(CLIENT, "eve"))
    site.run()
    assert site.codes(CLIENT, OTHER) == [250, 250]
    site.write(login(CLIENT, "mallory"))
    site.run()
    assert site.codes(CLIENT, OTHER) == [550, 250]
    site.run("--at", when(ago(-15)))  # bob's window is over
    assert site.codes(CLIENT, OTHER) == [250, 250]


@AGAIN
def test_an_account_is_at_one_address(site: MailServer, again: Again) -> None:
    site.write(login(CLIENT, at=ago(10)), login(OTHER, at=ago(5)))
    site.run()
    assert site.codes(CLIENT, OTHER) == [250, 250]
    site.policy("one_address_per_account = true")
    assert site.codes(CLIENT, OTHER) == [550, 250]
    again(site)
    site.run()
    assert site.codes(CLIENT, OTHER) == [550, 250]
    site.write(login(CLIENT, "eve", ago(7)))
    site.run()
    assert site.codes(CLIENT, OTHER) == [250, 250]
    site.write(login(CLIENT6))
    site.run()
    assert site.codes(CLIENT, OTHER, CLIENT6) == [250, 550, 250]


def test_an_older_login_that_is_logged_late_takes_no_account_away(site: MailServer) -> None:
    site.policy("one_address_per_account = true")
    site.write(login(OTHER, at=ago(5)))
    site.run()
    site.write(login(CLIENT, at=ago(10)))
    site.run()
    assert site.codes(CLIENT, OTHER) == [550, 250]


def test_a_login_elsewhere_counts_as_long_as_a_logout_prolongs(site: MailServer) -> None:
    site.write(login(CLIENT, at=ago(50)), login(OTHER, at=ago(40)), logout(CLIENT, at=ago(25)))
    site.policy('after_logout = "30m"')
    assert site.codes(CLIENT, OTHER) == [250, 550]
    site.policy('after_logout = "30m"\none_address_per_account = true')
    assert site.codes(CLIENT, OTHER) == [550, 550]


@pytest.mark.parametrize(
    ("denied", "account", "after"),
    [
        ("scanner", "scanner", 550),
        ("scanner", "Scanner", 550),
        ("SCANNER", "scanner", 550),
        ("test*", "Test17", 550),
        ("T?st1", "test1", 550),
        ("[a-c]ob", "bob", 550),
        ("scanner", "scanner2", 250),
        ("test*", "latest", 250),
    ],
)
def test_denied_accounts_open_nothing(
    site: MailServer, denied: str, account: str, after: int
) -> None:
    site.write(login(CLIENT, account), login(CLIENT6, account), login(OTHER, "eve"))
    site.run()
    assert site.codes(CLIENT, CLIENT6, OTHER) == [250, 250, 250]
    site.policy(f'deny_accounts = ["nobody", "{denied}"]')
    assert site.codes(CLIENT, CLIENT6, OTHER) == [after, after, 250]
    site.write(login(CLIENT, "eve"))
    site.run()
    assert site.codes(CLIENT) == [250]


@AGAIN
@pytest.mark.parametrize(
    ("named", "left"), [([CLIENT], 250), ([CLIENT, OTHER], 550), (["--all"], 550)]
)
def test_who_is_closed_stays_so_until_the_next_login(
    site: MailServer, named: list[str], left: int, again: Again
) -> None:
    site.write(login(CLIENT, at=ago(3)), login(OTHER, at=ago(2)), login(OTHER, "eve"))
    site.run()
    assert site.codes(CLIENT, OTHER) == [250, 250]
    done = site.sapd("close", *named)
    assert (done.returncode, done.stderr) == (0, "")
    assert site.codes(CLIENT, OTHER) == [550, left]
    again(site)
    site.run()
    assert site.codes(CLIENT, OTHER) == [550, left]
    site.write(login(CLIENT, at=time.time() + 1))
    site.run()
    assert site.codes(CLIENT, OTHER) == [250, left]


def test_closing_takes_logins_along_that_no_run_has_read(site: MailServer) -> None:
    site.write(login(CLIENT), login(OTHER))
    assert site.sapd("close", "--all").returncode == 0
    site.run()
    assert site.codes(CLIENT, OTHER) == [550, 550]


def test_who_is_closed_is_told_what_to_do(site: MailServer) -> None:
    """By the text of access.mc, whatever has closed the address."""
    site.write(login(CLIENT), login(OTHER, "scanner"))
    site.policy('deny_accounts = ["scanner"]')
    assert site.sapd("close", CLIENT).returncode == 0
    for client in (CLIENT, OTHER, STRANGER):
        text = "5.7.1 <someone@foreign.example>... Relaying denied - fetch your mail (POP3) first"
        assert site.namespace.probe(client) == Answer("rcpt", 550, text)


# The limits.

WELCOME = (250, "Recipient ok")
REFUSED = (550, "Relaying denied - fetch your mail (POP3) first")
TOO_FAST = (421, "4.3.2 Connection rate limit exceeded.")
TOO_MANY = Answer("greeting", 421, "4.3.2 Too many open connections.")
AT_ONCE = "GreetPause:192.0.2\t0\nGreetPause:203.0.113\t0\nGreetPause:IPv6:2001:db8\t0\n"


@pytest.fixture(scope="module")
def limiting() -> Iterator[Sendmail]:
    with running("access.mc", "limits.mc") as sendmail:
        yield sendmail


@pytest.fixture
def limited(limiting: Sendmail) -> MailServer:
    """A site whose sendmail looks limits up, and makes nobody of the tests' addresses wait."""
    site = MailServer(limiting)
    site.source.write_text(AT_ONCE)
    return site


@pytest.mark.parametrize("client", [RATED[0], RATED6[0]])
def test_too_many_connections_a_minute(limited: MailServer, client: str) -> None:
    limited.policy("client_rate = 3")
    assert limited.answers(RATED[1], 1) == [REFUSED]
    limited.write(login(client))
    limited.run()
    assert limited.answers(client, 5) == [WELCOME, WELCOME, WELCOME, TOO_FAST, TOO_FAST]
    assert limited.answers(RATED[1], 4) == [REFUSED] * 4
    limited.run("--at", when(ago(-31)))  # it lets nobody relay any more, and limits nobody
    assert limited.answers(client, 1) == [REFUSED]
    assert not [key for key in limited.entries() if key.startswith("clientrate:")]


@pytest.mark.parametrize(
    ("entry", "client"),
    [
        (f"ClientRate:{RATED[2]}", RATED[2]),
        ("ClientRate:192.0.2", RATED[3]),
        ("clientrate:192", RATED[4]),
        ("ClientRate:IPv6:2001:db8:1", RATED6[1]),
    ],
)
def test_the_administrators_own_limit_holds(limited: MailServer, entry: str, client: str) -> None:
    limited.source.write_text(f"{AT_ONCE}{entry}\t3\n")
    limited.write(login(client))
    limited.policy("client_rate = 1")
    assert limited.answers(client, 4) == [WELCOME, WELCOME, WELCOME, TOO_FAST]


def test_a_limit_for_all_is_not_for_those_who_are_open(limited: MailServer) -> None:
    limited.source.write_text(f"{AT_ONCE}ClientRate:\t1\n")
    limited.write(login(RATED[5]))
    limited.policy("client_rate = 3")
    assert limited.answers(RATED[5], 4) == [WELCOME, WELCOME, WELCOME, TOO_FAST]
    assert limited.answers(RATED[6], 2) == [REFUSED, TOO_FAST]


def open_session(namespace: Namespace, client: str) -> None:
    """Begin a session, as soon as sendmail has noticed that earlier ones are over."""
    deadline = time.monotonic() + 10
    while (answer := namespace.open_session(client)).code == 421 and time.monotonic() < deadline:
        namespace.close_session()
        time.sleep(0.2)
    assert answer.code == 250


def test_too_many_connections_at_a_time(limited: MailServer) -> None:
    namespace = limited.namespace
    limited.write(login(CLIENT))
    limited.run()
    for setting, client, answer in [
        ("", CLIENT, 250),
        ("client_connections = 1", OTHER, 550),
        ("client_connections = 1", CLIENT, 421),
    ]:
        limited.policy(setting)
        open_session(namespace, client)
        found = namespace.probe(client)
        namespace.close_session()
        assert found.code == answer
        assert (found == TOO_MANY) == (answer == 421)
    open_session(namespace, CLIENT)  # one after the other is no matter
    namespace.close_session()


def seconds_to_rcpt(site: MailServer, client: str, code: int) -> float:
    began = time.monotonic()
    assert site.codes(client) == [code]
    return time.monotonic() - began


@pytest.mark.parametrize("client", [CLIENT, CLIENT6])
def test_a_pause_before_the_greeting(limited: MailServer, client: str) -> None:
    limited.source.write_text("")
    limited.write(login(client))
    limited.run()
    assert 1 <= seconds_to_rcpt(limited, client, 250) < 3  # what limits.mc says, for all
    limited.policy('greet_pause = "3s"')
    assert 3 <= seconds_to_rcpt(limited, client, 250) < 10
    assert 1 <= seconds_to_rcpt(limited, STRANGER, 550) < 3
    assert limited.namespace.hasty(client) == Answer(
        "greeting", 554, "mx1.example.net ESMTP not accepting messages"
    )


def test_whom_the_administrator_has_not_wait_does_not_wait(limited: MailServer) -> None:
    limited.write(login(CLIENT), login(CLIENT6))
    limited.policy('greet_pause = "3s"')
    assert seconds_to_rcpt(limited, CLIENT, 250) < 3
    assert seconds_to_rcpt(limited, CLIENT6, 250) < 3
