"""The tool that measures determinism tries every command and every method, and names the files that differ."""

import json

import pytest

from flags import app
from tfcxr import cli
from tfcxr.classifiers.adaptation import methods
from tfrecords_builder.errors import InputError
from tools import determinism


def test_every_command_and_every_method_is_tried(tmp_path):
    cases = determinism.find_cases(tmp_path)
    assert {case.kind for case in cases.values()} == set(cli.COMMANDS)
    tried = {name.partition("=")[2] for name in cases if name.startswith("train-dcan --alignment=")}
    assert tried | {"dcan", "continued"} == set(methods.METHODS)  # the default, and none by another name
    assert "pretrain --method=simsiam" in cases
    assert "--alignment=adabn" in cases["train-dcan --alignment=adabn"].arguments
    assert f"--init_from={tmp_path / 'classifier'}" in cases["train-dcan --alignment=adabn"].arguments
    growing = cases["train-gan --arch=prog"].arguments
    assert "--batch_sizes=8:8" in growing
    assert not any(word.startswith("--batch_size=") for word in growing)  # which progressive growing refuses
    assert list(determinism.find_cases(tmp_path, ["phantom"])) == ["phantom"]
    with pytest.raises(InputError, match="--commands=phantoms: must be some of build-records"):
        determinism.find_cases(tmp_path, ["phantoms"])


def test_files_that_differ_are_named(tmp_path, monkeypatch):
    """One file depends on the number of threads, another differs each time, and a third is there only sometimes."""
    calls = []

    def run(name, case, folder, threads):
        calls.append(threads)
        some = {"some": "x"} if threads == 2 else {}
        return {"weights": f"by {threads}", "salt": str(len(calls)), "same": "same", **some}

    monkeypatch.setattr(determinism, "run", run)
    assert determinism.compare("c", None, tmp_path) == {
        "one thread": ["salt differs"],
        "two threads": ["salt differs"],
        "one and two threads": ["some is left", "weights differs", "salt differs"],
    }
    assert calls == [1, 1, 2, 2]


def test_what_was_known_of_other_commands_stays(tmp_path, monkeypatch, capsys):
    prepared = []
    monkeypatch.setattr(determinism.programs, "prepare", lambda folder, cases: prepared.extend(cases))
    monkeypatch.setattr(determinism, "run", lambda name, case, folder, threads: {case.kind: "same"})
    output = tmp_path / "found.json"
    output.write_text(json.dumps({"other": {"one thread": ["a differs"]}}))
    assert app.run(determinism.main, determinism.define_flags, ["d", "--commands=phantom", f"--output={output}"]) == 0
    equal = {"one thread": [], "two threads": [], "one and two threads": []}
    assert json.loads(output.read_text()) == {"other": {"one thread": ["a differs"]}, "phantom": equal}
    assert [case.kind for case in prepared] == ["phantom"]
    assert "phantom: one thread: equal; two threads: equal; one and two threads: equal" in capsys.readouterr().out
