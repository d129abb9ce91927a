"""Features of both domains in two dimensions: t-SNE pictures, and points for TensorBoard's projector.

t-SNE: van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 2008, as scikit-learn has it.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import threadpoolctl
from matplotlib import pyplot as plt
from tensorboard.plugins import projector

from tfcxr import plotting
from tfcxr.classifiers import inference
from tfcxr.classifiers.adaptation import domain_gap
from tfcxr.classifiers.networks import models
from tfrecords_builder import files

MOST_POINTS = 1000  # both domains together: some seconds of t-SNE
_COMPONENTS = 50  # t-SNE and the projector get principal components: small files, and as good
_PERPLEXITY = 30
_UNKNOWN = "no label"
_MARKERS = {"source": "o", "target": "x"}


@dataclasses.dataclass(frozen=True)
class Points:
    """Feature vectors of both domains, and what they are of.

    Attributes:
        features: float32 [N, D], principal components.
        domains: source or target, [N].
        classes: names of the true classes, [N]; for display only.
        predicted: names of the predicted classes, [N].
    """

    features: np.ndarray
    domains: Sequence[str]
    classes: Sequence[str]
    predicted: Sequence[str]


def make_points(classifier: models.Classifier, source: inference.Outputs, target: inference.Outputs) -> Points:
    """At most MOST_POINTS images, half of them of each domain; target features are corrected if the network does so."""
    from sklearn import decomposition  # not before: it takes 0.7 s, and a training can begin without it

    names = classifier.config.classes
    features, domains, classes, predicted = [], [], [], []
    for domain, outputs in (("source", source), ("target", target)):
        rows = domain_gap.spread(np.arange(len(outputs.labels)), MOST_POINTS // 2)
        picked = outputs.features[rows]
        if domain == "target" and classifier.config.correction:
            picked = classifier.correct(tf.constant(picked))[0].numpy()
        features.append(picked)
        domains += [domain] * len(rows)
        classes += [names[k] if k >= 0 else _UNKNOWN for k in outputs.labels[rows]]
        predicted += [names[k] for k in outputs.predictions[rows]]
    stacked = np.concatenate(features)
    count = min(_COMPONENTS, *stacked.shape)
    components = decomposition.PCA(count, random_state=0).fit_transform(stacked).astype(np.float32)
    return Points(components, domains, classes, predicted)


def t_sne(points: Points) -> np.ndarray:
    """Places in the plane, float32 [N, 2]; the same for the same points."""
    from sklearn import manifold

    perplexity = min(_PERPLEXITY, (len(points.features) - 1) / 3)
    # On a busy machine its threads wait for each other: 100 times as long as one thread alone.
    with threadpoolctl.threadpool_limits(limits=1):
        return manifold.TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(points.features)


def write_picture(points: Points, path: pathlib.Path, title: str) -> None:
    """Writes the t-SNE picture as PNG: colours are true classes, circles are source, crosses target images."""
    places = t_sne(points)
    domains, classes = np.array(points.domains), np.array(points.classes)
    figure, axis = plt.subplots(figsize=(6.4, 5.6), layout="constrained")
    for number, name in enumerate(dict.fromkeys(points.classes)):
        for domain, marker in _MARKERS.items():
            chosen = places[(classes == name) & (domains == domain)]
            label = f"{domain}: {name}"
            axis.scatter(
                chosen[:, 0],
                chosen[:, 1],
                s=16,
                marker=marker,
                color=f"C{number % 10}",
                alpha=0.7,
                linewidths=1,
                label=label,
            )
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_title(title)
    axis.legend(fontsize=8)
    plotting.save(figure, path, 110)


def write_projector(points: Points, folder: pathlib.Path, step: int) -> None:
    """Adds the points to TensorBoard's projector; metadata: domain, class, predicted.

    Args:
        points: what to add.
        folder: the run's TensorBoard folder; earlier steps stay to choose from.
        step: of the training.
    """
    rows = ["\t".join(f"{value:.4g}" for value in row) for row in points.features]
    files.write_text(folder / f"features_{step:06d}.tsv", "\n".join(rows) + "\n")
    lines = zip(points.domains, points.classes, points.predicted, strict=True)
    metadata = ["domain\tclass\tpredicted", *("\t".join(line) for line in lines)]
    files.write_text(folder / f"metadata_{step:06d}.tsv", "\n".join(metadata) + "\n")
    config = projector.ProjectorConfig()
    for tensor in sorted(folder.glob("features_*.tsv"), reverse=True):
        config.embeddings.add(
            tensor_name=tensor.stem, tensor_path=tensor.name, metadata_path=tensor.name.replace("features", "metadata")
        )
    projector.visualize_embeddings(str(folder), config)
