"""The arrows between the modules go one way, as the README's picture has them."""

import ast
from pathlib import Path

from tests.folders import PACKAGE

ARROWS = {
    "__init__": set(),
    "__main__": {"cli", "config", "defaults", "idle", "messages", "run"},
    "cli": {
        "check", "check.finding", "config", "defaults", "errors", "explain", "files", "formats",
        "maillog", "messages", "recogniser", "relay", "repeat", "run", "timestamps", "who",
    },
    "repeat": {"config", "errors", "files", "formats", "idle", "messages", "run"},
    "who": {"access", "audit", "config", "state", "timestamps"},
    "messages": {"errors", "files", "run"},
    "audit": {"cut", "files", "maillog", "timestamps"},
    "run": {
        "access", "audit", "config", "cut", "errors", "files", "idle", "maillog", "recogniser",
        "relay", "scan", "state", "timestamps",
    },
    "scan": {"formats", "recogniser", "timestamps"},
    "idle": {"defaults"},
    "defaults": set(),
    "check": {
        "access", "check.finding", "check.limits", "check.logs", "check.maps",
        "check.schedules", "config", "errors", "formats", "state",
    },
    "check.logs": {
        "check.finding", "check.rotation", "check.syslogs", "config", "errors", "explain", "files",
        "formats", "maillog", "recogniser", "timestamps",
    },
    "check.maps": {"access", "check.finding", "check.readable", "config", "errors", "files"},
    "check.limits": {"check.finding", "check.look", "config", "errors"},
    "check.schedules": {"check.look", "defaults"},
    "check.rotation": {"check.look"},
    "check.syslogs": {"check.look"},
    "check.readable": {"check.look"},
    "check.look": set(),
    "check.finding": {"errors"},
    "explain": {"formats", "recogniser"},
    "config": {"defaults", "errors", "formats", "idle", "relay", "timestamps"},
    "state": {
        "access", "errors", "files", "formats", "maillog", "recogniser", "relay", "timestamps",
    },
    "access": {"child", "errors", "files", "idle", "relay"},
    "child": set(),
    "cut": {"files", "maillog"},
    "maillog": {"errors", "timestamps"},
    "recogniser": {"formats", "timestamps"},
    "formats": {"errors", "timestamps"},
    "files": {"errors"},
    "relay": set(),
    "timestamps": set(),
    "errors": set(),
}  # fmt: skip


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


def imports(module: Path) -> tuple[set[str], set[str]]:
    """The modules of sapd, and the other top-level packages, that a module imports anywhere."""
    own: set[str] = set()
    other: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            name = node.module or ""
            if name in ("sapd", "sapd.check"):
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


def test_who_may_import_what_is_not_the_standard_library() -> None:
    users = {
        package: sorted(name for name, path in modules().items() if package in imports(path)[1])
        for package in ("click", "dateutil")
    }
    assert users == {"click": ["cli"], "dateutil": ["timestamps"]}
