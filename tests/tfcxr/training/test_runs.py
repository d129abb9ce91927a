"""Run folders: resume rules, lock, signals."""

import errno
import fcntl
import json
import os
import pathlib
import re
import signal

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.autograph.impl import api as autograph

from tests import classifier_runs, gan_runs
from tfcxr.classifiers import loading as classifier_loading
from tfcxr.gan import loading as gan_loading
from tfcxr.training import checkpoints, runs
from tfrecords_builder import files
from tfrecords_builder.errors import InputError, Interrupted, RunError

CONFIG = {"fmap_base": 512, "total_kimg": 10, "arch": "cpd", "labels": (1, 2)}


def open_run(path, *, overwrite=False, kind="gan", digests=None, **changes):
    return runs.RunFolder.open(
        path,
        kind=kind,
        config={**CONFIG, **changes},
        records_digests=digests or {"--records": "abc"},
        overwrite=overwrite,
        extendable=("total_kimg",),
    )


def refused(path, **changes):
    with pytest.raises(InputError) as caught, open_run(path, **changes):
        pass
    return str(caught.value)


def test_new_run_has_its_folders_and_configuration(tmp_path):
    with open_run(tmp_path / "a" / "run") as run:
        assert not run.resumed
        assert run.checkpoints.is_dir() and run.tensorboard.is_dir() and run.samples.is_dir()
    config = runs.load_config(tmp_path / "a" / "run", kind="gan")
    assert config["config"] == {**CONFIG, "labels": [1, 2]}
    assert config["records"] == {"--records": "abc"}


def test_unfinished_resumes_and_finished_does_not(tmp_path):
    with open_run(tmp_path):
        pass
    with open_run(tmp_path) as run:
        assert run.resumed
        run.finish({"loss": 1.0})
    assert "finished" in refused(tmp_path)
    assert files.read_json(tmp_path / "result.json") == {"schema_version": 1, "loss": 1.0}


def test_a_finished_run_may_be_made_longer_only(tmp_path):
    with open_run(tmp_path) as run:
        run.finish({})
    assert "total_kimg=10, not 5" in refused(tmp_path, total_kimg=5)
    with open_run(tmp_path, total_kimg=20) as run:
        assert run.resumed
        assert not (tmp_path / "result.json").exists()


def test_other_settings_records_or_kind_are_refused_by_name(tmp_path):
    with open_run(tmp_path):
        pass
    assert "fmap_base=512, not 1024" in refused(tmp_path, fmap_base=1024)
    assert "--records" in refused(tmp_path, digests={"--records": "def"})
    assert "kind gan" in refused(tmp_path, kind="dcan")
    with open_run(tmp_path, fmap_base=1024, overwrite=True) as run:
        assert not run.resumed


@pytest.mark.parametrize(
    ("setting", "was", "other"),
    [("framing", "crop", "whole"), ("stage1_solver", "sgd", "logistic"), ("stage1_crops", "random", "centre")],
)
def test_a_run_from_before_a_setting_goes_on_with_what_was_done_then(tmp_path, setting, was, other):
    with open_run(tmp_path, kind="baseline"):
        pass
    assert f"{setting}={was}, not {other}" in refused(tmp_path, kind="baseline", **{setting: other})
    with open_run(tmp_path, kind="baseline", **{setting: was}) as run:
        assert run.resumed


def test_a_run_from_before_aspect_and_contrast_were_recorded_goes_on(tmp_path):
    with open_run(tmp_path, kind="baseline"):
        pass
    with open_run(tmp_path, kind="baseline", aspect="pad", contrast="") as run:
        assert run.resumed
    assert "aspect=pad, not crop" in refused(tmp_path, kind="baseline", aspect="crop", contrast="")


