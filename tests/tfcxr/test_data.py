"""The training stream: every image once per epoch, resumable, balanced, and clear about bad records."""

import itertools
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from tests import fakes
from tfcxr import data, read_records
from tfrecords_builder import readers
from tfrecords_builder.errors import InputError, RunError
from tfrecords_builder.readers import shards


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


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            {"balanced": True},
            [5, 16, 4, 15, 6, 11, 14, 13, 8, 17, 3, 7, 2, 18, 0, 9, 19, 16, 1, 5, 11, 12, 10, 10, 14, 3, 4, 1, 17, 6],
        ),
        (
            {"only": np.arange(20) % 3 > 0},
            [19, 8, 13, 10, 11, 1, 2, 7, 17, 4, 5, 16, 14, 13, 8, 4, 7, 2, 5, 17, 1, 10, 14, 19, 11, 16, 11, 7, 8, 17],
        ),
        (
            {"balanced": True, "start": 37},
            [12, 9, 7, 8, 14, 2, 19, 5, 2, 0, 16, 13, 9, 3, 10, 7, 17, 11, 18, 6, 15, 0, 4, 1, 8, 11, 19, 4, 18, 14],
        ),
    ],
)
def test_the_order_is_that_of_earlier_releases(tmp_path, arguments, expected):
    """Runs of earlier releases go on as they would have; these orders are theirs."""
    record_set = data.RecordSet(fakes.make_records(tmp_path / "r", label_version="v3_0s", per_class=5, num_shards=3))
    rows = {record["image"].numpy().tobytes(): i for i, record in enumerate(record_set.dataset("train"))}
    shown = fingerprints(take(record_set, 4, batch_size=8, seed=4, **arguments))
    assert [rows[image] for image in shown][: len(expected)] == expected


@pytest.mark.parametrize("lengths", [[3, 3, 3], [3, 1, 7, 2, 5], [0, 2, 0, 1, 4], [4]])
@pytest.mark.parametrize("cycle", [1, 2, 16])
def test_rows_are_interleaved_as_tensorflow_does(lengths, cycle):
    order = np.random.default_rng(len(lengths)).permutation(len(lengths))
    bounds = np.cumsum([0, *lengths])
    parts = tf.data.Dataset.from_tensor_slices((bounds[:-1][order], bounds[1:][order]))
    expected = parts.interleave(tf.data.Dataset.range, cycle_length=min(cycle, len(lengths)))
    assert data.interleave_rows(lengths, order, cycle).tolist() == list(expected.as_numpy_iterator())


def test_a_balanced_stream_reads_only_what_it_draws(two_classes, monkeypatch):
    """No shard is read from one end to the other."""
    read = []
    original = shards.read_serialized
    monkeypatch.setattr(
        shards, "read_serialized", lambda stream, offset: read.append(offset) or original(stream, offset)
    )
    monkeypatch.setattr(tf.data, "TFRecordDataset", None)
    assert len(take(two_classes, 3, batch_size=4, balanced=True)) == 3
    assert set(read) <= set(two_classes.places("train")[1])


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """5 + 5 other images of the same two classes."""
    return data.RecordSet(fakes.make_records(tmp_path_factory.mktemp("others"), per_class=5, seed=9))


def images_of(record_set):
    return [record["image"].numpy().tobytes() for record in read_records(record_set.path, "train")]


def test_extra_images_are_drawn_evenly_and_in_their_number(two_classes, others):
    main, extra = images_of(two_classes), images_of(others)
    assert not set(main) & set(extra)
    # 32 of the main set and 12 others for each pass over it; 5 passes, in which 60 others are 6 of their own.
    shown = fingerprints(take(two_classes, 5, batch_size=44, extra=data.Extra(others, 12)))
    for number in range(5):
        of_pass = shown[44 * number : 44 * (number + 1)]
        assert sorted(image for image in of_pass if image in main) == sorted(main)
    assert sorted(image for image in shown if image in extra) == sorted(6 * extra)
    in_windows = [sum(image in extra for image in shown[i : i + 11]) for i in range(0, 220, 11)]
    assert in_windows == [3] * 20


def test_the_duplicate_control_repeats_main_images_with_the_others_classes(two_classes, others, monkeypatch):
    classes = np.array([0, 0, 0, 1])
    monkeypatch.setattr(others, "labels", lambda split: {"class": classes})
    batches = take(two_classes, 4, batch_size=44, extra=data.Extra(others, 12, duplicate=True))
    shown, main = fingerprints(batches), images_of(two_classes)
    assert set(shown) == set(main)
    # 16 of each class once, and 9 + 3 of them again, in each pass.
    for batch in batches:
        np.testing.assert_array_equal(np.bincount(batch["class"]), [16 + 9, 16 + 3])
    # Repeats are shuffled too: after 4 passes, 36 repeats of 16 images are 2 or 3 of each, 12 of 16 none or one.
    repeats = [shown.count(image) - 4 for image in main]
    assert sorted(repeats) == [0] * 4 + [1] * 12 + [2] * 12 + [3] * 4


