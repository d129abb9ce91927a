"""What TensorBoard's Custom Scalars tab shows of a workspace's runs: curves that belong together in one chart."""

import pathlib

import tensorflow as tf
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import summary as custom_scalar

_SUFFIX = ".layout"

# Category -> chart -> patterns of the tags in it.
_CHARTS = {
    "classifiers": {
        "balanced accuracy on validation": [r"(validation|source|target)/balanced_accuracy"],
        "recall on validation": [r"(validation|target)/recall/.*"],
        "mean ROC-AUC and average precision on validation": [r"validation/(roc_auc|average_precision)$"],
        "ROC-AUC of each label on validation": [r"validation/roc_auc/.*"],
        "loss of the steps": [r"train/(loss|total|cls)"],
        "gap between the domains: MMD": [r"mmd/.*"],
        "predicted shares of the classes on the target": [r"target/predicted/.*"],
        "learning rate": [r"learning_rate$"],
    },
    "GANs": {
        "Fréchet distance": [r"fid/.*"],
        "precision and recall of generated images": [r"(precision|recall)/(?!No Finding)[^ ]*_[^ ]*"],
        "losses": [r"loss/[GD]"],
        "scores of the discriminator": [r"scores/.*"],
        "diversity within label combinations": [r"diversity/.*"],
        "images per second": [r"speed/images_per_s"],
    },
}


def write(runs: pathlib.Path) -> None:
    """Writes the layout into a folder of runs, as a run of its own, unless it is there already."""
    if any(runs.glob(f"*{_SUFFIX}")):
        return
    categories = [
        layout_pb2.Category(
            title=title,
            chart=[
                layout_pb2.Chart(title=name, multiline=layout_pb2.MultilineChartContent(tag=patterns))
                for name, patterns in charts.items()
            ],
        )
        for title, charts in _CHARTS.items()
    ]
    summary = custom_scalar.pb(layout_pb2.Layout(category=categories))
    writer = tf.summary.create_file_writer(str(runs), filename_suffix=_SUFFIX)
    with writer.as_default():
        tf.summary.experimental.write_raw_pb(summary.SerializeToString(), step=0)
    writer.close()
