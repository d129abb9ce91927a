"""Trainings that are stopped or killed within this process, after so many calls for steps."""

import os
import signal

from tfcxr.training import controller


class KilledError(BaseException):
    """Stands for SIGKILL: nothing of the program catches it."""


def stop_after(patch, calls: int) -> None:
    """SIGTERM after so many calls; each is then of one step."""
    _after(patch, calls, lambda: os.kill(os.getpid(), signal.SIGTERM))


def kill_after(patch, calls: int) -> None:
    """KilledError after so many calls; each is then of one step."""

    def kill():
        raise KilledError

    _after(patch, calls, kill)


def _after(patch, calls, act):
    left = [calls]

    def one_step(*_):
        left[0] -= 1
        if left[0] == 0:
            act()
        return 1

    patch.setattr(controller, "_next_pace", one_step)
