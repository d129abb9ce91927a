"""Short forms of `make torture`, and that it sees what it should see."""

import json
import pathlib
import time

import numpy as np
import pytest
import tensorflow as tf

from flags import app
from tfcxr import cli
from tfrecords_builder.errors import InputError
from tools.torture import __main__ as torture
from tools.torture import damage, programs, texts, trials

# The others load a network for each input.
FAST = (*texts.SURFACES, "image_png", "image_jpeg", "image_dicom", "png_every_byte", "network_pickle", "torch_file")


def call(*arguments):
    return app.run(torture.main, torture.define_flags, ["torture", *map(str, arguments)])


@pytest.mark.parametrize("kind", FAST)
def test_what_others_wrote_is_read_or_refused(kind, tmp_path):
    surface = (texts.SURFACES | damage.SURFACES)[kind](tmp_path)
    row = trials.try_inputs(
        kind, surface, trials.fresh(tmp_path / "kept"), seed=1, count=25, until=time.monotonic() + 60
    )
    assert (row.trials, row.failures) == (25, [])
    assert row.refused < 25 or kind == "png_every_byte"  # every part of which has a checksum


def test_a_damaged_shard_is_refused(tmp_path):
    surface = damage.SURFACES["shard_every_byte"](tmp_path)
    row = trials.try_inputs(
        "s", surface, trials.fresh(tmp_path / "kept"), seed=1, count=60, until=time.monotonic() + 60
    )
    assert (row.trials, row.refused, row.failures) == (60, 60, [])


def check(data):
    """A reader with three faults: it fails on 1, is slow on 2, and is wrong on 3."""
    if data == b"1":
        raise KeyError("one")
    if data == b"2":
        while True:
            pass
    if data == b"3":
        raise trials.SilentlyWrong("three")
    if data == b"4":
        raise InputError("four")


def test_faults_are_told_once_for_each_place_and_their_inputs_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "SECONDS", 0.1)
    surface = trials.Surface(lambda seed: [b"0", b"1", b"1", b"2", b"3", b"4"], check)
    row = trials.try_inputs("kind", surface, tmp_path, seed=5, count=100, until=time.monotonic() + 60)
    assert (row.trials, row.refused, row.passed) == (6, 1, 3)
    assert [each["what"] for each in row.failures] == [
        "KeyError: 'one'",
        "Hang: took longer than 0.1 s",
        "SilentlyWrong: three",
    ]
    assert [(tmp_path / f"fault-{i}").read_bytes() for i in range(3)] == [b"1", b"2", b"3"]
    assert row.failures[0]["command"] == f"python -m tools.torture --only=kind --seed=5 --input={tmp_path / 'fault-0'}"


def test_the_same_seed_draws_the_same_inputs():
    def first(seed):
        stream = iter(texts.SURFACES["notations"](pathlib.Path()).inputs(seed))
        return [next(stream) for _ in range(30)]

    assert first(3) == first(3) != first(4)


def test_damage_at_every_byte():
    data = b"abc"
    found = list(trials.every_damage(data, 0))
    assert len(found) == 6
    assert found[1::2] == [b"", b"a", b"ab"]
    for place, changed in enumerate(found[::2]):
        differs = [a ^ b for a, b in zip(changed, data, strict=True)]
        assert [bool(value) for value in differs] == [i == place for i in range(3)]
        assert differs[place].bit_count() == 1


