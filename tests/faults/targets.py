"""What is fuzzed: functions that take any bytes, and fail if sapd does what it must not."""

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC
from ipaddress import IPv6Address, ip_address
from itertools import islice, pairwise
from pathlib import Path

from sapd import addresses, config, decision, errors, relay, state, timestamps
from sapd.events import formats, frames
from sapd.events.context import Context
from sapd.events.formats import Format
from sapd.events.recogniser import Event, Recogniser
from sapd.maps.sendmail import Sendmail
from sapd.timestamps import Clock
from tests import samples
from tests.folders import PACKAGE, ROOT
from tests.test_state import FULL

SEEDS = Path(__file__).with_name("seeds")
NOW = 1_800_000_000.0
LAST = 253_402_300_800  # the end of the year 9999
ZONES = [UTC, timestamps.zone("Europe/Berlin"), timestamps.zone("Australia/Lord_Howe")]
RULES = [
    relay.Rules(1800),
    relay.Rules(1800, after_logout=600, most_accounts=2, one_address=True, denied=("b*",)),
]
ADDRESSES = ["192.0.2.1", "192.0.2.10", "203.0.113.7", "2001:db8::7", "::1"]


RECOGNISER = Recogniser([formats.AUTO], Clock(NOW, UTC))


def lines(data: bytes) -> None:
    """A block of lines means what its lines mean one by one, and each event is a sound one."""
    rows = re.findall(rb"[^\n]*\n|[^\n]+", data)
    RECOGNISER.context = Context()
    found = [(number, samples.event_of(RECOGNISER, row)) for number, row in enumerate(rows)]
    context, RECOGNISER.context = RECOGNISER.context, Context()
    assert [*RECOGNISER.events(data)] == [event for _, event in found if event is not None]
    assert RECOGNISER.context == context
    for number, event in found:
        if event is not None:
            _is_sound(event, rows[number], rows[: number + 1])


STAMPED = re.compile(
    rb"(?:<\d{1,3}>1 )?(?:%b|%b) "
    % (timestamps.STAMPS["traditional"], timestamps.STAMPS["rfc3339"])
)
"""The head of a line."""


