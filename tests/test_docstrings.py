"""Docstrings are in one dialect: the entries of a section are indented by four."""

import ast
import re

from tests.conftest import ROOT

_SECTION = re.compile(r"^( *)(Args|Attributes|Returns|Raises|Yields):\n( *)\S", re.MULTILINE)


def test_sections_are_indented_by_four():
    found, narrow = 0, []
    for path in sorted(
        path for name in ("flags", "tfcxr", "tfrecords_builder", "tools") for path in (ROOT / name).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                for outer, _, inner in _SECTION.findall(ast.get_docstring(node) or ""):
                    found += 1
                    if len(inner) - len(outer) != 4:
                        narrow.append(f"{path.relative_to(ROOT)}: {getattr(node, 'name', 'module')}")
    assert found > 400
    assert not narrow
