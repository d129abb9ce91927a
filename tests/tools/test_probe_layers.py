import numpy as np
from sklearn.metrics import roc_auc_score

from tools import probe_layers


def test_scores_of_training_images_are_those_of_probes_that_have_not_seen_the_patient():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(60), 4)
    seen = rng.normal(size=(60, 1)) > 0
    labels = np.concatenate([seen[patients], (rng.normal(size=(60, 1)) > 0)[patients]], axis=1)
    # The first label shows in the first feature. The second is known by the patient only, whom 60 features give away.
    features = np.concatenate([labels[:, :1] + 0.5 * rng.normal(size=(240, 1)), 3 * np.eye(60)[patients]], axis=1)
    between, tested = probe_layers.probe(features, features, labels, patients)
    assert between.shape == tested.shape == (240, 2)
    assert roc_auc_score(labels[:, 0], between[:, 0]) > 0.85
    assert roc_auc_score(labels[:, 1], tested[:, 1]) > 0.95
    assert roc_auc_score(labels[:, 1], between[:, 1]) < 0.65
