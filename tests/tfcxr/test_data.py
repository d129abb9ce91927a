"""The training stream: every image once per epoch, resumable, balanced, and clear about bad records."""

import itertools

import numpy as np
import pytest

from tests import fakes
from tfcxr import data, read_records
from tfrecords_builder.errors import InputError, RunError


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory):
    """16 + 16 images of 8 px in three shards."""
    return data.RecordSet(fakes.make_records(tmp_path_factory.mktemp("two"), per_class=16, num_shards=3))


def take(record_set, steps, **arguments):
    arguments = {"batch_size": 5, "seed": 7, **arguments}
    stream = data.training_stream(record_set, "train", **arguments)
    return list(itertools.islice(stream.as_numpy_iterator(), steps))


def fingerprints(batches):
    return [image.tobytes() for batch in batches for image in batch["image"]]


def test_read_records_has_all_keys_and_the_decoded_image(two_classes):
    rows = list(read_records(two_classes.path, "test"))
    assert len(rows) == 32
    assert rows[0]["image"].shape == (8, 8, 1)
    assert rows[0]["image"].dtype == np.uint8
    assert {"image/encoded", "image/id", "patient/id", "label/vector", "label/class", "source"} <= set(rows[0])


def test_an_epoch_shows_every_image_once_in_a_new_order(two_classes):
    everything = sorted(record["image"].numpy().tobytes() for record in read_records(two_classes.path, "train"))
    shown = fingerprints(take(two_classes, 16, batch_size=4))
    first, second = shown[:32], shown[32:]
    assert sorted(first) == everything
    assert sorted(second) == everything
    assert first != second
    assert first != fingerprints(take(two_classes, 8, batch_size=4, seed=8))


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("start", [1, 6, 7, 30])
def test_a_stream_started_late_goes_on_as_the_unbroken_one(two_classes, balanced, start):
    whole = take(two_classes, start + 4, balanced=balanced)
    late = take(two_classes, 4, balanced=balanced, start=5 * start)
    for a, b in zip(whole[start:], late, strict=True):
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])
    np.testing.assert_array_equal(late[0]["index"], np.arange(5 * start, 5 * start + 5))


@pytest.mark.parametrize("balanced", [False, True])
def test_the_order_does_not_depend_on_the_global_seed(two_classes, balanced):
    import tensorflow as tf

    expected = fingerprints(take(two_classes, 8, balanced=balanced))
    try:
        for seed in (0, 5):
            tf.random.set_seed(seed)
            assert fingerprints(take(two_classes, 8, balanced=balanced)) == expected
    finally:
        tf.random.set_seed(None)


def test_balanced_draws_each_class_equally_often(tmp_path):
    # v3_0s without pneumonia-rich classes: four classes, 3 images of each; make it uneven by a filter on the labels.
    record_set = data.RecordSet(fakes.make_records(tmp_path / "r", label_version="v3_0s", per_class=3))
    classes = np.concatenate([b["class"] for b in take(record_set, 6, batch_size=8, balanced=True)])
    np.testing.assert_array_equal(np.bincount(classes), [12, 12, 12, 12])
    # In a batch, classes do not alternate.
    assert not np.array_equal(classes[:8], np.arange(8) % 4)


def test_filter_labels_leaves_out_rows_without_them(tmp_path):
    record_set = data.RecordSet(fakes.make_records(tmp_path / "r", label_version="multilabel", per_class=4))
    pneumonia = 7
    batches = take(record_set, 4, batch_size=4, filter_labels=[pneumonia])
    assert all((batch["vector"][:, pneumonia] == 1).all() for batch in batches)
    assert len(set(fingerprints(batches))) == 4
    with pytest.raises(InputError, match="no image to train on"):
        take(record_set, 1, filter_labels=[4])


def test_evaluation_shows_each_image_once_in_order(two_classes):
    batches = list(data.evaluation_batches(two_classes, "test", 5).as_numpy_iterator())
    assert [len(batch["class"]) for batch in batches] == [5] * 6 + [2]
    ids = [i.decode() for batch in batches for i in batch["id"]]
    assert ids == [r["image/id"].numpy().decode() for r in read_records(two_classes.path, "test")]


def test_what_does_not_fit_is_named(two_classes, tmp_path):
    with pytest.raises(InputError, match="images are 8 px, not 32"):
        data.RecordSet(two_classes.path, resolution=32)
    with pytest.raises(InputError, match="label version is v1_0s, not v2"):
        data.RecordSet(two_classes.path, label_versions=["v2"])
    with pytest.raises(InputError, match="expected a record set"):
        data.RecordSet(tmp_path)
    with pytest.raises(InputError, match="holdout"):
        two_classes.num_examples("holdout")


def test_a_flipped_byte_is_a_run_error(tmp_path):
    record_set = data.RecordSet(fakes.make_records(tmp_path / "r"))
    from pathlib import Path

    shard = Path(record_set.info.shard_paths("train")[0])
    content = bytearray(shard.read_bytes())
    content[200] ^= 255
    shard.write_bytes(content)
    with pytest.raises(RunError, match="damaged records"):
        record_set.labels("train")


def test_shares_of_a_batch_by_hand():
    # The groups of the minibatch standard deviation are the rows that are equal modulo batch_size / 4.
    np.testing.assert_array_equal(
        data.share_rows(16, 2), [[0, 1, 4, 5, 8, 9, 12, 13], [2, 3, 6, 7, 10, 11, 14, 15]]
    )  # groups 0 and 1, 2 and 3
    np.testing.assert_array_equal(data.share_rows(8, 2), [[0, 2, 4, 6], [1, 3, 5, 7]])
    np.testing.assert_array_equal(data.share_rows(6, 1), [[0, 1, 2, 3, 4, 5]])


@pytest.mark.parametrize(("size", "shares"), [(16, 4), (32, 2), (48, 3)])
def test_shares_hold_whole_groups(size, shares):
    rows = data.share_rows(size, shares)
    assert sorted(rows.reshape(-1)) == list(range(size))
    for share in rows:
        # The share's own groups, found as in a batch of its size.
        for group in share.reshape(4, -1).T:
            assert len(set(group % (size // 4))) == 1


def test_what_cannot_be_shared():
    for size, shares in [(8, 4), (4, 2), (12, 2), (16, 3)]:
        with pytest.raises(ValueError, match=rf"batch_size={size}: must be divisible by {4 * shares}"):
            data.share_rows(size, shares)


@pytest.mark.parametrize("start", [0, 16, 24])
def test_shares_of_a_stream_are_the_rows_of_the_whole(two_classes, start):
    whole = take(two_classes, 3, batch_size=16, start=start)
    rows = data.share_rows(16, 2)
    for share in range(2):
        parts = take(two_classes, 3, batch_size=16, start=start, shares=2, own=[share])
        for batch, part in zip(whole, parts, strict=True):
            for key in batch:
                np.testing.assert_array_equal(batch[key][rows[share]], part[key], err_msg=key)
    # A machine with both devices gets a batch of each in turn.
    both = take(two_classes, 4, batch_size=16, start=start, shares=2, own=range(2))
    np.testing.assert_array_equal(
        np.concatenate([part["index"] for part in both]),
        np.concatenate([batch["index"][rows[share]] for batch in whole[:2] for share in range(2)]),
    )
