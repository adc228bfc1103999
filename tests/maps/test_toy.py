"""A mail server that nobody has: what one more of them takes, and that nothing else is wanted.

Its map is a text file with an address a line; the administrator's entries stand in another one.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sapd import check, cli, config, errors, files, maps, run
from sapd.check.finding import Finding
from sapd.decision import Objection, Reason
from sapd.maps import live
from sapd.maps.live import Published
from sapd.toml_table import Table
from tests.site import Site, login


class Toy(maps.Map):
    """A text file of addresses, which must not be in the administrator's `refused`."""

    def __init__(self, table: str, refused: str) -> None:
        self.path = table
        self.refused = refused

    @classmethod
    def options_of(cls, access: Table, policy: Table) -> dict[str, Any]:
        access.only("server", "table", "refused")
        maps.refuse_limits("toy", policy)
        return {"table": access.path("table"), "refused": access.path("refused")}

    def files(self) -> dict[str, str]:
        return {"access.table": self.path, "access.refused": self.refused}

    def objection_to(self, address: str) -> Objection | None:
        try:
            lines = Path(self.refused).read_text().splitlines()
        except OSError as error:
            raise errors.SapdError(errors.BAD_CONFIG, self.refused, str(error.strerror)) from None
        return Objection(Reason.REFUSED, address) if address in lines else None

    def wanted(self, open_until: Mapping[str, float]) -> bytes:
        return "".join(f"{address}\n" for address in sorted(open_until)).encode()

    def is_published(self, wanted: bytes, published: Published | None) -> bool:
        return published is not None and Path(self.path).exists() and self._text() == wanted

    def publish(self, wanted: bytes, before: Published | None = None) -> Published:
        files.replace(self.path, wanted, 0o644)
        return Published(self.path, live.digest(wanted), "", (), live.boot_id())

    def published_now(self, now: float, candidates: Collection[str]) -> Iterable[str]:
        return self._text().decode().splitlines()

    def findings(self, published: Published | None, scratch: str, root: str) -> Iterator[Finding]:
        yield Finding(0, f"{self.path}: has {self._text().count(10)} lines")

    def _text(self) -> bytes:
        return Path(self.path).read_bytes()


HERE, THERE, REFUSED = "192.0.2.1", "2001:db8::7", "203.0.113.9"


@pytest.fixture
def toy(site: Site, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The table of a site whose mail server is the toy."""
    monkeypatch.setitem(maps.SERVERS, "toy", Toy)
    text = site.config.read_text()
    head, rest = text.split("[access]")
    rest = rest[rest.index("[state]") :]
    access = 'server = "toy"\ntable = "table"\nrefused = "refused"\n'
    site.config.write_text(f"{head}[access]\n{access}{rest}")
    (site.folder / "refused").write_text(f"{REFUSED}\n")
    return site.folder / "table"


def sapd(site: Site, *arguments: str) -> int:
    """A command in this process, which knows the toy."""
    command, *rest = arguments
    found = cli.sapd.main([command, "-c", str(site.config), *rest], standalone_mode=False)
    return found if isinstance(found, int) else 0


def test_whole_passes(site: Site, toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.write(login(HERE), login(THERE, "eve"), login(REFUSED))
    assert sapd(site, "run", "-v") == 0
    assert toy.read_text() == f"{HERE}\n{THERE}\n"
    said = capsys.readouterr()
    assert f"rewrite {toy}: 2 open addresses" in said.out
    assert "not opened: logged in as bob, but" in said.err
    assert sapd(site, "run", "-v") == 0
    assert capsys.readouterr().out == "nothing new\n"
    toy.write_text("192.0.2.66\n")
    assert sapd(site, "run", "-n") == 0
    assert toy.read_text() == "192.0.2.66\n"
    assert sapd(site, "run") == 0
    assert toy.read_text() == f"{HERE}\n{THERE}\n"
    assert sapd(site, "close", HERE) == 0
    assert toy.read_text() == f"{THERE}\n"
    (site.folder / "refused").unlink()
    assert sapd(site, "run") == errors.BAD_CONFIG
    assert toy.read_text() == f"{THERE}\n"


def test_list_and_who(site: Site, toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.write(login(HERE), login(REFUSED))
    sapd(site, "run")
    capsys.readouterr()
    sapd(site, "list", "--json")
    assert [row["address"] for row in json.loads(capsys.readouterr().out)] == [HERE]
    toy.write_text("192.0.2.66\n")
    sapd(site, "list")
    assert f"{toy}: still lets in 192.0.2.66" in capsys.readouterr().err
    sapd(site, "who", HERE)
    assert capsys.readouterr().out.startswith(f"{HERE} is open until ")
    sapd(site, "who", REFUSED)
    assert "is closed: " in capsys.readouterr().out


def test_check(site: Site, toy: Path) -> None:
    site.write(login(HERE))
    sapd(site, "run")
    settings = config.load(str(site.config))
    found = [finding.text for finding in check.findings(settings, str(site.folder))]
    assert f"{toy}: has 1 lines" in found
    assert not any("makemap" in text or "sendmail" in text for text in found)


def test_an_idle_minute_watches_its_files(site: Site, toy: Path) -> None:
    site.write(login(HERE))
    run.once(config.load(str(site.config)))
    server = maps.chosen(config.load(str(site.config)).access)
    assert server.watched() == [str(toy), str(site.folder / "refused")]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('refused = "refused"\n', "", "access.refused is missing"),
        ('"refused"', '"table"', "the same file as access.table"),
        ("[state]", "[policy]\nclient_rate = 3\n[state]", 'no effect with access.server = "toy"'),
        ('table = "table"', 'database = "table"', "access.database is not a setting"),
    ],
)
def test_its_settings_are_checked(site: Site, toy: Path, old: str, new: str, reason: str) -> None:
    site.config.write_text(site.config.read_text().replace(old, new))
    with pytest.raises(errors.SapdError, match=reason):
        config.load(str(site.config))
