"""Nothing grows into a room that holds too much, and no reason is worded in two places."""

import ast
from collections.abc import Iterator

from sapd import decision
from tests.folders import PACKAGE

MOST_LINES = 40  # of a function
MOST_ATTRIBUTES = 8  # of a class whose objects change
RECORDS = {"NamedTuple", "Protocol", "Enum"}


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in PACKAGE.rglob("*.py"):
        name = str(path.relative_to(PACKAGE).with_suffix(""))
        yield name, ast.parse(path.read_text())


def attributes(of: ast.ClassDef) -> set[str]:
    """What is assigned to `self`, and what a cached property keeps there."""
    stored = {
        node.attr
        for node in ast.walk(of)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }
    return stored | {
        node.name
        for node in of.body
        if isinstance(node, ast.FunctionDef)
        and any("cached_property" in ast.unparse(how) for how in node.decorator_list)
    }


def is_too_large(node: ast.AST) -> bool:
    if isinstance(node, ast.FunctionDef):
        lines = (node.end_lineno or 0) - node.lineno + 1
        return lines > MOST_LINES
    if isinstance(node, ast.ClassDef):
        is_record = any(ast.unparse(base) in RECORDS for base in node.bases)
        return not is_record and len(attributes(node)) > MOST_ATTRIBUTES
    return False


def test_no_function_and_no_class_is_too_large() -> None:
    found = {
        f"{module}.{getattr(node, 'name', '')}"
        for module, tree in trees()
        for node in ast.walk(tree)
        if is_too_large(node)
    }
    assert found == set()


def test_the_order_of_a_pass_is_a_page_and_a_half() -> None:
    assert len((PACKAGE / "run.py").read_text().splitlines()) <= 200


def test_each_reasons_words_stand_once() -> None:
    texts = [path.read_text() for path in PACKAGE.rglob("*.py")]
    for words in decision._WORDS.values():
        longest = max(words.split("{}"), key=len).strip(' "')
        if not longest:  # the detail says it all
            continue
        assert sum(text.count(longest) for text in texts) == 1, longest