def test_balanced_goes_for_main_and_extra_images(two_classes, others):
    batches = take(two_classes, 3, batch_size=24, balanced=True, extra=data.Extra(others, 16))
    extra = images_of(others)
    for batch in batches:
        is_extra = np.array([image.tobytes() in extra for image in batch["image"]])
        np.testing.assert_array_equal(np.bincount(batch["class"][is_extra]), [4, 4])
        np.testing.assert_array_equal(np.bincount(batch["class"][~is_extra]), [8, 8])


@pytest.mark.parametrize("duplicate", [False, True])
@pytest.mark.parametrize("start", [1, 7, 30])
def test_a_mixed_stream_started_late_goes_on_as_the_unbroken_one(two_classes, others, duplicate, start):
    arguments = {"extra": data.Extra(others, 7, duplicate), "only": np.arange(32) % 3 > 0}
    whole = take(two_classes, start + 4, **arguments)
    late = take(two_classes, 4, start=5 * start, **arguments)
    for a, b in zip(whole[start:], late, strict=True):
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


@pytest.mark.parametrize("others_of", [None, False, True], ids=["alone", "mixed", "duplicate_control"])
@pytest.mark.parametrize("balanced", [False, True])
def test_rows_are_those_of_the_images_that_a_stream_draws(two_classes, others, balanced, others_of):
    extra = None if others_of is None else data.Extra(others, 12, duplicate=others_of)
    images = [*images_of(two_classes), *images_of(others)]
    assert len(set(images)) == len(images) == 42
    for only in (None, np.arange(32) % 3 > 0):
        arguments = {"balanced": balanced, "only": only, "extra": extra, "batch_size": 5, "seed": 7}
        shown = fingerprints(take(two_classes, 20, **arguments))
        rows = data.training_rows(two_classes, number=98, **arguments)
        assert rows.dtype == np.int64
        assert [images[row] for row in rows] == shown[:98]


def test_examples_of_several_sets_are_fetched_by_row(two_classes, others):
    images = [*images_of(two_classes), *images_of(others)]
    rows = tf.constant([41, 0, 33, 31, 32, 0], tf.int64)
    serialized = tf.function(lambda: data.fetch_examples([two_classes, others], "train", rows))()
    assert [two_classes.parse(s)["image"].numpy().tobytes() for s in serialized] == [images[row] for row in rows]


def test_a_few_of_each_class(two_classes):
    classes = two_classes.labels("train")["class"]
    few, more = [data.choose_per_class(classes, number, 2, seed=1) for number in (3, 5)]
    np.testing.assert_array_equal(np.bincount(classes[few]), [3, 3])
    np.testing.assert_array_equal(np.bincount(classes[more]), [5, 5])
    assert more[few].all()
    assert (few != data.choose_per_class(classes, 3, 2, seed=2)).any()
    everything = np.array(images_of(two_classes))
    shown = fingerprints(take(two_classes, 4, batch_size=3, only=few))
    for epoch in (shown[:6], shown[6:]):
        assert sorted(epoch) == sorted(everything[few])
    with pytest.raises(ValueError, match="class 0 has 16 images, fewer than 17"):
        data.choose_per_class(classes, 17, 2, seed=1)


def test_a_fraction_of_the_patients():
    """20 patients of two images, 4 of them with a rare finding in one; and 10 images without a patient."""
    patients = np.array([f"p{i // 2}" for i in range(40)] + [""] * 10, object)
    rare = np.arange(50) % 10 == 0
    rare[40:] = False
    memberships = np.column_stack([rare, ~rare])
    half, more, whole = [data.choose_fraction(patients, memberships, part, seed=1) for part in (0.5, 0.75, 1.0)]
    assert [rare[rows].sum() for rows in (half, more, whole)] == [2, 3, 4]
    # 16 other patients and 10 images without one: 13 of 26, and of 19.5 the even number.
    names = np.where(patients == "", [f"alone-{i}" for i in range(50)], patients)
    assert [len(set(names[rows])) for rows in (half, more, whole)] == [2 + 13, 3 + 20, 30]
    assert more[half].all()
    assert whole.all()
    np.testing.assert_array_equal(half[:40:2], half[1:40:2])  # both images of a patient or none
    assert (half != data.choose_fraction(patients, memberships, 0.5, seed=2)).any()


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


