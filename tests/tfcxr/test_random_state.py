"""The first use of tfcxr in a process, which imports TensorFlow, leaves its caller's random numbers alone."""

import subprocess
import sys

PROGRAM = """
import random
import numpy as np

random.seed(3)
np.random.seed(4)
before, before_numpy = random.getstate(), np.random.get_state()

import tfcxr

tfcxr.load_classifier
tfcxr.read_records
tfcxr.load_generator("nih_32")
assert random.getstate() == before, "Python's state has moved"
for old, new in zip(before_numpy, np.random.get_state(), strict=True):
    assert np.array_equal(old, new), "NumPy's state has moved"
"""


def test_the_first_use_draws_nothing():
    # A process of its own: here everything has been imported.
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
