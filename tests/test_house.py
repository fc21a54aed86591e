"""One word per thing: what newcomers meet under a name is one thing in the whole package."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).parent.parent / "service" / "holdfast"
CAMEL_CASE: Final = re.compile(r"[A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*")
SAME_STEP: Final = {"accept_loss", "committed", "connect", "failed"}
"""One step at two levels, or of two kinds of records."""

MODULES: Final = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def public_types(module: Path) -> list[str]:
    """The classes and type aliases that ``module`` defines for others.

    A name in camel case that is assigned is an alias, unless a call made it: a type variable.
    """
    body = ast.parse((PACKAGE / module).read_text()).body
    classes = [node.name for node in body if isinstance(node, ast.ClassDef)]
    aliases = [node.name.id for node in body if isinstance(node, ast.TypeAlias)]
    assigned = [
        target.id
        for node in body
        if isinstance(node, ast.Assign) and not isinstance(node.value, ast.Call)
        for target in node.targets
        if isinstance(target, ast.Name) and CAMEL_CASE.fullmatch(target.id)
    ]
    return [name for name in (*classes, *aliases, *assigned) if not name.startswith("_")]


def public_functions(module: Path) -> list[str]:
    """The functions that ``module`` defines for others."""
    body = ast.parse((PACKAGE / module).read_text()).body
    functions = [node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [node.name for node in functions if not node.name.startswith("_")]


def test_a_public_type_has_a_name_of_its_own() -> None:
    homes = defaultdict(list)
    for module in MODULES:
        for name in public_types(module):
            homes[name].append(str(module))

    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


def test_a_public_function_but_of_commands_has_a_name_of_its_own() -> None:
    homes = defaultdict(list)
    for module in MODULES:
        if module.parts[0] != "cli":
            for name in public_functions(module):
                homes[name].append(str(module))

    twice = {name: where for name, where in homes.items() if len(where) > 1}
    assert {name: where for name, where in twice.items() if name not in SAME_STEP} == {}


def test_no_two_neighbours_differ_by_a_plural_alone() -> None:
    names = {str(path.with_suffix("")) for path in MODULES}
    names |= {str(path.parent) for path in MODULES}

    assert [name for name in sorted(names) if f"{name}s" in names] == []


def test_no_module_is_too_long_to_be_read_at_once() -> None:
    lines = {str(module): (PACKAGE / module).read_text().count("\n") for module in MODULES}

    assert {module: count for module, count in lines.items() if count > 500} == {}


def test_long_tests_are_marked_in_their_own_file() -> None:
    tests = Path(__file__).parent
    shared = {path for path in tests.rglob("*.py") if not path.name.startswith("test_")}
    shared -= {tests / "conftest.py", tests / "examples.py"}

    assert [path for path in shared if re.search("mark.long|at_length", path.read_text())] == []
