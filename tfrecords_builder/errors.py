"""The two errors that a user can cause; binaries turn them into one line and an exit code."""


class InputError(ValueError):
    """A flag, file, row or value that cannot be used, found before the work starts (exit code 2)."""


class RunError(RuntimeError):
    """A fault found while running, such as a corrupt image (exit code 1)."""


class Interrupted(Exception):
    """SIGINT or SIGTERM arrived and the state has been saved; binaries exit with 128 + the signal's number."""

    def __init__(self, signal_number: int, message: str = "interrupted"):
        super().__init__(message)
        self.exit_code = 128 + signal_number
