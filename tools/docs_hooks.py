"""Hooks of MkDocs: pages may ask for the help text of all commands and for the list of presets, which so stay true."""

import contextlib
import io
import re
from typing import Any

from flags import app
from tfcxr import cli

_HELP = "<!-- help of all commands -->"
_PRESETS = "<!-- list of presets -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fills in what a page asks for."""
    if _HELP in markdown:
        markdown = markdown.replace(_HELP, "\n\n".join(map(_section, cli.COMMANDS)))
    if _PRESETS in markdown:
        markdown = markdown.replace(_PRESETS, _presets())
    return markdown


def _section(command: str) -> str:
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        if cli.main([command, "--help"]):
            raise RuntimeError(f"{command} --help failed")
    return f"## {command}\n\n```text\n{text.getvalue().rstrip()}\n```"


def _presets() -> str:
    rows = ["| `--flagfile=` | what it is |", "|---|---|"]
    for file in sorted(app.PRESETS.rglob("*.flags")):
        comment = re.match(r"(?:#.*\n)+", file.read_text(encoding="utf-8"))
        words = " ".join(line.lstrip("# ") for line in comment[0].splitlines()) if comment else ""
        rows.append(f"| `{file.relative_to(app.PRESETS).with_suffix('')}` | {words.replace('|', chr(92) + '|')} |")
    return "\n".join(rows)