def test_overwrite_spares_a_folder_that_is_no_run(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    assert "did not write" in refused(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "x"
    assert "not a run folder" in refused(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        '{"architectures": ["BertModel"], "hidden_size": 768}',
        '{"schema_version": 1, "kind": "exporter", "config": {}, "records": {}}',
        '{"schema_version": 1, "config": {}}',
        "[]",
        "{broken",
    ],
)
def test_overwrite_spares_what_others_call_config_json(tmp_path, config):
    (tmp_path / "config.json").write_text(config)
    assert "would delete config.json, which tfcxr did not write" in refused(tmp_path, overwrite=True)
    assert (tmp_path / "config.json").read_text() == config


@pytest.mark.parametrize("name", ["model.safetensors", ".git", "notes"])
def test_overwrite_spares_a_run_with_something_else_in_it(tmp_path, name):
    with open_run(tmp_path) as run:
        (run.checkpoints / "ckpt-4.index").write_text("ours")
    (tmp_path / name).mkdir()
    assert f"would delete {name}, which" in refused(tmp_path, overwrite=True)
    assert (tmp_path / "checkpoints" / "ckpt-4.index").read_text() == "ours"
    (tmp_path / name).rmdir()
    (tmp_path / ".ticks.json.77.tmp").write_text("left by a kill")
    with open_run(tmp_path, overwrite=True):
        assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "samples/notes.txt",
        "best/model.h5",
        "checkpoints/ckpt-best/weights",
        "checkpoints/ckpt-1_backup/thesis.docx",
        "checkpoints/ckpt-1.notes.txt",
        "best/checkpoint.bak",
        "samples/.mine.png.1.tmp",
        "tensorboard/events.out.tfevents.1/thesis.docx",
        "tensorboard/plugins/profile/mine/loss.pdf",
        "tensorboard/plots/loss.pdf",
        "statistics/.git/HEAD",
        "evaluations/notes.txt",
        "evaluations/mine/result.json",
        "evaluations/b/figures/mine.png",
    ],
)
def test_overwrite_spares_what_others_put_into_folders_of_a_run(tmp_path, name):
    with open_run(tmp_path):
        pass
    with files.output_folder(tmp_path / "evaluations" / "b") as folder:
        files.write_text(folder / "figures" / "roc.png", "ours")
    (tmp_path / "evaluations" / ".b.job.json").write_text("{}")
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("mine")
    assert f"would delete {name}, which" in refused(tmp_path, overwrite=True)
    assert file.read_text() == "mine"
    file.unlink()
    file.symlink_to("/dev/null")
    assert f"would delete {name}, which" in refused(tmp_path, overwrite=True)
    file.unlink()
    while not any(file.parent.iterdir()):
        (file := file.parent).rmdir()
    with open_run(tmp_path, overwrite=True):
        assert not (tmp_path / "evaluations").exists()


def test_a_run_that_goes_on_spares_what_others_put_into_its_folders(tmp_path):
    with open_run(tmp_path):
        pass
    files_of_others = [
        tmp_path / name
        for name in (
            "checkpoints/ckpt-1_backup/ckpt-1.index",
            "checkpoints/ckpt-1.notes.txt",
            "checkpoints/checkpoint.bak",
            "checkpoints/ckpt-9_temp/notes.txt",
            "samples/.mine.1.tmp.txt",
        )
    ]
    for file in files_of_others:
        files.write_text(file, "mine")
    with open_run(tmp_path) as run:
        assert run.resumed
        writer = checkpoints.Writer(tf.train.Checkpoint(step=tf.Variable(1)), run.checkpoints, keep=1)
        writer.save(1)
        writer.save(2)
        writer.remove(2)
    assert all(file.read_text() == "mine" for file in files_of_others)


def test_an_evaluation_that_was_killed_does_not_stop_its_run(tmp_path):
    with open_run(tmp_path):
        pass
    evaluations = tmp_path / "evaluations"
    files.write_text(evaluations / ".b.77.tmp" / "figures" / "roc.png", "half")
    (evaluations / ".b.77.lock").touch()
    with open_run(tmp_path) as run:
        assert run.resumed
    with open_run(tmp_path, overwrite=True) as run:
        assert not run.resumed
        assert not evaluations.exists()


