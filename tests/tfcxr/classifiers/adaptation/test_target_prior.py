"""Class shares that an adaptation estimated, and finds again when it goes on."""

import json

import numpy as np
import pytest

from tfcxr.classifiers.adaptation import target_prior
from tfrecords_builder.errors import InputError

CLASSES = ("No Finding", "Pneumothorax")


def never():
    raise AssertionError("the shares were estimated again")


def test_estimates_are_made_once_and_damaged_ones_are_refused(tmp_path, capsys):
    prior = target_prior.Prior(target_prior.ESTIMATE, CLASSES)
    made = {"confusion": np.array([0.7, 0.3]), "likelihood": np.array([0.6, 0.4])}
    np.testing.assert_allclose(prior.find(tmp_path, lambda: made), [0.7, 0.3])
    assert "by confusion: No Finding 0.700, Pneumothorax 0.300" in capsys.readouterr().out
    path = tmp_path / target_prior.FILE
    kept = json.loads(path.read_text())
    np.testing.assert_allclose(prior.find(tmp_path, never), [0.7, 0.3])
    shares = [{"No Finding": 0.7}, {"No Finding": 0.7, "Pneumothorax": 0.8}, {"No Finding": 1.2, "Pneumothorax": -0.2}]
    shares += [{"No Finding": "x", "Pneumothorax": 0.3}, None, 3]
    for content in (*(json.dumps({**kept, "confusion": each}) for each in shares), "[]", path.read_text()[:20], ""):
        path.write_text(content)
        said = rf"^{path}: is damaged; delete it, and the same command estimates the shares again$"
        with pytest.raises(InputError, match=said):
            prior.find(tmp_path, never)
