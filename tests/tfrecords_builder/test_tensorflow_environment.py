"""The environment of TensorFlow: Keras 2 whatever the version, nothing on standard error, one clear error."""

import importlib.util
import os
import subprocess
import sys
import types

import pytest

from tfrecords_builder import tensorflow_environment

OURS = (
    "TF_CPP_MIN_LOG_LEVEL",
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_CPU_ALLOCATOR_USE_BFC",
    "TF_USE_LEGACY_KERAS",
    "TF_FORCE_GPU_ALLOW_GROWTH",
)


def run(code, **variables):
    environment = {name: value for name, value in os.environ.items() if name not in OURS} | variables
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("package", ["tfcxr", "tfrecords_builder", "flags.app", "tools.sheet"])
def test_every_entry_gives_keras_2_and_a_quiet_import(package):
    code = f"import {package}, sys; assert 'tensorflow' not in sys.modules; import tensorflow as tf\n"
    code += "print(hasattr(tf.keras, 'ops'), hasattr(tf.keras.optimizers, 'legacy'), float(tf.constant(1.0) + 1))"
    # The variable is ours even where the shell has turned it off.
    done = run(code, TF_USE_LEGACY_KERAS="0")
    assert (done.stdout, done.stderr) == ("False True 2.0\n", "")


def test_programs_take_the_memory_of_a_gpu_as_they_need_it():
    code = "import os, tfcxr; print(os.environ['TF_FORCE_GPU_ALLOW_GROWTH'])"
    assert run(code).stdout == "true\n"
    assert run(code, TF_FORCE_GPU_ALLOW_GROWTH="false").stdout == "false\n"


@pytest.mark.skipif(not importlib.util.find_spec("tf_keras"), reason="this TensorFlow has no Keras 3")
def test_a_notebook_that_used_keras_3_is_told_what_to_do():
    done = run("import tensorflow as tf; tf.keras.layers.Dense; import tfcxr", TF_CPP_MIN_LOG_LEVEL="3")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: tf.keras is Keras 3 in this Python, and tfcxr needs Keras 2: restart Python")


@pytest.mark.parametrize(
    ("version", "has_ops", "refused"), [("2.21.0", True, True), ("2.21.0", False, False), ("2.15.1", True, False)]
)
def test_keras_3_is_told_from_keras_2(monkeypatch, version, has_ops, refused):
    keras = types.SimpleNamespace(ops=None) if has_ops else types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "tensorflow", types.SimpleNamespace(__version__=version, keras=keras))
    if refused:
        with pytest.raises(ImportError, match=r"import tfcxr before tf.keras is used.*pip install 'tf-keras~=2.21.0'"):
            tensorflow_environment.prepare()
    else:
        tensorflow_environment.prepare()


def test_only_lines_of_the_log_are_held_back(capfd):
    with tensorflow_environment._without_log_lines():
        os.write(2, b"I0000 00:00:1795876571.681861    7108 port.cc:153] oneDNN custom operations are on.\n")
        os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n")
        print("a module was compiled for NumPy 1", file=sys.stderr)
    assert capfd.readouterr().err == "a module was compiled for NumPy 1\n"


def test_what_was_written_before_a_failed_import_is_shown(capfd):
    with pytest.raises(ImportError), tensorflow_environment._without_log_lines():
        os.write(2, b"libcudart is broken\n")
        raise ImportError("no")
    assert capfd.readouterr().err == "libcudart is broken\n"
