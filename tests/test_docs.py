"""README and the site say what is true: their commands parse, their presets, files and make targets exist."""

import ast
import importlib
import json
import pathlib
import re
import shlex

import pytest

import tfcxr
from flags import app, common
from tests.conftest import ROOT
from tfcxr import cli

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "WORKSPACE.md", *(ROOT / "docs").rglob("*.md")])
FOREIGN_MESSAGES = ("No space left on device",)
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def code_blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language, without the indent of tabs and lists."""
    blocks = re.findall(rf"^( *)```{language}\b[^\n]*\n(.*?)^\1```", text, re.DOTALL | re.MULTILINE)
    return ["\n".join(line[len(indent) :] for line in body.splitlines()) for indent, body in blocks]


@pytest.fixture
def paths_need_not_exist(monkeypatch):
    def define(fv, name, help_text, *_):
        app.flags.DEFINE_string(name, None, help_text, flag_values=fv)

    monkeypatch.setattr(common, "_define_path", define)


def commands(text: str) -> list[str]:
    """All `tfcxr COMMAND --flag ...` of a page, in fenced blocks and in running text."""
    lines = "\n".join(code_blocks(text, "bash")).replace("\\\n", " ").splitlines()
    found = [line.strip() for line in lines if re.match(r"\s*tfcxr \S", line)]
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    return found + [code for code in re.findall(r"`(tfcxr [a-z-]+ --[^`]*)`", prose) if "--help" not in code]


def check_command(line: str) -> None:
    """Raises what the command would raise that cannot parse its flags."""
    words = shlex.split(line.split(" > ")[0], comments=True)
    module = importlib.import_module(cli.COMMANDS[words[1]][0])
    app.parse(module.define_flags, [" ".join(words[:2]), *words[2:]])


def all_flags() -> set[str]:
    names = {"help", "flagfile"}
    for module, _ in cli.COMMANDS.values():
        fv = app.flags.FlagValues()
        importlib.import_module(module).define_flags(fv)
        names |= set(fv) | {f"no{name}" for name in fv if fv[name].boolean}
    return names


def test_the_readme_is_short_and_names_the_two_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert "make demo" in text
    assert "make test" in text
    assert set(re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE)) == set(cli.COMMANDS)


def test_pages_hold_commands():
    assert sum(len(commands(page.read_text(encoding="utf-8"))) for page in PAGES) > 60


@pytest.mark.usefixtures("paths_need_not_exist")
@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_parses(page):
    for line in commands(page.read_text(encoding="utf-8")):
        try:
            check_command(line)
        except Exception as error:
            raise AssertionError(f"{line}: {error}") from error


@pytest.mark.usefixtures("paths_need_not_exist")
def test_the_notebooks_commands_parse():
    cells = json.loads((ROOT / "docs" / "quickstart.ipynb").read_text(encoding="utf-8"))["cells"]
    code = "".join("".join(cell["source"]) + "\n" for cell in cells if cell["cell_type"] == "code")
    found = re.findall(r'^run\(f"(.*)"\)$', code, re.MULTILINE)
    assert len(found) > 5
    for line in found:
        check_command(f"tfcxr {line}")
    assert not any(cell.get("outputs") for cell in cells)


@pytest.mark.usefixtures("paths_need_not_exist")
def test_a_command_that_does_not_parse_is_found():
    with pytest.raises(app.InputError, match="resolutoin"):
        check_command("tfcxr phantom --hospital=a --resolutoin=64 --output_dir=x")
    with pytest.raises(app.InputError, match="no such file"):
        check_command("tfcxr train-gan --flagfile=fast/gan_33 --records=x --run_dir=y")
    with pytest.raises(app.InputError, match="records is required"):
        check_command("tfcxr train-gan --flagfile=fast/gan_32 --run_dir=y")
    text = 'Say `tfcxr study --x`.\n=== "A"\n\n    ```bash\n    tfcxr generate \\\n      --a=1\n    ```\n'
    assert commands(text) == ["tfcxr generate    --a=1", "tfcxr study --x"]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_preset_exists(page):
    text = page.read_text(encoding="utf-8")
    folders = "|".join(sorted(folder.name for folder in app.PRESETS.iterdir()))
    named = set(re.findall(rf"`(?:--\w+=)?((?:{folders})/\w+)[` ]", text))
    named |= set(re.findall(r"--flagfile=([\w/]+/\w+)", text))
    for name in named:
        assert (app.PRESETS / f"{name}.flags").is_file(), name


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_flag_named_in_the_text_exists(page):
    named = set(re.findall(r"`--([a-z]\w*)", page.read_text(encoding="utf-8")))
    assert named <= all_flags()


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_make_target_exists(page):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=[*NAMES, "CHANGELOG.md"])
def test_every_linked_file_exists(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not re.match(r"https?:|#", link):
            assert (page.parent / link.split("#")[0]).exists(), link


def said() -> set[str]:
    """All texts in the sources, f-strings in the pieces between their values."""
    files = [file for folder in ("flags", "tfcxr", "tfrecords_builder") for file in (ROOT / folder).rglob("*.py")]
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_the_messages_that_troubleshooting_explains_exist():
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    pieces = [
        piece.strip(" ,;=:")
        for heading in re.findall(r"^### (.*)$", text, re.MULTILINE)
        for message in re.findall(r"`([^`]+)`", heading)
        for piece in message.split("…")
    ]
    ours = " \n".join(said())
    absent = [piece for piece in pieces if piece.count(" ") > 1 and piece not in ours and piece not in FOREIGN_MESSAGES]
    assert len(pieces) > 20
    assert not absent


def test_the_python_example_uses_what_there_is():
    (example,) = code_blocks((ROOT / "README.md").read_text(encoding="utf-8"), "python")
    used = {
        node.attr
        for node in ast.walk(ast.parse(example))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "tfcxr"
    }
    assert used >= {"load_generator", "load_classifier", "read_records"}
    assert used <= set(tfcxr.__all__)


def test_the_map_lists_each_source_file_once():
    block = code_blocks((ROOT / "WORKSPACE.md").read_text(encoding="utf-8"), "text")[0]
    folders: list[str] = []
    listed = []
    for line in block.splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        folders[depth:] = [name] if name.endswith("/") else []
        if name.endswith(".py"):
            listed.append("".join(folders) + name)
    sources = {
        file.relative_to(ROOT).as_posix()
        for folder in ("flags", "tfcxr", "tfrecords_builder", "tools")
        for file in pathlib.Path(ROOT / folder).rglob("*.py")
        if file.name != "__init__.py" or file.stat().st_size > 500
    }
    assert sorted(listed) == sorted(set(listed))
    assert {name for name in listed if not name.endswith("__init__.py")} == {
        name for name in sources if not name.endswith("__init__.py")
    }


def test_every_accepted_weakness_has_its_reason():
    listed = (ROOT / "tools" / "accepted_risks.txt").read_text().split("\n")
    accepted = {line for line in listed if line and not line.startswith("#")}
    explained = re.findall(r"CVE-\d+-\d+", (ROOT / "docs" / "security.md").read_text())
    assert accepted == set(explained)
    assert len(explained) == len(accepted)