def test_what_a_command_leaves_is_compared_but_for_times(tmp_path):
    """Files, events by tag and step, and JSON without what says when."""
    sides = []
    for name, step, seconds in (("a", 1, 5.0), ("b", 1, 6.0), ("c", 2, 5.0)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "result.json").write_text(json.dumps({"auc": 0.5, "seconds": seconds, "rows": [{"time": name}]}))
        (folder / "log.html").write_text(name)
        np.savez(folder / "arrays.npz", x=np.arange(step))
        writer = tf.summary.create_file_writer(str(folder))
        with writer.as_default():
            tf.summary.scalar("loss", 1.0, step=step)
        writer.close()
        sides.append(programs._look(folder))
    assert set(sides[0]) == {"result.json", "log.html", "arrays.npz", "./events"}
    assert programs.differences(sides[0], sides[1]) == []
    assert programs.differences(sides[2], sides[0]) == ["arrays.npz differs", "./events differs"]
    (tmp_path / "b" / "result.json").write_text(json.dumps({"auc": 0.6, "seconds": 5.0, "rows": [{"time": "a"}]}))
    (tmp_path / "b" / ".x.tmp").write_text("")
    (tmp_path / "b" / "log.html").unlink()
    assert programs.differences(programs._look(tmp_path / "b"), sides[0]) == [
        ".x.tmp is left",
        "log.html is missing",
        "result.json differs",
    ]


@pytest.mark.large
@pytest.mark.parametrize("kind", ["kill_build-records", "kill_generate", "limit_sigint"])
def test_commands_survive(kind, tmp_path):
    """In a process of its own: TensorFlow has been used in this one, which forbids to fork it."""
    row = torture._in_process(kind, trials.fresh(tmp_path / kind), tmp_path, seed=3, count=2, seconds=600)
    assert (row.trials, row.failures) == (2, [])


def test_through_its_flags(tmp_path, capsys):
    folder = tmp_path / "torture"
    arguments = ["--minutes=1", "--trials=20", f"--output_dir={folder}"]
    assert call("--only=split_lists", *arguments) == 0
    assert "split_lists: 20 trials, 20 passed" in capsys.readouterr().out
    written = json.loads((folder / "torture.json").read_text())
    assert [(row["kind"], row["trials"], row["failures"]) for row in written["kinds"]] == [("split_lists", 20, [])]
    assert "| split_lists | 20 | 20 | " in (folder / "torture.md").read_text()
    assert call("--only=nothing", *arguments) == 2
    assert "--only=nothing: is not one of table_round_trip" in capsys.readouterr().err
    assert call("--commands=nothing", *arguments) == 2
    assert "--commands=nothing: is not one of build-records, generate" in capsys.readouterr().err


def test_limits_are_tried_on_every_command():
    commands = {case.kind for case in programs.cases(pathlib.Path("w")).values()}
    assert commands == set(cli.COMMANDS)


def test_exit_codes_by_command(tmp_path):
    rows = [
        trials.Row("limit_two", trials=1, outcomes={"generate": "0, 2"}),
        trials.Row("limit_full_disk", trials=2, outcomes={"generate": "1", "phantom": "2"}),
    ]
    torture.write(rows, tmp_path, "torture")
    text = (tmp_path / "torture.md").read_text()
    assert "| exit codes | two | full_disk |\n|---|---|---|\n| generate | 0, 2 | 1 |\n| phantom |  | 2 |\n" in text


def test_an_input_is_shown_again(tmp_path, capsys):
    path = tmp_path / "input"
    path.write_bytes(b"no JSON")
    assert call("--only=label_map", f"--input={path}") == 0
    assert "refused, as it should be: --label_map=" in capsys.readouterr().out
    path.write_bytes(texts._write_round(([["a"] * 5], ",", "\n", 0, "utf-8")))
    assert call("--only=table_round_trip", f"--input={path}") == 0
    assert capsys.readouterr().out == "taken\n"
    path.write_bytes(b'[["b", "", "", "", ""]]\nPath,Sex,Age,No Finding,Edema\na,,,,\n')
    assert call("--only=table_round_trip", f"--input={path}") == 1
    assert "SilentlyWrong: [['a'], [''], [''], [''], ['']] instead of [['b'" in capsys.readouterr().out


def test_a_process_that_dies_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(torture.sys, "executable", "/bin/false")
    folder = trials.fresh(tmp_path / "kind")
    row = torture._in_process("kind", folder, tmp_path, seed=0, count=None, seconds=1)
    assert (row.trials, row.passed) == (1, 0)
    assert row.failures[0]["what"] == f"the process ended with 1; see {folder / 'log.txt'}"
