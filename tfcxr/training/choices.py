"""Names that settings of every training can have; imports no TensorFlow."""

# One device; all GPUs of this machine; the machines of TF_CONFIG. See strategies.py.
STRATEGIES = ("default", "mirrored", "multiworker")
