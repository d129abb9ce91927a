"""The layout of TensorBoard's charts: written once, and its patterns find the tags that runs write."""

import re

from tensorboard.backend.event_processing import event_accumulator
from tensorboard.plugins.custom_scalar import layout_pb2, metadata

from tfcxr.studies import tensorboard_layout


def read_tags(folder):
    events = event_accumulator.EventAccumulator(str(folder))
    events.Reload()
    return events, events.Tags()["tensors"]


def test_every_chart_finds_a_curve_of_the_tiny_study(tiny_study):
    runs = tiny_study / "workspace" / "runs"
    [file] = runs.glob("*.layout")
    events, [tag] = read_tags(file)
    assert tag == metadata.CONFIG_SUMMARY_TAG
    found = layout_pb2.Layout()
    found.ParseFromString(events.Tensors(tag)[0].tensor_proto.string_val[0])
    assert [category.title for category in found.category] == ["classifiers", "GANs"]
    tags = {tag for folder in runs.glob("*/tensorboard") for tag in read_tags(folder)[1]}
    for category in found.category:
        for chart in category.chart:
            patterns = list(chart.multiline.tag)
            matching = [tag for tag in tags if any(re.fullmatch(pattern, tag) for pattern in patterns)]
            # This study has no classifier of several labels.
            assert matching or chart.title.startswith(("mean ROC-AUC", "ROC-AUC of each label")), chart.title


def test_it_is_written_once(tmp_path):
    tensorboard_layout.write(tmp_path)
    tensorboard_layout.write(tmp_path)
    assert len(list(tmp_path.glob("*.layout"))) == 1
