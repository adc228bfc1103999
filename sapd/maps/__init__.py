"""The mail servers' maps of addresses that may relay: their interface, and the choice of one.

Each mail server has a module here, with a class that is a `Map`. Nothing outside this package
names a mail server; `SERVERS` says which there are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from sapd import errors
from sapd.maps.live import Published

if TYPE_CHECKING:
    from sapd.check.finding import Finding
    from sapd.decision import Objection
    from sapd.toml_table import Table

SERVERS: dict[str, str | type] = {
    "sendmail": "Sendmail",
    "postfix": "Postfix",
    "exim": "Exim",
    "opensmtpd": "OpenSMTPD",
    "tcpserver": "Tcpserver",
}
"""{the value of `access.server`: the name of the class in the module of that name, or a class}"""

LIMITS = ("client_rate", "client_connections", "greet_pause")
"""Settings in [policy] that a mail server must be able to heed."""

_SETTINGS = (
    *("type", "source", "database", "makemap", "builder", "tag", "cf", "self_closing", "table"),
)


class Map(Protocol):
    """One mail server's map, made from the settings in [access], as `options_of` gives them.

    `path` is the live file that the mail server reads. A run by root goes on as the owner of the
    folder `belongs_to`, which is None where root is wanted. `closes_by_itself` is whether the mail
    server heeds the ends in the entries, with no run. `remark` is what the administrator has to do
    after the last `publish`, if anything. Reading the administrator's entries may raise
    `SapdError` from any method but `options_of` and `files`.
    """

    path: str
    belongs_to: str | None = None
    closes_by_itself: bool = False
    remark: str | None = None

    @classmethod
    def options_of(cls, access: Table, policy: Table) -> dict[str, Any]:
        """Check [access], and the `LIMITS` in [policy], and give the class's keyword arguments.

        Paths are absolute. The values can be written as JSON: the state keeps them.
        """
        ...

    def files(self) -> dict[str, str]:
        """{setting: path} of the files that the map is made of; no two may be the same."""
        return {"access.database": self.path}

    def watched(self) -> list[str]:
        """The files that a pass goes by: a change of one means that something happened."""
        return list(self.files().values())

    def objection_to(self, address: str) -> Objection | None:
        """What the administrator's own entries have against opening an address."""
        return None

    def objects_by(self) -> bytes | None:
        """The text by which `objection_to` judges, beside the settings; None if there is none.

        As long as it stays the same, an address is not judged anew by each pass.
        """
        return None

    def permits(self, address: str) -> bool:
        """Whether an address relays by an entry of the administrator's for its network."""
        return False

    def wanted(self, open_until: Mapping[str, float]) -> bytes:
        """The text of sapd's own entries for {address: end (UTC epoch seconds)}.

        An end is the one to be written (`Rules.written_end`); a run closes on time all the same.
        The same bytes for the same decision.
        """
        ...

    def summary(self, opened: int) -> str:
        """What the map holds with so many open addresses, for `sapd run -v`."""
        return f"{opened} open address{'es' * (opened != 1)}"

    def is_published(self, wanted: bytes, published: Published | None) -> bool:
        """Whether the live map is what was published last, and holds these entries."""
        ...

    def publish(self, wanted: bytes, before: Published | None = None) -> Published:
        """Build the map with these entries and put it in place; `before` was published last.

        Raises `SapdError`; unless it says otherwise the old map stands. Where that is status 74,
        for want of room, a map with fewer entries may still be possible.
        """
        ...

    def with_live_entries(self, lets_in: Collection[str], before: Published | None) -> Map | None:
        """The same map, with the administrator's entries as they stand in the live one.

        For closing, while his file can't be used; `lets_in` are the addresses that sapd opened,
        `before` is what was published last. None if there is no such way, or if it can't be told
        that all of his entries are found. Raises `SapdError`.
        """
        return None

    def published_now(self, now: float, candidates: Collection[str]) -> Iterable[str]:
        """The addresses that sapd's entries in the live map let in at `now` (UTC epoch seconds).

        They are read from the map itself; of a map that can't be listed, those of the
        `candidates`. Raises `SapdError`.
        """
        ...

    def findings(self, published: Published | None, scratch: str, root: str) -> Iterator[Finding]:
        """What `sapd check` has to say about the map.

        `scratch` is a folder in which a trial may be made, `root` is where /etc is looked for.
        """
        ...


class Access(NamedTuple):
    """The mail server and its map's options, as [access] has them."""

    server: str
    options: dict[str, Any]


def access_of(access: Table, policy: Table) -> Access:
    """Check [access], and what [policy] demands of the mail server."""
    server = access.one_of("server", SERVERS, "sendmail")
    return Access(server, _class(server).options_of(access, policy))


def chosen(access: Access) -> Map:
    """The configured map. Nothing is read yet."""
    made: Map = _class(access.server)(**access.options)
    return made


def publish_fewer(
    server: Map,
    status: int,
    open_until: Mapping[str, float],
    lets_in: Collection[str],
    before: Published | None,
) -> Published | None:
    """Where a map could not be published, with that `status`, publish one that only closes.

    For want of room one with fewer entries may fit. Else the administrator's entries are taken
    from the live map. None if that could not be done either.
    """
    try:
        fallback = (
            server if status == errors.IO_ERROR else server.with_live_entries(lets_in, before)
        )
        return fallback.publish(fallback.wanted(open_until), before) if fallback else None
    except errors.SapdError:
        return None


def only(server: str, access: Table, policy: Table, *known: str) -> None:
    """Refuse the settings in [access] and the limits that a mail server does not know."""
    for key in _SETTINGS:
        if key not in known and access.has(key):
            access.refuse_to_remove(key, f'has no effect with access.server = "{server}"')
    access.only("server", *known)
    refuse_limits(server, policy)


def refuse_limits(server: str, policy: Table) -> None:
    """Refuse the settings of [policy] that a mail server has no entries for."""
    for key in LIMITS:
        if policy.has(key):
            policy.refuse_to_remove(key, f'has no effect with access.server = "{server}"')


def _class(server: str) -> Any:
    from importlib import import_module

    found = SERVERS[server]
    return getattr(import_module(f"sapd.maps.{server}"), found) if isinstance(found, str) else found
