"""The arrows between the modules go one way, as the picture in sapd/README.md has them."""

import ast
from pathlib import Path

from tests.folders import PACKAGE

ARROWS = {
    "__init__": set(),
    "__main__": {
        "cli", "closing", "config", "defaults", "idle", "messages", "repeat", "run", "toml_table",
    },
    "cli": {
        "cli.check", "cli.init", "cli.man", "cli.match", "cli.options", "closing", "config",
        "errors", "files", "maps", "messages", "repeat", "report", "run", "state", "timestamps",
        "who",
    },
    "cli.match": {
        "cli.options", "config", "decision", "defaults", "errors", "events.context",
        "events.explain", "events.formats", "events.frames", "events.framing", "events.recogniser",
        "messages", "reading.excerpt", "reading.journal", "reading.journal_matches", "relay",
        "timestamps", "toml_table",
    },
    "cli.check": {"check", "check.finding", "cli.options", "config", "errors", "messages"},
    "cli.init": {"cli.options", "init", "messages", "shipped"},
    "cli.man": {"cli.options", "messages"},
    "cli.options": {"addresses", "defaults", "messages", "timestamps", "toml_table"},
    "reading.excerpt": {"errors", "reading.logfile"},
    "repeat": {
        "closing", "config", "errors", "events.formats", "files", "idle", "messages", "report",
        "run", "state",
    },
    "who": {
        "audit", "check.schedules", "config", "decision", "errors", "maps", "relay", "state",
        "timestamps",
    },
    "messages": {"errors", "files", "report", "timestamps"},
    "run": {
        "audit", "config", "cut", "decision", "errors", "files", "idle", "intake", "maps",
        "publishing", "reading.maillog", "reading.place", "report", "state",
    },
    "intake": {
        "config", "cut", "errors", "events.context", "events.frames", "events.framing",
        "events.recogniser", "events.scan", "reading.dated", "reading.journal", "reading.maillog",
        "reading.place", "reading.plan", "relay", "timestamps",
    },
    "audit": {"config", "cut", "errors", "files", "report", "timestamps"},
    "report": {"decision", "errors", "relay", "timestamps"},
    "decision": {"relay", "timestamps"},
    "relay": {"addresses", "timestamps"},
    "state": {
        "addresses", "cut", "decision", "errors", "events.context", "events.frames", "files",
        "idle", "maps", "maps.live", "reading.place", "relay", "timestamps",
    },
    "maps": {"errors", "maps.live"},
    "maps.access": {"addresses", "decision", "errors"},
    "maps.live": {"errors", "files", "idle"},
    "maps.builder": {"child", "errors", "files"},
    "maps.table": {"errors", "files", "maps", "maps.live"},
    "maps.postfix": {
        "addresses", "check.postfix", "child", "errors", "files", "maps", "maps.builder",
        "maps.databases", "maps.live", "maps.table",
    },
    "maps.exim": {"addresses", "check.exim", "maps", "maps.table"},
    "maps.opensmtpd": {
        "addresses", "check.opensmtpd", "errors", "maps", "maps.builder", "maps.table",
    },
    "maps.tcpserver": {
        "addresses", "check.tcpserver", "child", "decision", "errors", "files", "maps",
        "maps.access", "maps.builder", "maps.databases", "maps.live",
    },
    "maps.sendmail": {
        "check.sendmail", "defaults", "errors", "files", "maps", "maps.access", "maps.databases",
        "maps.live", "maps.makemap", "maps.sendmail_cf", "maps.sendmail_entries",
    },
    "maps.makemap": {"child", "errors", "maps.sendmail_cf"},
    "maps.sendmail_entries": {"addresses", "maps"},
    "events": set(),
    "events.scan": {"events.frames", "events.recogniser", "timestamps"},
    "events.recogniser": {
        "addresses", "events.context", "events.doubts", "events.formats", "events.frames",
        "events.kinds", "timestamps",
    },
    "events.doubts": {
        "events.context", "events.formats", "events.frames", "events.kinds", "events.prefixes",
        "timestamps",
    },
    "events.kinds": {"events.formats"},
    "events.context": set(),
    "events.frames": {"events.prefixes", "timestamps"},
    "events.framing": {"events.formats", "events.frames", "timestamps"},
    "events.prefixes": set(),
    "events.formats": {
        "addresses", "errors", "events.frames", "timestamps", "toml_file", "toml_table",
    },
    "events.explain": {"addresses", "events.doubts", "events.formats", "events.frames"},
    "cut": {"errors", "files", "reading.logfile", "reading.place"},
    "reading.journal": {
        "defaults", "events.frames", "reading.journalctl", "reading.maillog", "reading.place",
        "timestamps",
    },
    "reading.journalctl": {"child", "errors", "reading.journal_matches"},
    "reading.journal_matches": set(),
    "reading": set(),
    "reading.maillog": {
        "errors", "reading.logfile", "reading.place", "reading.plan", "reading.rotated",
        "timestamps",
    },
    "reading.plan": {
        "reading.edge", "reading.logfile", "reading.place", "reading.rotated", "timestamps",
    },
    "reading.edge": {"reading.logfile", "reading.place", "timestamps"},
    "reading.rotated": {"reading.logfile"},
    "reading.logfile": {"reading.place", "reading.zstd"},
    "reading.zstd": {"child"},
    "reading.dated": set(),
    "reading.place": set(),
    "config": {
        "addresses", "defaults", "errors", "events.formats", "events.frames", "files", "idle",
        "maps", "reading.dated", "reading.journal_matches", "reading.logfile", "relay", "settings",
        "timestamps", "toml_file", "toml_table",
    },
    "toml_table": {"addresses", "errors", "settings", "toml_lines"},
    "toml_file": {"errors", "settings", "toml_lines", "toml_table"},
    "settings": set(),
    "toml_lines": set(),
    "check": {
        "audit", "check.finding", "check.journals", "check.logs", "check.rights", "check.running",
        "check.schedules", "check.starting", "config", "errors", "events.formats", "files", "idle",
        "maps", "maps.live", "state", "who",
    },
    "check.starting": {
        "check.finding", "check.rights", "check.running", "check.schedules", "check.table",
        "config", "errors",
    },
    "check.rights": {"check.finding", "config", "defaults", "errors", "files", "maps"},
    "check.logs": {
        "check.finding", "check.rotation", "check.syslogs", "config", "crowds", "errors",
        "events.context", "events.explain", "events.formats", "events.frames", "events.framing",
        "events.recogniser", "files", "reading.dated", "reading.maillog", "timestamps",
    },
    "check.journals": {
        "check.finding", "check.look", "child", "config", "errors", "events.context",
        "events.formats", "events.recogniser", "reading.journal", "reading.journal_matches",
        "timestamps",
    },
    "check.sendmail": {
        "check.finding", "check.readable", "errors", "files", "maps.databases", "maps.live",
        "maps.sendmail_cf", "maps.sendmail_entries",
    },
    "check.table": {"check.finding", "check.look", "child", "errors", "files", "maps.live"},
    "check.postfix": {"check.finding", "check.table", "errors"},
    "check.exim": {"check.finding", "check.table", "errors"},
    "check.opensmtpd": {"check.finding", "check.look", "check.table", "errors"},
    "check.tcpserver": {"check.finding", "check.table", "errors"},
    "check.schedules": {"check.look", "defaults"},
    "check.rotation": {"check.look"},
    "check.syslogs": {"check.look"},
    "check.readable": {"check.look"},
    "init": {
        "check", "check.finding", "check.schedules", "config", "defaults", "errors", "files",
        "init.choice", "init.logs", "init.page", "init.servers",
    },
    "init.choice": {"init.logs", "init.page"},
    "init.logs": {
        "check.journals", "check.look", "check.rotation", "check.syslogs", "check.table", "errors",
        "events.context", "events.formats", "events.frames", "events.framing", "events.recogniser",
        "reading.journal", "reading.journal_matches", "timestamps",
    },
    "init.servers": {
        "check.look", "check.running", "check.table", "defaults", "init.page", "maps.sendmail_cf",
    },
    "init.page": set(),
    "shipped": {"defaults", "errors"},
    "check.look": set(),
    "check.finding": {"errors"},
    "files": {"errors"},
    "idle": {"child", "defaults"},
    "addresses": set(),
    "child": set(),
    "defaults": set(),
    "timestamps": {"events.prefixes"},
    "errors": set(),
    "check.running": {"check.look"},
    "closing": {
        "config", "decision", "defaults", "errors", "files", "idle", "maps", "relay", "report",
        "state",
    },
    "crowds": set(),
    "maps.databases": set(),
    "maps.sendmail_cf": set(),
    "publishing": {
        "config", "decision", "errors", "idle", "maps", "maps.live", "relay", "report", "state",
    },
}  # fmt: skip

