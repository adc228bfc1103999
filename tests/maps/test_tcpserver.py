"""tcpserver's rules: what the administrator's say of an address, and what sapd's are then."""

import subprocess
from pathlib import Path

import pytest

from sapd.decision import Reason
from sapd.maps.tcpserver import Rules, Tcpserver
from tests.servers.packages import unpacked

HERE = "192.0.2.10"
UNTIL = 1_000_000.0


def server(folder: Path, rules: str, builder: str = "/usr/bin/tcprules") -> Tcpserver:
    source = folder / "tcp.smtp"
    source.write_bytes(rules.encode("latin-1"))
    return Tcpserver(str(source), f"{source}.cdb", builder)


@pytest.mark.parametrize(
    ("rules", "reason", "detail"),
    [
        ("", None, None),
        (":allow", None, None),
        ("192.0.2.:allow", None, None),
        ('192.0.2.:allow,RELAYCLIENT=""', None, None),
        (":deny", Reason.REFUSED, ":deny"),
        ("192.0.2.10:deny", Reason.REFUSED, "192.0.2.10:deny"),
        ("192.0.2.10:allow", Reason.REFUSED, "192.0.2.10:allow"),
        ('192.0.2.10:allow,RELAYCLIENT=""', Reason.RELAYS_ALREADY, None),
        ("192.0.2.10:allow,RELAYCLIENT=//", Reason.RELAYS_ALREADY, None),
        ('192.0.2.10:allow,NORELAYCLIENT=""', Reason.REFUSED, None),
        ('192.0.2.10:allow\n192.0.2.10:allow,RELAYCLIENT=""', Reason.REFUSED, None),
        ("192.0.2.:deny \t\n:allow", Reason.REFUSED, "192.0.2.:deny"),
        ("192.:deny\n192.0.:allow", None, None),
        ("192.0.:deny\n192.:allow", Reason.REFUSED, "192.0.:deny"),
        ("192.0.2.8-12:deny", Reason.REFUSED, "192.0.2.10:deny"),
        ("192.0.2.11-12:deny", None, None),
        ("192.0.1-3.:deny", Reason.REFUSED, "192.0.2.:deny"),
        ("191-192.:deny", Reason.REFUSED, "192.:deny"),
        # Never matched by tcpserver, but what they mean is plain.
        ("192.0.2:deny", Reason.REFUSED, "192.0.2:deny"),
        ("192.0.2.0/28:deny", Reason.REFUSED, "192.0.2.0/28:deny"),
        ("192.0.2.010:deny", Reason.REFUSED, "192.0.2.010:deny"),
        ("192.0.2.32/28:deny", None, None),
        ("192.0.2.0/99:deny", None, None),
        # Of others, or nothing at all.
        ("#192.0.2.10:deny", None, None),
        ("192.0.2.10", None, None),
        ("192.0.2.1:deny", None, None),
        ("=client.example.net:deny", None, None),
        ("joe@192.0.2.10:deny", None, None),
    ],
)
def test_what_the_administrators_rules_say(
    tmp_path: Path, rules: str, reason: Reason | None, detail: str | None
) -> None:
    found = server(tmp_path, rules + "\n").objection_to(HERE)
    assert (found and found.reason) == reason
    if detail is not None:
        assert found is not None
        assert found.detail == detail


def test_ipv6_can_not_be_served(tmp_path: Path) -> None:
    found = server(tmp_path, ":allow\n").objection_to("2001:db8::7")
    assert found == (Reason.UNSUPPORTED, Tcpserver.NO_IPV6)


@pytest.mark.parametrize(
    ("rules", "line"),
    [
        ("", f'{HERE}:allow,RELAYCLIENT=""'),
        (":allow", f'{HERE}:allow,RELAYCLIENT=""'),
        ('192.0.2.:allow,X="y"\n:allow,Z="z"', f'{HERE}:allow,X="y",RELAYCLIENT=""'),
        (':allow,QMAILQUEUE="/scan"', f'{HERE}:allow,QMAILQUEUE="/scan",RELAYCLIENT=""'),
        ('192.0.2.:allow,RELAYCLIENT="@x"', f'{HERE}:allow,RELAYCLIENT="@x"'),
        (':allow,X="\xe9\xff"', f'{HERE}:allow,X="\xe9\xff",RELAYCLIENT=""'),
    ],
)
def test_an_open_address_keeps_what_its_network_has(tmp_path: Path, rules: str, line: str) -> None:
    wanted = server(tmp_path, rules + "\n").wanted({HERE: UNTIL})
    assert wanted == f"{line}\n".encode("latin-1")