def test_desktop_files_are_nothing_that_counts(tmp_path):
    (tmp_path / ".DS_Store").touch()
    with open_run(tmp_path) as run:
        assert not run.resumed
    (tmp_path / "samples" / ".DS_Store").touch()
    with open_run(tmp_path, overwrite=True) as run:
        assert not run.resumed
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".hidden").touch()
    assert "not a run folder" in refused(tmp_path / "other")
    assert [path.name for path in (tmp_path / "other").iterdir()] == [".hidden"]


def test_a_refusal_leaves_nothing_in_a_folder_of_others(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for overwrite in (False, True):
        refused(tmp_path, overwrite=overwrite)
        assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    new = tmp_path / "a" / "b"
    with pytest.raises(InputError, match="nothing to train on"), open_run(new):
        raise InputError("nothing to train on")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_one_program_at_a_time(tmp_path):
    with open_run(tmp_path):
        assert "another program" in refused(tmp_path)
        assert "another program" in refused(tmp_path, overwrite=True)
    with open_run(tmp_path, overwrite=True):
        assert "another program" in refused(tmp_path)


def test_a_file_system_without_locks_does_not_stop_a_run(tmp_path, monkeypatch, capsys):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    files._say_once.cache_clear()
    monkeypatch.setattr(fcntl, "flock", flock)
    with open_run(tmp_path / "run") as run:
        assert not run.resumed
    with open_run(tmp_path / "run") as run:
        assert run.resumed
    assert capsys.readouterr().err.count("has no locks (No locks available)") == 1


@pytest.mark.parametrize("name", ["file", "file/run"])
def test_a_file_where_the_folder_should_be(tmp_path, name):
    (tmp_path / "file").write_text("x")
    expected = "is a file" if name == "file" else r"cannot be made or written \(Not a directory\)"
    with pytest.raises(InputError, match=f"^--run_dir={tmp_path / name}: {expected}"), open_run(tmp_path / name):
        pass


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    def refuse(path, *_):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(os, "open", refuse)
    assert "cannot be made or written (Read-only file system)" in refused(tmp_path)


def test_a_disk_that_is_full_before_the_run_begins(tmp_path, monkeypatch):
    def full(self, *_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "write_text", full)
        with (
            pytest.raises(RunError, match=r"config\.json.* cannot be read or written \(No space left"),
            open_run(tmp_path),
        ):
            pass
    with open_run(tmp_path) as run:
        assert not run.resumed
    assert json.loads((tmp_path / "config.json").read_text())["kind"] == "gan"


def test_a_refused_setting_leaves_no_run(tmp_path):
    for error, left in ((InputError("too large a batch"), False), (RunError("a disk"), True)):
        folder = tmp_path / type(error).__name__
        with pytest.raises(type(error)), open_run(folder):
            raise error
        assert (folder / "config.json").exists() == left
    with open_run(tmp_path / "InputError", fmap_base=1024) as run:
        assert not run.resumed
        (run.checkpoints / "ckpt-1.index").write_text("")
    with pytest.raises(InputError), open_run(tmp_path / "InputError", fmap_base=1024) as run:
        assert run.resumed
        raise InputError("no such features")
    assert (tmp_path / "InputError" / "checkpoints" / "ckpt-1.index").exists()


def test_a_killed_write_does_not_make_a_run(tmp_path):
    (tmp_path / ".config.json.1.tmp").write_text("{")
    with open_run(tmp_path) as run:
        assert not run.resumed


def test_leftovers_of_killed_writes_are_removed_from_a_run_that_goes_on(tmp_path):
    with open_run(tmp_path):
        (tmp_path / "samples/.fakes-000001.0.png.123.tmp").write_text("half")
        (tmp_path / ".hidden").write_text("mine")
    with open_run(tmp_path):
        assert not list((tmp_path / "samples").iterdir())
        assert (tmp_path / ".hidden").exists()


def test_a_file_that_cannot_be_written_is_a_run_error(tmp_path):
    with pytest.raises(RunError, match=r"--run_dir=.*/x cannot be read or written \(No space left"), open_run(tmp_path):
        raise OSError(28, "No space left on device", "/x")
    with pytest.raises(BrokenPipeError), open_run(tmp_path):
        raise BrokenPipeError


def test_a_worker_joins_only_the_same_run(tmp_path):
    same = {"kind": "gan", "records_digests": {"--records": "abc"}}
    with pytest.raises(InputError, match="not a run folder"):
        runs.RunFolder.joined(tmp_path, config=CONFIG, **same)
    with open_run(tmp_path):
        assert runs.RunFolder.joined(tmp_path, config=CONFIG, **same).checkpoints == tmp_path / "checkpoints"
        for changes, expected in [({"total_kimg": 20}, "total_kimg=10, not 20"), ({"arch": "prog"}, "arch=cpd")]:
            with pytest.raises(InputError, match=expected):
                runs.RunFolder.joined(tmp_path, config={**CONFIG, **changes}, **same)


def test_a_run_that_holds_the_former_name_of_a_method_goes_on_under_the_new_one(tmp_path):
    def opened(alignment):
        return runs.RunFolder.open(tmp_path, kind="dcan", config={"alignment": alignment}, records_digests={})

    with opened("ours"):
        pass
    assert runs.load_config(tmp_path)["config"]["alignment"] == "dcan_noreg"
    with opened("dcan_noreg") as run:
        assert run.resumed


def test_load_config_names_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match="not a run folder"):
        runs.load_config(tmp_path)
    (tmp_path / "config.json").write_text("{broken")
    with pytest.raises(InputError, match="not valid JSON"):
        runs.load_config(tmp_path)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_become_a_request_then_an_exit_code(number, code):
    before = signal.getsignal(number)
    with runs.StopSignals() as stop:
        stop.raise_if_requested()
        os.kill(os.getpid(), number)
        assert stop.requested
        with pytest.raises(Interrupted) as caught:
            stop.raise_if_requested()
        assert caught.value.exit_code == code
    assert signal.getsignal(number) is before