@pytest.mark.parametrize("arguments", [{}, {"balanced": True}, {"only": np.arange(16) % 2 > 0}])
def test_a_flipped_byte_is_a_run_error(tmp_path, arguments):
    record_set = data.RecordSet(fakes.make_records(tmp_path / "r"))
    shard = pathlib.Path(record_set.info.shard_paths("train")[0])
    content = bytearray(shard.read_bytes())
    content[-50] ^= 255
    shard.write_bytes(content)
    with pytest.raises(RunError, match="damaged records"), data.naming_damage(record_set.path):
        take(record_set, 4, **arguments)


def test_labels_are_those_of_the_shards_and_read_once(two_classes):
    rows = list(read_records(two_classes.path, "train"))
    record_set = data.RecordSet(two_classes.path)
    table = record_set.labels("train")
    assert (table["vector"].dtype, table["class"].dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(table["vector"], [row["label/vector"].numpy() for row in rows])
    np.testing.assert_array_equal(table["class"], [row["label/class"].numpy() for row in rows])
    assert record_set.labels("train") is table
    with pytest.raises(ValueError, match="read-only"):
        table["class"][0] = 1


def test_labels_without_classes_and_without_a_manifest(tmp_path):
    folder = fakes.make_records(tmp_path / "r", label_version="multilabel", per_class=4, num_shards=3)
    table = data.RecordSet(folder).labels("train")
    assert table["class"].tolist() == [-1] * 20 and table["vector"].shape == (20, 14)
    (folder / "manifest.csv").unlink()
    without = data.RecordSet(folder).labels("train")
    for key in table:
        np.testing.assert_array_equal(without[key], table[key])
    assert data.RecordSet(fakes.make_old(fakes.make_records(tmp_path / "old"))).labels("test")["class"].shape == (16,)


def test_places_are_those_of_the_records(two_classes):
    numbers, offsets = two_classes.places("train")
    paths = two_classes.info.shard_paths("train")
    assert np.bincount(numbers).tolist() == list(two_classes.info.split("train").shard_lengths)
    expected = [record["image/id"].numpy().decode() for record in read_records(two_classes.path, "train")]
    found = [readers.read_record(paths[n], int(o))["image/id"] for n, o in zip(numbers, offsets, strict=True)]
    assert found == expected


def test_a_shard_with_fewer_records_than_described(tmp_path):
    record_set = data.RecordSet(fakes.make_records(tmp_path / "r"))
    train, test = (pathlib.Path(record_set.info.shard_paths(split)[0]) for split in ("train", "test"))
    content = train.read_bytes()
    train.write_bytes(content[: readers.index_shard(train)[-1]])
    with pytest.raises(RunError, match=r"damaged records .* holds 15, described are 16"):
        record_set.places("train")
    test.write_bytes(test.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"damaged records .* is cut off"):
        record_set.places("test")


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


def spoil_pictures(shard):
    rows = [tf.train.Example.FromString(row.numpy()) for row in tf.data.TFRecordDataset(str(shard))]
    with tf.io.TFRecordWriter(str(shard)) as writer:
        for row in rows:
            row.features.feature["image/encoded"].bytes_list.value[0] = b"no picture"
            writer.write(row.SerializeToString())


def cut_short(shard):
    shard.write_bytes(shard.read_bytes()[:-5])


@tf.function
def steps(iterator, count):
    for _ in tf.range(count):
        tf.debugging.assert_rank(next(iterator)["image"], 4)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [(spoil_pictures, "Unknown image file format"), (cut_short, "truncated record at|wrong CRC|is damaged")],
)
def test_damage_met_in_a_training_step_is_named(tmp_path, damage, expected):
    folder = fakes.make_records(tmp_path / "set", splits=("train",))
    stream = data.training_stream(data.RecordSet(folder), "train", batch_size=4, seed=0)
    damage(*folder.glob("*.tfrecord-*"))
    named = pytest.raises(RunError, match=rf"^{folder}: damaged records \(.*({expected}).*\); see verify-records$")
    with named, data.naming_damage(folder):
        steps(iter(stream), 10)


def test_a_shard_that_is_gone_is_named(tmp_path):
    folder = fakes.make_records(tmp_path / "set", splits=("train",))
    record_set = data.RecordSet(folder)
    (shard,) = folder.glob("*.tfrecord-*")
    shard.unlink()
    named = pytest.raises(RunError, match=r"damaged records \(.*No such file or directory\)")
    with named, data.naming_damage(folder):
        list(record_set.dataset("train"))


