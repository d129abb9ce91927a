"""The wrapper that runs binaries: exit codes, one-line errors, help, presets, replay."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import tensorflow as tf
from absl import flags

from flags import app, common
from tfcxr.commands import train_baseline
from tfrecords_builder import files
from tfrecords_builder.errors import InputError, Interrupted, RunError


def define(fv):
    common.define_output_dir(fv)
    common.define_resolution(fv, default=64)
    flags.DEFINE_list("images", [], "some images", flag_values=fv)


def call(main, *args):
    return app.run(main, define, ["prog", *args])


def test_passes_parsed_flags_and_returns_0():
    seen = {}
    assert call(lambda fv: seen.update(fv.flag_values_dict()), "--output_dir=x", "--resolution=32") == 0
    assert seen == {"output_dir": "x", "resolution": 32, "images": [], "overwrite": False}


@pytest.mark.parametrize(
    ("error", "code"),
    [(InputError("bad\nfile"), 2), (RunError("broke"), 1), (Interrupted(15), 143), (KeyboardInterrupt(), 130)],
)
def test_errors_become_one_line_and_a_code(capsys, error, code):
    def main(fv):
        raise error

    assert call(main, "--output_dir=x") == code
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            tf.errors.NotFoundError(None, None, "No algorithm worked!  Error messages:\n  Profiling failure"),
            "the memory does not suffice (No algorithm worked!  Error messages:); give a smaller --batch_size or more "
            "--passes, or end other programs that use the device",
        ),
        (MemoryError(), "the memory does not suffice (MemoryError); give a smaller --batch_size or more --passes, or "),
        (
            tf.errors.ResourceExhaustedError(None, None, "/x/ckpt-1; No space left on device"),
            "the disk is full (/x/ckpt-1; No space left on device); free some space",
        ),
        (
            tf.errors.InvalidArgumentError(None, None, "Incompatible shapes: [2] vs. [3]"),
            "TensorFlow cannot go on: Incompatible shapes: [2] vs. [3] (InvalidArgumentError)",
        ),
    ],
)
def test_what_machine_and_tensorflow_cannot_do_is_one_line_that_names_flags(capsys, error, expected):
    def main(fv):
        raise error

    def define_more(fv):
        define(fv)
        common.define_batch_size(fv, 32)
        flags.DEFINE_integer("passes", 1, "", flag_values=fv)

    assert app.run(main, define_more, ["prog", "--output_dir=x"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"error: {' '.join(expected.split())}")
    assert err.count("\n") == 1
    if isinstance(error, MemoryError):
        assert call(main, "--output_dir=x") == 1
        assert capsys.readouterr().err == (
            "error: the memory does not suffice (MemoryError); end other programs that use the device\n"
        )


def test_an_error_of_the_program_itself_keeps_its_traceback():
    def main(fv):
        raise KeyError("x")

    with pytest.raises(KeyError):
        call(main, "--output_dir=x")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--output_dir=x", "--resolution=33"], ["--resolution=33", "power of two"]),
        (["--output_dir=x", "--resolution=abc"], ["resolution", "abc"]),
        ([], ["--output_dir is required"]),
        (["--output_dir=x", "--resolutoin=32"], ["resolutoin"]),
        (["--output_dir=x", "stray"], ["stray", "is not a flag"]),
        (["--flagfile=none/such.flags"], ["--flagfile=none/such.flags", "no such file"]),
    ],
)
def test_bad_flags_exit_2_with_one_line(capsys, arguments, words):
    assert call(lambda fv: None, *arguments) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert all(word in err for word in words), err


def test_sigterm_removes_what_was_half_written(tmp_path):
    def main(fv):
        with files.output_folder(fv.output_dir) as folder:
            (folder / "half").write_text("x")
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    assert call(main, f"--output_dir={tmp_path / 'out'}") == 143
    assert list(tmp_path.iterdir()) == []


def test_a_bug_keeps_its_traceback():
    def main(fv):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        call(main, "--output_dir=x")


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("a\0b", "--flagfile: cannot be read (embedded null byte)"),
        ("demo/hospital", "--flagfile=demo/hospital: cannot be read (No such file or directory); presets are found by"),
        ("a" * 300, "cannot be read (File name too long)"),
        ("/proc/self/mem", "--flagfile: cannot be read (Input/output error)"),
    ],
)
def test_a_flagfile_within_a_flagfile_that_cannot_be_read(named, message, tmp_path, capsys):
    (tmp_path / "outer.flags").write_text(f"--flagfile={named}\n")
    assert call(lambda fv: None, f"--flagfile={tmp_path / 'outer.flags'}") == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_a_flagfile_that_is_no_text_or_a_folder(tmp_path, capsys):
    (tmp_path / "binary.flags").write_bytes(bytes(range(128, 256)))
    for path in (tmp_path / "binary.flags", tmp_path):
        assert call(lambda fv: None, f"--flagfile={path}") == 2
        err = capsys.readouterr().err
        assert "flagfile" in err
        assert err.count("\n") == 1


def test_flags_txt_replays_without_overwrite(tmp_path):
    assert call(lambda fv: app.write_flags(fv, tmp_path), "--output_dir=x", "--overwrite", "--images=a,b") == 0
    text = (tmp_path / "flags.txt").read_text()
    assert text.splitlines() == ["--images=a,b", "--output_dir=x", "--resolution=64"]
    seen = {}
    assert call(lambda fv: seen.update(fv.flag_values_dict()), f"--flagfile={tmp_path / 'flags.txt'}") == 0
    assert seen == {"output_dir": "x", "resolution": 64, "images": ["a", "b"], "overwrite": False}


def test_every_preset_parses_with_its_binary():
    from tfcxr import cli

    for preset in sorted(app.PRESETS.glob("*/*.flags")):
        named = "study" if preset.parent.name == "study" else preset.stem
        # Presets of the thesis, the benchmark and the GANs are named after their settings.
        names = {"gan": "train-gan", "prog": "train-gan", "records": "build-records"}
        names |= dict.fromkeys(("baseline", "predictive"), "train-baseline")
        by_command = next((c for c in cli.COMMANDS if named.startswith(c.replace("-", "_"))), "train-dcan")
        command = names.get(named.split("_")[0], by_command)
        module = __import__(cli.COMMANDS[command][0], fromlist=["define_flags"])
        fv = flags.FlagValues()
        module.define_flags(fv)
        known = set(fv)
        for line in preset.read_text().splitlines():
            if line.startswith("--"):
                name = line[2:].split("=")[0]
                assert name in known or name.removeprefix("no") in known, f"{preset}: {line}"


def test_a_former_name_stands_for_the_present_one():
    from tfcxr.commands import train_dcan

    where = ["--source_records=.", "--target_records=.", "--run_dir=x"]
    for flag in ("--alignment=ours", "--flagfile=thesis/ours", "--flagfile=flags/presets/thesis/ours.flags"):
        assert app.parse(train_dcan.define_flags, ["train-dcan", flag, *where]).alignment == "dcan_noreg"
    with pytest.raises(InputError, match=r"should be one of <none\|continued"):
        app.parse(train_dcan.define_flags, ["train-dcan", "--alignment=theirs", *where])


def test_help_is_quick_and_does_not_import_tensorflow():
    code = (
        "import sys; from tfcxr import cli; cli.main(['train-gan', '--help']); cli.main(['build-records', '-h']);"
        "assert 'tensorflow' not in sys.modules"
    )
    start = time.monotonic()
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "--total_kimg" in out
    assert "--label_version" in out
    # The promise is 1 s on an idle machine; this bound only catches a TensorFlow import by another name.
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [],
            "error: --records is required: folder of a record set; --run_dir is required: ",
        ),
        (
            ["--epochs=1"],
            "error: --epochs: is not a flag of this command; did you mean --stage1_epochs or --",
        ),
        (["--pathience=1"], "error: --pathience: is not a flag of this command; did you mean --patience"),
        (["--batch_size=0"], "error: --batch_size=0: "),
        (
            ["--flagfile=study/fantom"],
            "error: --flagfile=study/fantom: no such file, and no preset of that name; ",
        ),
    ],
)
def test_flags_that_are_wrong_are_told_in_plain_words(arguments, message, capsys):
    assert app.run(train_baseline.main, train_baseline.define_flags, ["train-baseline", *arguments]) == 2
    assert capsys.readouterr().err.startswith(message)


def test_help_names_required_flags_and_the_presets_that_fit(capsys):
    assert app.run(train_baseline.main, train_baseline.define_flags, ["train-baseline", "--help"]) == 0
    text = capsys.readouterr().out
    assert "--records  required: folder of a record set" in text
    presets = text.split("Presets for this command: ")[1]
    assert "demo/train_baseline" in presets and "gan" not in presets and "[[]]" not in text


@pytest.mark.parametrize("inside", ["", "below"])
def test_overwrite_does_not_delete_what_another_flag_reads(tmp_path, inside, capsys):
    """Of every command, by the kind of the flags: of a set that tfcxr wrote, nothing else tells that it is needed."""
    source = tmp_path / "set" / inside
    source.mkdir(parents=True)

    def define_two(fv):
        define(fv)
        common.define_folder(fv, "real", "a set", required=False)
        common.define_place(fv, "cache", "a cache")

    def run(*args):
        return app.run(lambda _: 0, define_two, ["prog", f"--output_dir={tmp_path / 'set'}", "--overwrite", *args])

    assert run(f"--real={source}") == 2
    assert capsys.readouterr().err == (
        f"error: --output_dir={tmp_path / 'set'}: holds --real={source}; choose another folder\n"
    )
    assert run(f"--cache={source}") == 0 and run(f"--real={tmp_path}") == 0


def test_a_message_that_tells_a_long_value_is_shortened(capsys):
    def main(fv):
        raise InputError(f"--images={'x' * 100_000}: there is no such file")

    assert call(main, "--output_dir=x") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --images=xxx") and error.endswith("xxx: there is no such file\n")
    assert len(error) < 2100


def print_help(**changes):
    command = [sys.executable, "-m", "tfcxr.cli", "train-gan", "--help"]
    return subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True, **changes)


def test_help_can_be_printed_where_only_ascii_is_known():
    shown = print_help(env={**os.environ, "PYTHONIOENCODING": "ascii"}, stdout=subprocess.PIPE)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "\\xb7" in shown.stdout


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="no /dev/full")
def test_output_that_cannot_be_written_is_one_line():
    with pathlib.Path("/dev/full").open("w") as full:
        shown = print_help(stdout=full)
    assert shown.returncode == 1
    assert shown.stderr.startswith("error: the disk is full (") and shown.stderr.count("\n") == 1


@pytest.fixture
def odd(tmp_path):
    """Paths that no program can read, by what they are."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    return {"pipe": tmp_path / "pipe", "loop": tmp_path / "loop", "long": tmp_path / ("x" * 300), "device": "/dev/full"}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("pipe", "is a pipe or a device; give a regular file"),
        ("device", "is a pipe or a device; give a regular file"),
        ("loop", "cannot be looked at (Too many levels of symbolic links)"),
        ("long", "cannot be looked at (File name too long)"),
    ],
)
def test_paths_that_cannot_be_read_are_refused_in_every_flag_that_names_one(odd, capsys, kind, message):
    path = odd[kind]

    def define_paths(fv):
        define(fv)
        common.define_path(fv, "table", "a file")
        common.define_paths(fv, "models", "folders")

    for flag in ("output_dir", "table", "models"):
        ran = []
        arguments = ["--output_dir=x"] if flag != "output_dir" else []
        value = f"a,{path}" if flag == "models" else path
        assert app.run(ran.append, define_paths, ["prog", *arguments, f"--{flag}={value}"]) == 2
        assert capsys.readouterr().err == f"error: --{flag}={path}: {message}\n"
        assert not ran


@pytest.mark.parametrize("kind", ["pipe", "device", "loop", "long"])
def test_a_flagfile_that_cannot_be_read_is_one_line(odd, capsys, kind):
    assert call(lambda fv: None, f"--flagfile={odd[kind]}") == 2
    assert capsys.readouterr().err.startswith(f"error: --flagfile={odd[kind]}: ")


def test_a_nul_byte_is_one_line(tmp_path, capsys):
    (tmp_path / "value.flags").write_bytes(b"--output_dir=a\0b\n")
    assert call(lambda fv: None, f"--flagfile={tmp_path / 'value.flags'}") == 2
    assert capsys.readouterr().err == "error: --output_dir: holds a NUL byte, which is part of no text\n"
    (tmp_path / "path.flags").write_bytes(b"--flagfile=a\0b\n")
    for path in (tmp_path / "path.flags", "a\0b"):
        assert call(lambda fv: None, "--output_dir=x", f"--flagfile={path}") == 2
        error = capsys.readouterr().err
        assert error.startswith("error: --flagfile") and error.count("\n") == 1
