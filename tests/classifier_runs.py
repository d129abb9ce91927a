"""Untrained classifiers in run folders, so that evaluation, export and prediction can be tested without training."""

import dataclasses
import pathlib

from tests import fakes
from tfcxr import data
from tfcxr.training import runs


def set_blocks_of_resnet_tiny(blocks: int) -> None:
    """Lets `resnet_tiny` have so many blocks in each stage, in this process; users have 2.

    What a test of a classifier costs is the tracing of its graphs, which goes by the number of layers.
    """
    from tfcxr.classifiers.networks import backbones

    stages = tuple((filters, blocks) for filters in (16, 32, 64))
    backbones.MAKERS["resnet_tiny"] = lambda: backbones.residual_network("resnet_tiny", 32, stages)


def make_classifier_run(
    folder: pathlib.Path,
    records: pathlib.Path,
    *,
    kind: str = "baseline",
    backbone: str = "resnet_tiny",
    seed: int = 0,
    labels: tuple[str, ...] = (),
) -> pathlib.Path:
    """Writes a run folder with random weights for the classes of `records`, or for `labels`; returns it."""
    from tfcxr.classifiers import loading
    from tfcxr.classifiers.networks import models

    info = data.RecordSet(records).info
    config = models.ModelConfig(
        classes=labels or info.classes,
        multilabel=bool(labels),
        label_version=info.label_version,
        resolution=info.resolution,
        image_size=32,
        backbone=backbone,
        attention=kind == "dcan",
        correction=kind == "dcan",
        aspect=info.aspect,
        contrast=info.contrast,
    )
    classifier = models.Classifier(config, seed)
    # A sharper head than the initial one, so that probabilities differ between images.
    kernel, bias = classifier.head.get_weights()
    classifier.head.set_weights([kernel * 100, bias])
    with runs.RunFolder.open(
        folder, kind=kind, config=dataclasses.asdict(config), records_digests={"--records": info.digest}
    ) as run:
        models.save_weights(classifier, run.path / loading.WEIGHTS)
    return folder


def make_records(folder: pathlib.Path, **arguments) -> pathlib.Path:
    """A v2 record set of 16 px images."""
    return fakes.make_records(folder, **{"resolution": 16, "label_version": "v2", "per_class": 6, **arguments})
