"""The two errors that a user can cause; binaries turn them into one line and an exit code."""


class InputError(ValueError):
    """A flag, file, row or value that cannot be used, found before the work starts (exit code 2)."""


class RunError(RuntimeError):
    """A fault found while running, such as a corrupt image (exit code 1)."""
