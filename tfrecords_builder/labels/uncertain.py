"""What becomes of uncertain labels: the policies zeros, ones and drop, for all labels or for each."""

import difflib

import numpy as np

from tfrecords_builder.errors import InputError
from tfrecords_builder.labels.label_sets import DEFAULT, LabelSet
from tfrecords_builder.labels.versions import LabelVersion

UNCERTAIN_POLICIES: tuple[str, ...] = ("zeros", "ones", "drop")


def parse_uncertain(text: str, label_set: LabelSet = DEFAULT) -> tuple[str, ...]:
    """Returns the uncertain policy (zeros, ones or drop) of each label.

    Args:
        text: items joined by commas: first, if not `zeros`, the policy of all labels, then exceptions `label:policy`,
            such as `zeros`, `Edema:ones` or `drop,Atelectasis:ones,Pneumonia:zeros`.
        label_set: whose labels.

    Raises:
        InputError: an unknown label or policy, or one given twice; the message names --uncertain.
    """
    policies: dict[str, str] = {}
    for i, item in enumerate(text.split(",")):
        label, colon, policy = (part.strip() for part in item.rpartition(":"))
        if policy not in UNCERTAIN_POLICIES:
            raise InputError(
                f"--uncertain={text}: unknown policy {policy!r}; choose one of {', '.join(UNCERTAIN_POLICIES)}"
            )
        if not colon and i:
            raise InputError(f"--uncertain={text}: only the first item is for all labels; write LABEL:{policy}")
        if colon and label not in label_set.index:
            near = difflib.get_close_matches(label, label_set.labels, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose of {', '.join(label_set.labels)}"
            raise InputError(f"--uncertain={text}: unknown label {label!r}; {hint}")
        if label in policies:
            raise InputError(f"--uncertain={text}: {label!r} is given twice; give one policy")
        policies[label] = policy
    return tuple(policies.get(label, policies.get("", "zeros")) for label in label_set.labels)


def apply_uncertain(version: LabelVersion, values: np.ndarray, policy: str) -> tuple[np.ndarray, np.ndarray]:
    """Turns table values into label vectors.

    Args:
        version: decides which labels `drop` looks at.
        values: float[N, L] of 1 (positive), 0 (negative), -1 (uncertain) and NaN (blank, which becomes 0).
        policy: a text for `parse_uncertain`. `zeros` or `ones` replaces a label's uncertain values; `drop` removes the
            row if the version constrains the label (multi-label: any label), and where the label is free it becomes 0.

    Returns:
        vectors float32[N, L] in {0, 1}, and kept bool[N].
    """
    policies = np.array(parse_uncertain(policy, version.label_set), object)
    uncertain = values == -1
    constrained = np.isin(version.label_set.labels, sorted(version.constrained))
    vectors = ((values == 1) | uncertain & (policies == "ones")).astype(np.float32)
    return vectors, ~uncertain[:, (policies == "drop") & constrained].any(axis=1)