def test_a_second_signal_while_a_step_is_traced_ends_it(monkeypatch):
    """AutoGraph swallows what is an Exception, and goes on with a function that it has not converted."""
    convert = autograph._convert_actual
    rng, count = np.random.default_rng(3), 0

    @tf.function
    def step(value):
        return add_one(value)

    def add_one(value):
        if tf.reduce_sum(value) > 0:
            value += 1.0
        return value

    def stop(number, _):
        raise Interrupted(number)

    for _ in range(5):
        left = int(rng.integers(1, 3))  # conversions until the signals arrive

        def convert_amid_signals(*arguments):
            nonlocal left, count
            left -= 1
            if left == 0:
                count += 1
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGTERM)
            return convert(*arguments)

        monkeypatch.setattr(autograph, "_convert_actual", convert_amid_signals)
        before = signal.signal(signal.SIGTERM, stop)
        try:
            with runs.StopSignals() as request, pytest.raises(Interrupted):
                tf.function(step.python_function)(tf.ones([2]))
            assert request.requested
        finally:
            signal.signal(signal.SIGTERM, before)
    assert count == 5
    monkeypatch.undo()
    assert step(tf.ones([2])).numpy().tolist() == [2, 2]


@pytest.mark.parametrize(
    ("kind", "setting", "value", "reason"),
    [
        ("gan", "init", "c`lm", "init='c`lm': must be one of"),
        ("gan", "fmap_max", None, ""),
        ("classifier", "stem", "imagefet", "stem='imagefet': must be one of"),
        ("classifier", "image_size", "32", ""),
    ],
)
def test_settings_of_which_no_network_can_be_built(kind, setting, value, reason, tmp_path):
    if kind == "gan":
        run, load = gan_runs.make_gan_run(tmp_path / "run"), gan_loading.load
    else:
        records = classifier_runs.make_records(tmp_path / "records")
        run, load = classifier_runs.make_classifier_run(tmp_path / "run", records), classifier_loading.load_network
    config = json.loads((run / "config.json").read_text())
    del config["sha256"]
    assert setting in config["config"]
    config["config"][setting] = value
    (run / "config.json").write_text(json.dumps(config))
    message = f"{run}/config.json: is damaged, no network can be built of it ({reason}"
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        load(run)
    assert "\n" not in str(caught.value)
