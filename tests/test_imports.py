"""The arrows between the modules go one way, as the README's picture has them."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "sapd"

ARROWS = {
    "__init__": set(),
    "__main__": {"cli"},
    "cli": {
        "check", "config", "errors", "explain", "files", "formats", "maillog", "recogniser", "run",
        "timestamps",
    },
    "run": {
        "access", "config", "cut", "errors", "files", "maillog", "recogniser", "relay", "state",
        "timestamps",
    },
    "check": {
        "access", "config", "errors", "files", "maillog", "recogniser", "state", "timestamps",
    },
    "explain": {"formats", "recogniser"},
    "config": {"errors", "formats", "relay", "timestamps"},
    "state": {"access", "errors", "files", "maillog", "recogniser", "relay"},
    "access": {"errors", "files", "relay"},
    "cut": {"files", "maillog"},
    "maillog": {"errors", "timestamps"},
    "recogniser": {"formats", "timestamps"},
    "formats": {"errors", "timestamps"},
    "files": {"errors"},
    "relay": set(),
    "timestamps": set(),
    "errors": set(),
}  # fmt: skip


def imports(module: Path) -> tuple[set[str], set[str]]:
    """The modules of sapd, and the other top-level packages, that a module imports anywhere."""
    own: set[str] = set()
    other: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            name = node.module or ""
            if name == "sapd":
                own |= {alias.name for alias in node.names}
            elif name.startswith("sapd."):
                own.add(name.split(".")[1])
            else:
                other.add(name.split(".")[0])
        elif isinstance(node, ast.Import):
            other |= {alias.name.split(".")[0] for alias in node.names}
    return own, other


def test_every_arrow_is_in_the_picture() -> None:
    found = {path.stem: imports(path)[0] for path in PACKAGE.glob("*.py")}
    assert found == ARROWS


def test_the_picture_has_no_circle() -> None:
    left = {name: set(arrows) for name, arrows in ARROWS.items()}
    while left:
        ends = {name for name, arrows in left.items() if not arrows}
        assert ends, f"a circle among {sorted(left)}"
        left = {name: arrows - ends for name, arrows in left.items() if name not in ends}


def test_who_may_import_what_is_not_the_standard_library() -> None:
    users = {
        package: sorted(path.stem for path in PACKAGE.glob("*.py") if package in imports(path)[1])
        for package in ("click", "dateutil")
    }
    assert users == {"click": ["cli"], "dateutil": ["timestamps"]}