PURE = {
    "addresses",
    "init.choice",
    "init.page",
    "relay",
    "decision",
    "events.recogniser",
    "timestamps",
    "report",
}
"""What these say depends on their arguments alone."""


def module_name(package: str, name: str) -> str:
    """What `from package import name` imports, without "sapd."; a package's function is its own."""
    full = f"{package}.{name}".removeprefix("sapd.")
    return full if full in ARROWS else package.removeprefix("sapd.")


def modules() -> dict[str, Path]:
    """All modules by their names, without "sapd."."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }


class _WithoutTypes(ast.NodeTransformer):
    def visit_If(self, node: ast.If) -> ast.AST | None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return None
        return self.generic_visit(node)


def imports(module: Path) -> tuple[set[str], set[str]]:
    """The modules of sapd, and the other top-level packages, that a module imports anywhere.

    What is imported for its types alone is no arrow.
    """
    own: set[str] = set()
    other: set[str] = set()
    for node in ast.walk(_WithoutTypes().visit(ast.parse(module.read_text()))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            name = node.module or ""
            if name == "sapd" or (PACKAGE / name.removeprefix("sapd.")).is_dir():
                own |= {module_name(name, alias.name) for alias in node.names}
            elif name.startswith("sapd."):
                own.add(name.removeprefix("sapd."))
            else:
                other.add(name.split(".")[0])
        elif isinstance(node, ast.Import):
            other |= {alias.name.split(".")[0] for alias in node.names}
    return own, other


def test_every_arrow_is_in_the_picture() -> None:
    found = {name: imports(path)[0] for name, path in modules().items()}
    assert found == ARROWS


def test_the_picture_has_no_circle() -> None:
    left = {name: set(arrows) for name, arrows in ARROWS.items()}
    while left:
        ends = {name for name, arrows in left.items() if not arrows}
        assert ends, f"a circle among {sorted(left)}"
        left = {name: arrows - ends for name, arrows in left.items() if name not in ends}


def test_pure_modules_ask_no_clock_and_no_system() -> None:
    packages = {name: imports(path)[1] for name, path in modules().items() if name in PURE}
    assert packages.keys() == PURE
    impure = {"os", "time", "io", "sys", "socket", "subprocess", "pathlib", "shutil", "random"}
    assert {name: found & impure for name, found in packages.items() if found & impure} == {}


def test_who_may_import_what_is_not_the_standard_library() -> None:
    users = {
        package: sorted(name for name, path in modules().items() if package in imports(path)[1])
        for package in ("click", "dateutil")
    }
    assert users == {
        "click": ["cli", "cli.check", "cli.init", "cli.man", "cli.match", "cli.options"],
        "dateutil": ["timestamps"],
    }