def torn(data: bytes) -> None:
    """Half a line, perhaps zeros, and the next line behind it mean nothing.

    The first byte says how much of the first line was written, the second how many zeros stand
    between them.
    """
    first, _, second = data[2:].partition(b"\n")
    second = second.partition(b"\n")[0]
    part = first[: data[0] * (len(first) + 1) // 256] if data else b""
    if not STAMPED.match(part) or not STAMPED.match(second):
        return
    RECOGNISER.context = Context()
    row = part + bytes(data[1] % 4) + second + b"\n"
    assert samples.event_of(RECOGNISER, row) is None
    assert [*RECOGNISER.events(row)] == []


def _is_sound(event: Event, row: bytes, rows: list[bytes]) -> None:
    """The stamp is that at the line's head, and the address stands in this line or one before."""
    assert row.endswith(b"\n")
    assert len(row) <= frames.LONGEST
    assert event.event in ("login", "logout", "connect")
    assert 0 <= event.time < LAST
    assert event.time == Clock(NOW, UTC).of_line(row)
    if event.address is not None:
        ip = ip_address(event.address)
        assert str(ip) == event.address
        assert not (isinstance(ip, IPv6Address) and (ip.scope_id or ip.ipv4_mapped))
        shapes = (
            rb"[0-9A-Fa-f:._]+",
            rb"[0-9A-Fa-f:._]*[0-9A-Fa-f]",
            rb"[0-9A-Fa-f:._]+(?=:\d+\b)",  # before a port
            rb"\d+\.\d+\.\d+\.\d+",
        )
        words = (word for shape in shapes for word in re.findall(shape, b"".join(rows)))
        assert any(addresses.parse_address(word) == event.address for word in words)
    event.account.encode("utf-8", "surrogateescape")


def stamps(data: bytes) -> None:
    """A stamp is a time that can be, or none; the same one whatever was asked before."""
    head, text = data[:1] or b"\0", data[1:]
    zone = ZONES[head[0] % len(ZONES)]
    now = NOW + head[0] * 1_234_567.0
    clock = Clock(now, zone)
    for line in text.split(b"\n"):
        found = clock.of_line(line)
        assert found == Clock(now, zone).of_line(line)
        assert found is None or 0 <= found < LAST
        if timestamps.yearless(line):
            assert found is None or now - 9 * 366 * 86_400 < found <= now + 86_400 + 60
        like = timestamps.stamp_like(line, now, zone)
        assert clock.of_line(like + b" x") == now
    for stamp in re.findall(b"|".join(timestamps.STAMPS.values()), text):
        found = clock.epoch(stamp)
        assert found is None or 0 <= found < LAST


def saved(data: bytes) -> None:
    """A state is refused, or is what it is when it is saved and loaded again."""
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        Path(folder, "state.json").write_bytes(data)
        try:
            loaded = state.load(folder)
        except state.Damaged:
            return
        text = state.to_text(loaded)
        state.save(folder, text)
        again = state.load(folder)
    assert again == loaded
    assert state.to_text(again) == text
    ledger = loaded.ledger
    for rules in RULES:
        decided = decision.decide(ledger, rules, lambda _: None, NOW)
        for grant in decision.grants(ledger, decided):
            assert grant.since <= NOW < grant.until
            timestamps.rfc3339(grant.until)
        for accounts in decided.closed.values():
            assert not any("\n" in why.words for why in accounts.values())
        ledger.expire(rules, NOW)
        stamps = [
            stamp
            for of in (ledger.claims, ledger.logouts)
            for each in of.values()
            for stamp in each.values()
        ]
        assert all(stamp.counted <= NOW for stamp in stamps)
        assert all(stamp.written <= NOW + timestamps.AHEAD for stamp in stamps)
        homes, closings = ledger.last_address.values(), ledger.revoked.values()
        assert all(time <= NOW + timestamps.AHEAD for _, time in homes)
        assert all(until <= NOW for _, until in closings)


def source(data: bytes) -> None:
    """A plain word against an address counts, whatever stands beside it."""
    with _file(data, "access") as path:
        server = Sendmail("/nowhere.db", path)
        assert server.source.count >= 0
    refused = {
        word.decode()
        for word in re.findall(rb"^(?i:connect:)?([0-9.]+)[ \t]+REJECT$", data, re.MULTILINE)
    }
    for address in ADDRESSES:
        found = server.objection_to(address)
        assert found is None or "\n" not in found.detail
        if address in refused:
            assert found is not None
        entries = server.wanted({address: NOW}).splitlines(keepends=True)
        assert len(entries) <= 2
        for entry in entries:
            assert re.fullmatch(rb"Connect:[0-9A-Fa-fIPv:.]+\tRELAY\n", entry)
            key = entry.split(b"\t")[0].lower()
            assert key not in re.findall(rb"^(\S+)[ \t]", data.lower(), re.MULTILINE)


def settings(data: bytes) -> None:
    """A configuration is refused in one line, or can be run by."""
    with _file(data, "sapd.toml") as path:
        try:
            found = config.load(path)
        except errors.SapdError as error:
            _is_one_line(error)
            return
    assert found.logs
    assert all(os.path.isabs(log.path) for log in found.logs)
    assert all(log.keep_lines is None or 1 <= log.keep_lines <= log.cut_above for log in found.logs)
    for address in ADDRESSES:
        assert 0 < found.rules.window_of(address) <= found.rules.longest <= 366 * 86_400
        found.rules.forbids(address)


def server(data: bytes) -> None:
    """A format is refused, or has what each kind of line needs."""
    with _file(data, "new.toml") as path:
        try:
            found = formats._of_file(path, shipped=True)
        except errors.SapdError as error:
            _is_one_line(error)
            return
    assert isinstance(found, Format)
    assert found.lines
    for line in found.lines:
        assert line.needles
        assert all(line.needles)
        assert bool(line.reason) == (line.event == "rejected")
        opens_or_closes = line.event not in ("connect", "cut", "rejected")
        assert "account" in line.pattern.groupindex or not opens_or_closes


def _is_one_line(error: errors.SapdError) -> None:
    assert error.status in (errors.BAD_CONFIG, errors.NO_PERMISSION)
    assert error.reason


class _file:  # noqa: N801 -- a context manager that is used like a function
    """A file with these contents, for as long as it is needed."""

    def __init__(self, data: bytes, name: str) -> None:
        self._folder = tempfile.TemporaryDirectory(dir=_memory())
        self._path = Path(self._folder.name, name)
        self._path.write_bytes(data)

    def __enter__(self) -> str:
        return str(self._path)

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


def _memory() -> str | None:
    """A folder in memory, where the machine has one."""
    return "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108 -- a private one in it


# Where it starts from.


def _log_lines() -> Iterator[bytes]:
    """Of every format some logs of one session, and what strangers make others log."""
    for name in samples.folders():
        for log in islice(samples.logs(name), 3):
            yield b"".join(samples.data(row) for row in log[:4])
        for row in islice(samples.rows(name), 0, None, 40):
            yield samples.data(row)
    yield from (samples.data(row) for row in islice(samples.strangers(), 0, None, 40))


def _stamped() -> Iterator[bytes]:
    yield from (b"\0" + row for row in _log_lines())
    yield b"\1Feb 29 12:00:00 x\nOct 25 02:30:00 x\n@4000000037c219bf2ef02e94 x\n"


def _halves() -> Iterator[bytes]:
    """Lines that may follow each other, the first of them cut at each tenth."""
    rows = [row for log in _log_lines() for row in log.splitlines(keepends=True)]
    for number, (first, second) in enumerate(pairwise(rows[::3])):
        yield bytes([number * 26 % 256, number % 7]) + first + second


def _files(*folders: str, root: Path = ROOT) -> Callable[[], Iterator[bytes]]:
    """The files that the patterns name, below a folder: the repository's root."""

    def read() -> Iterator[bytes]:
        for pattern in folders:
            for path in sorted(root.glob(pattern)):
                yield path.read_bytes()

    return read


def _states() -> Iterator[bytes]:
    yield state.to_text(FULL).encode()
    yield state.to_text(state.empty()).encode()


def _sources() -> Iterator[bytes]:
    yield b"Connect:192.0.2\tREJECT\n192.0.2.1\tOK\nIPv6:2001:db8\tRELAY\n"
    yield b"connect:192.0.2.10 REJECT\n10.0.0.0/8\tREJECT\n[192.0.2.1] RELAY\r\n::1 REJECT\n"


def _needles() -> list[str]:
    kinds = (line for name in formats.names() for line in formats.load(name).lines)
    return sorted({needle.decode() for line in kinds for needle in line.needles})


@dataclass(frozen=True)
class Target:
    """A function to fuzz, what it starts from beside its seeds' folder, and words it may meet."""

    run: Callable[[bytes], None]
    start: Callable[[], Iterator[bytes]]
    words: Callable[[], list[str]] = list

    @property
    def name(self) -> str:
        """The function's, which is also that of the folder."""
        return self.run.__name__

    def seeds(self) -> list[bytes]:
        """Everything that it starts from."""
        kept = sorted((SEEDS / self.name).glob("*"))
        return [*self.start(), *(path.read_bytes() for path in kept)]


TARGETS = {
    target.name: target
    for target in (
        Target(lines, _log_lines, _needles),
        Target(torn, _halves, _needles),
        Target(stamps, _stamped),
        Target(saved, _states, lambda: list(re.findall(r'"\w+"', state.to_text(FULL)))),
        Target(source, _sources, lambda: ["Connect:", "IPv6:", "RELAY", "REJECT", "OK", "192.0.2"]),
        Target(settings, _files("examples/*.toml", "examples/*/*.toml")),
        Target(server, _files("popformats/*.toml", root=PACKAGE)),
    )
}