def test_a_shard_that_may_not_be_read_is_not_called_damaged(tmp_path):
    said = "set-train.tfrecord-00000-of-00001; Permission denied"
    with (
        pytest.raises(RunError, match=rf"^set: the records may not be read \({said}\); change their rights$"),
        data.naming_damage("set"),
    ):
        raise tf.errors.PermissionDeniedError(None, None, said)


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.InvalidArgumentError(None, None, "Tensor of 20000 images is too large for Conv2D"),
        tf.errors.NotFoundError(None, None, "No algorithm worked!  Error messages:"),
        tf.errors.NotFoundError(None, None, "Key head/kernel not found in checkpoint"),
        tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"),
    ],
)
def test_what_fails_in_a_step_itself_is_no_damage(two_classes, error):
    with pytest.raises(type(error)), data.naming_damage(two_classes.path):
        raise error


def test_a_step_that_fails_on_sound_records_is_no_damage(two_classes):
    @tf.function
    def step(iterator):
        batch = next(iterator)
        tf.debugging.assert_less(tf.shape(batch["image"])[0], 4, "the batch is too large")

    stream = iter(data.training_stream(two_classes, "train", batch_size=5, seed=0))
    kept = pytest.raises(tf.errors.InvalidArgumentError, match="the batch is too large")
    with kept, data.naming_damage(two_classes.path):
        step(stream)


def take_unlabelled(record_set, steps, **arguments):
    arguments = {"splits": ("train", "validation"), "batch_size": 6, "seed": 7, **arguments}
    return list(itertools.islice(data.unlabelled_stream(record_set, **arguments).as_numpy_iterator(), steps))


@pytest.fixture(scope="module")
def of_patients(tmp_path_factory):
    """6 + 6 images of 8 px in each split; two of each patient, but the last image of a class in validation is alone."""
    record_set = data.RecordSet(fakes.make_records(tmp_path_factory.mktemp("p"), per_class=6, num_shards=2))
    patients = {split: record_set.patients(split).copy() for split in ("train", "validation")}
    patients["validation"][-1] = "alone"
    patients["validation"][0] = ""
    record_set.patients = patients.get
    return record_set


@pytest.mark.parametrize("same_patient", [False, True])
def test_an_unlabelled_epoch_shows_every_image_of_all_splits_once(of_patients, same_patient):
    rows = {r["image"].numpy().tobytes() for split in ("train", "validation") for r in of_patients.dataset(split)}
    batches = take_unlabelled(of_patients, 8, same_patient=same_patient)
    shown = fingerprints(batches)
    assert sorted(shown[:24]) == sorted(shown[24:]) == sorted(rows)
    assert shown[:24] != shown[24:]
    assert "vector" not in batches[0] and "class" not in batches[0]
    only = fingerprints(take_unlabelled(of_patients, 2, splits=("test",), same_patient=False))
    assert sorted(only) == sorted(record["image"].numpy().tobytes() for record in of_patients.dataset("test"))


def test_partners_are_other_images_of_the_same_patient(of_patients):
    patient_of, images = {}, {}
    for split in ("train", "validation"):
        for record, patient in zip(of_patients.dataset(split), of_patients.patients(split), strict=True):
            image = record["image"].numpy().tobytes()
            patient_of[image] = patient or image
            images.setdefault(patient or image, set()).add(image)
    assert data.count_paired(of_patients, ("train", "validation")) == sum(len(i) for i in images.values() if len(i) > 1)
    pairs = [
        (image.tobytes(), partner.tobytes())
        for batch in take_unlabelled(of_patients, 8, same_patient=True)
        for image, partner in zip(batch["image"], batch["partner"], strict=True)
    ]
    for image, partner in pairs:
        assert patient_of[image] == patient_of[partner]
        assert (image == partner) == (len(images[patient_of[image]]) == 1)
    assert sum(image == partner for image, partner in pairs) == 2 * sum(len(i) == 1 for i in images.values()) > 0


def test_partners_are_drawn_anew_and_equally_often():
    patients = data._Patients(np.array(["b", "a", "b", "a", "b", "b"], object))
    drawn = [int(patients.draw_partner(tf.constant(2, tf.int64), [1, i])) for i in range(300)]
    counts = np.bincount(drawn, minlength=6)
    assert counts[[1, 2, 3]].sum() == 0
    assert counts[[0, 4, 5]].min() > 75


@pytest.mark.parametrize("same_patient", [False, True])
@pytest.mark.parametrize("start", [1, 5])
def test_an_unlabelled_stream_started_late_goes_on_as_the_unbroken_one(of_patients, same_patient, start):
    whole = take_unlabelled(of_patients, start + 3, same_patient=same_patient)
    late = take_unlabelled(of_patients, 3, same_patient=same_patient, start=6 * start)
    for a, b in zip(whole[start:], late, strict=True):
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])
    shares = [take_unlabelled(of_patients, 1, same_patient=same_patient, shares=2, own=[i])[0] for i in range(2)]
    for key, value in whole[0].items():
        np.testing.assert_array_equal(np.concatenate([share[key] for share in shares]), value)
