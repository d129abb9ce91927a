"""Baseline and domain-adapted classifiers: preprocessing, backbones, losses, optimizers, training, loading."""
