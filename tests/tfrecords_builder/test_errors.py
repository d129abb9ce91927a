"""What errors of TensorFlow, NumPy and Python say, in one line, and which of them say that memory or a disk is full."""

import errno
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from tfrecords_builder import errors
from tfrecords_builder.images import dicom, finding

# As TensorFlow 2.15 words them: eager, in a tf.function, on two devices.
EAGER = (
    "{{function_node __wrapped__IteratorGetNext_output_types_1_device_/job:localhost/replica:0/task:0/device:CPU:0}} "
    "Unknown image file format. One of JPEG, PNG, GIF, BMP required.\n\t [[{{node DecodePng}}]] [Op:IteratorGetNext] "
    "name: "
)
TRACED = (
    "Graph execution error:\n\nDetected at node while/IteratorGetNext defined at (most recent call last):\n"
    '  File "a.py", line 37, in <module>\n\ntruncated record at 204\' failed with Read less bytes than requested\n'
    "\t [[{{node while/IteratorGetNext}}]] [Op:__inference_run_186]"
)
SEVERAL = (
    "Graph execution error:\n\nDetected at node g defined at (most recent call last):\n<stack traces unavailable>\n"
    "2 root error(s) found.\n  (0) NOT_FOUND:  /tmp/none; No such file or directory\n\t [[IteratorGetNext]]\n"
    "  (1) NOT_FOUND:  /tmp/none; No such file or directory\n0 successful operations.\n0 derived errors ignored."
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (EAGER, "Unknown image file format. One of JPEG, PNG, GIF, BMP required."),
        (TRACED, "truncated record at 204' failed with Read less bytes than requested"),
        (SEVERAL, "/tmp/none; No such file or directory"),
        ("", "InvalidArgumentError"),
        ("x" * 500, "x" * 200),
    ],
)
def test_what_an_error_says(text, expected):
    assert errors.reason(tf.errors.InvalidArgumentError(None, None, text)) == expected


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.NotFoundError(None, None, "No algorithm worked!  Error messages:\n  Profiling failure on an engine"),
        tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[64,256] on GPU:0 by BFC"),
        tf.errors.ResourceExhaustedError(None, None, "failed to allocate memory [Op:AddV2]"),
        tf.errors.InternalError(None, None, "Could not allocate: CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
        tf.errors.UnknownError(None, None, "Failed to get convolution algorithm: CUDNN_STATUS_ALLOC_FAILED"),
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ImportError("libtensorflow_cc.so.2: failed to map segment from shared object"),
    ],
)
def test_short_memory_is_told(error):
    assert errors.says_memory(error)
    assert not errors.says_disk(error)


def test_a_library_that_is_not_there_is_no_lack_of_memory():
    assert not errors.says_memory(ImportError("No module named 'pydicom'"))
    assert not errors.says_memory(OSError(errno.ENOENT, "No such file or directory"))


def test_numpy_that_gets_no_memory_is_told():
    with pytest.raises(MemoryError) as caught:
        np.empty(2**60, np.uint8)
    assert errors.says_memory(caught.value)
    assert errors.reason(caught.value).startswith("Unable to allocate 1.00 EiB")


def test_a_full_disk_is_no_short_memory():
    full = tf.errors.ResourceExhaustedError(None, None, "/x/ckpt-1.data; No space left on device")
    assert errors.says_disk(full)
    assert not errors.says_memory(full)


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.NotFoundError(None, None, "/x/fake-train.tfrecord-00000-of-00001; No such file or directory"),
        tf.errors.InvalidArgumentError(None, None, "Incompatible shapes: [2,3] vs. [2,4]"),
        ValueError("out of memory"),
    ],
)
def test_other_errors_are_neither(error):
    assert not errors.says_memory(error)
    assert not errors.says_disk(error)


@pytest.mark.parametrize("read", [finding.is_image, dicom.read_header])
def test_too_many_open_files_are_no_fault_of_the_file(read, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(pathlib.Path, "is_file", fail)
    monkeypatch.setattr("pydicom.dcmread", fail)
    with pytest.raises(errors.RunError, match=r"^a/b: cannot be read \(Too many open files\); allow more"):
        read("a/b")
