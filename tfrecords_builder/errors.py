"""The errors that a user can cause, which programs turn into one line and an exit code; what TensorFlow's say."""

import errno
import re

# Beginnings of lines that say where in the graph, not what.
_WHERE = ("Graph execution error", "Detected at node", "<stack traces", " ", "\t")

# What short memory is called by cuDNN, cuBLAS, CUDA's allocator, TensorFlow's and NumPy's. cuDNN finds no algorithm for
# a convolution where none fits into the memory that is left.
_SHORT_OF_MEMORY = re.compile(
    r"out.of.memory|\bOOM\b|ALLOC_FAILED|(failed|unable) to allocate|no algorithm worked|bad_alloc",
    re.IGNORECASE,
)

# Of a process, and of the machine.
_NO_HANDLES = (errno.EMFILE, errno.ENFILE)

# What the dynamic loader says.
_NO_ROOM_FOR_LIBRARY = re.compile("failed to map segment|cannot allocate memory|cannot map", re.IGNORECASE)


class InputError(ValueError):
    """A flag, file, row or value that cannot be used, found before the work starts (exit code 2)."""


class RunError(RuntimeError):
    """A fault found while running, such as a corrupt image (exit code 1)."""


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived; binaries exit with 128 + the signal's number.

    As KeyboardInterrupt it is no Exception: it is raised wherever the program happens to be, and what catches all that
    a library may raise must not catch it. TensorFlow's AutoGraph would go on with a function that it has not converted,
    and the reader of DICOM files would call an image damaged.
    """

    def __init__(self, signal_number: int, message: str = "interrupted"):
        super().__init__(message)
        self.exit_code = 128 + signal_number


def reason(error: BaseException) -> str:
    """What an error of TensorFlow says, without where in the graph; one line."""
    for line in str(error).splitlines():
        line = re.sub(r"^  \(\d+\) [A-Z_]+: +", "", line)  # the first of several
        if not line or line.startswith(_WHERE) or re.match(r"\d+ root error", line):
            continue
        line = re.sub(r"\{\{function_node [^{}]*\}\} ?| ?\[Op:.*$", "", line).strip()
        if line:
            return line[:200]
    return type(error).__name__


def is_of_tensorflow(error: BaseException) -> bool:
    """Whether TensorFlow's runtime raised the error (a tf.errors.OpError; TensorFlow is not imported to find out)."""
    return any(each.__name__ == "OpError" for each in type(error).__mro__)


def says_memory(error: BaseException) -> bool:
    """Whether an error of Python, NumPy or TensorFlow says that memory is short, of the machine or of a GPU."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    if isinstance(error, ImportError):  # of a library, such as TensorFlow's
        return bool(_NO_ROOM_FOR_LIBRARY.search(str(error)))
    return is_of_tensorflow(error) and not says_disk(error) and bool(_SHORT_OF_MEMORY.search(str(error)))


def says_disk(error: BaseException) -> bool:
    """Whether an error of TensorFlow says that a disk is full."""
    return is_of_tensorflow(error) and "No space left on device" in str(error)


def refuse_few_handles(error: BaseException, path: object) -> None:
    """Raises RunError if a file could not be opened since too many are: no fault of the file, to be left out for it."""
    if isinstance(error, OSError) and error.errno in _NO_HANDLES:
        raise RunError(f"{path}: cannot be read ({error.strerror}); allow more with `ulimit -n`") from error