RULES = """\
203.0.113.:deny
192.0.2.7:allow,RELAYCLIENT=""
198.51.100.3-5:allow,RELAYCLIENT="@x"
10.2-3.:deny
=host.example.net:deny
192.:allow,RBLSMTPD="-no, 'never'",QMAILQUEUE=/q/
:allow,X="\xe9"
"""


@pytest.fixture(scope="module")
def tools() -> Path:
    return unpacked("ucspi-tcp") / "usr/bin"


def instructions(tools: Path, cdb: str, address: str) -> str:
    """What tcpserver would do, by its own tool."""
    done = subprocess.run(
        [tools / "tcprulescheck", cdb],
        env={"TCPREMOTEIP": address},
        capture_output=True,
        check=True,
    )
    return done.stdout.decode("latin-1").partition("\n")[2]


ADDRESSES = [HERE, "192.0.2.7", "203.0.113.9", "198.51.100.4", "10.2.0.1", "10.4.0.1", "8.8.8.8"]


@pytest.mark.servers
def test_the_rules_are_read_as_tcprules_reads_them(tmp_path: Path, tools: Path) -> None:
    made = server(tmp_path, RULES, str(tools / "tcprules"))
    made.publish(b"")
    for address in ADDRESSES:
        rule = made.source.by_address.get(address) or made.source.for_network_of(address)
        assert rule is not None
        said = instructions(tools, made.path, address)
        assert rule.denies == ("deny connection" in said), address
        assert rule.relays == ("RELAYCLIENT" in said), address


@pytest.mark.servers
def test_publishing_opens_and_leaves_the_administrators_rules(tmp_path: Path, tools: Path) -> None:
    made = server(tmp_path, RULES, str(tools / "tcprules"))
    made.publish(b"")
    before = {address: instructions(tools, made.path, address) for address in ADDRESSES}
    wanted = made.wanted({HERE: UNTIL})
    published = made.publish(wanted)
    assert made.is_published(wanted, published)
    after = {address: instructions(tools, made.path, address) for address in ADDRESSES}
    opened = after.pop(HERE)
    assert before.pop(HERE).replace("allow", "") in opened.replace("allow", "") or "RELAY" in opened
    assert "RELAYCLIENT=\n" in opened
    assert "RBLSMTPD=-no, 'never'\n" in opened
    assert after == before
    assert set(made.published_now(0, [])) == {HERE}
    assert Path(made.path).stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tcp.smtp", "tcp.smtp.cdb"]


@pytest.mark.servers
def test_closing_goes_on_with_the_rules_in_force_while_the_source_is_spoilt(
    tmp_path: Path, tools: Path
) -> None:
    made = server(tmp_path, RULES, str(tools / "tcprules"))
    other = "192.0.2.99"
    published = made.publish(made.wanted({HERE: UNTIL, other: UNTIL}))
    before = {address: instructions(tools, made.path, address) for address in ADDRESSES}
    spoilt = server(tmp_path, "192.0.2.8:nonsense\n", str(tools / "tcprules"))
    fewer = spoilt.with_live_entries([HERE, other], published)
    assert fewer is not None
    fewer.publish(fewer.wanted({other: UNTIL}))
    after = {address: instructions(tools, made.path, address) for address in ADDRESSES}
    assert "RELAYCLIENT" in before.pop(HERE)
    assert "RELAYCLIENT" not in after.pop(HERE)
    assert after == before
    assert "RELAYCLIENT=\n" in instructions(tools, made.path, other)


def test_a_cdb_file_that_is_none_is_told(tmp_path: Path) -> None:
    made = server(tmp_path, ":allow\n")
    for spoilt in (b"", b"short", b"\xa5" * 4096):
        Path(made.path).write_bytes(spoilt)
        with pytest.raises(Exception, match="can't be read"):
            made.published_now(0, [])


def test_a_rule_without_end_of_line_stays_one(tmp_path: Path) -> None:
    assert Rules(b":deny").text == b":deny\n"
    assert server(tmp_path, ":deny").objection_to(HERE) is not None
