"""The environment in which TensorFlow is imported: its variables, Keras 2, and a quiet log.

`tfrecords_builder/__init__.py` prepares it, and `tfcxr`, the commands, the tools and the tests all import that first.
"""

import contextlib
import importlib.abc
import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

# Lines of TensorFlow's C++ log: `I0000 00:00:1795876758.577177   10429 port.cc:153] oneDNN custom operations are on.`
_LOG_LINE = re.compile(rb"[IWE]\d{4} \d\d:\d\d:|WARNING: All log messages before absl::InitializeLog\(\)")


def prepare() -> None:
    """Sets TensorFlow's environment variables; has to be called before TensorFlow is imported.

    Raises:
        ImportError: TensorFlow is there already and its `tf.keras` is Keras 3, which nothing here is written for.
    """
    # Silences the C++ log, which complains of absent GPUs; errors arrive as exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow turns its oneDNN kernels on by itself only where the processor has AVX512-VNNI; on others, too, they
    # make a step of ResNet-50 three times as fast.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # TensorFlow's own CPU allocator keeps large blocks; with malloc, its default, each large tensor's pages are taken
    # anew from the system, which costs a fifth of a GAN step at 32 px. Peak memory there is a fifth higher.
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")
    # TensorFlow takes nearly all of a GPU's memory at once unless told to take it as needed: two jobs of a study, or a
    # training and an evaluation, then share a GPU.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    # From TensorFlow 2.16 on `tf.keras` is Keras 3, unless this variable asks for the package tf_keras, which is
    # Keras 2. It is read when `tf.keras` is first used, and nothing works here without it.
    if importlib.util.find_spec("tf_keras"):
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
    if "tensorflow" in sys.modules:
        _refuse_keras_3(sys.modules["tensorflow"])
    elif not any(isinstance(finder, _TensorFlowFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TensorFlowFinder())


def _refuse_keras_3(tensorflow: ModuleType) -> None:
    major, minor = (int(number) for number in tensorflow.__version__.split(".")[:2])
    # Keras 2 has no `ops`. The version is asked first because a look into tf.keras loads all of it.
    if (major, minor) >= (2, 16) and hasattr(tensorflow.keras, "ops"):
        raise ImportError(
            "tf.keras is Keras 3 in this Python, and tfcxr needs Keras 2: restart Python (in a notebook, the kernel) "
            "and import tfcxr before tf.keras is used; if that does not help, "
            f"pip install 'tf-keras~={major}.{minor}.0'"
        )


class _TensorFlowFinder(importlib.abc.MetaPathFinder):
    """Lets the import of TensorFlow be followed by a check, and keeps the C++ log out of it.

    TensorFlow 2.21 writes to standard error while it is imported, whatever TF_CPP_MIN_LOG_LEVEL says.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            with _without_log_lines() if os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3" else contextlib.nullcontext():
                execute(module)
            if "TF_USE_LEGACY_KERAS" not in os.environ:
                _refuse_keras_3(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


@contextlib.contextmanager
def _without_log_lines() -> Iterator[None]:
    """Holds back what the process writes to standard error, C++ included, and then writes it without lines of a log."""
    with tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        original = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
            held.seek(0)
            for line in held:
                if not _LOG_LINE.match(line):
                    os.write(2, line)
