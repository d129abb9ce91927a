import numpy as np
import pytest

from tests import fakes
from tfrecords_builder import labels
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels import benchmark_settings

SPLITS = ("train", "validation", "test")


def _vectors(**counts):
    """Rows of each combination, written like Edema_Fracture=3."""
    rows = [fakes.make_vector(name.split("_")) for name, count in counts.items() for _ in range(count)]
    return np.stack(rows)


def test_the_settings_are_those_of_the_benchmark():
    numbers = {name: s.images_per_class for name, s in benchmark_settings.SETTINGS.items()}
    assert numbers["resolution"] is None and len(numbers) == 15
    assert [numbers[f"classes-{n}"][0] for n in (20, 15, 10, 6, 4, 2)] == [1450, 1600, 2000, 2300, 3900, 6300]
    assert {numbers[f"classes-{n}"][1:] for n in (20, 15, 10, 6, 4, 2)} == {(190, 170)}
    samples = (5950, 4500, 3000, 1500, 1000, 500, 400, 200)
    assert [numbers[f"samples-{n}"] for n in samples] == [(n, 750, 750) for n in samples]
    combinations = [s.combinations for s in benchmark_settings.SETTINGS.values()]
    assert combinations == [None, 20, 15, 10, 6, 4, 2, 3, 3, 3, 3, 3, 3, 3, 3]
    assert {s.uncertain for s in benchmark_settings.SETTINGS.values()} == {"ones"}


def test_the_settings_of_the_brain_are_those_of_the_benchmark():
    settings = benchmark_settings.settings_of(labels.get_label_set("brain_benchmark"))
    assert settings is benchmark_settings.settings_of(labels.get_label_set("brain6"))
    assert benchmark_settings.settings_of(labels.get_label_set("nih14")) is benchmark_settings.SETTINGS
    numbers = {name: (s.combinations, s.images_per_class) for name, s in settings.items()}
    classes = [(10, 2500), (8, 3120), (6, 4170), (4, 6250), (2, 12500)]
    samples = (5400, 4500, 3000, 1500, 1000, 500, 300, 100)
    assert numbers == {
        "resolution": (None, None),
        **{f"classes-{number}": (number, (train, 300, 200)) for number, train in classes},
        **{f"samples-{train}": (6, (train, 500, 500)) for train in samples},
    }
    assert settings["resolution"].more_than == 110
    brain = labels.get_label_set("brain_benchmark")
    vectors = np.zeros([9, 6], np.float32)
    vectors[:4, 5] = 1  # no finding
    vectors[4:7, 4] = 1  # subdural
    vectors[7:, [0, 4]] = 1  # both
    version = benchmark_settings.make_version("classes-2", vectors, None, brain)
    assert version.class_names == ("no finding", "subdural")


def test_most_frequent_combinations_in_order():
    # Fracture and Edema are equally frequent: label order decides; so do Edema_Fracture and Edema.
    vectors = _vectors(Pneumonia=2, Fracture=3, Edema=3, Edema_Fracture=3, Cardiomegaly_Edema=5)
    version = benchmark_settings.make_version("classes-4", vectors)
    assert version.name == "classes-4"
    assert version.class_names == ("Cardiomegaly|Edema", "Edema|Fracture", "Edema", "Fracture")
    index = labels.assign(version, vectors)
    assert np.bincount(index + 1).tolist() == [2, 5, 3, 3, 3]
    assert all(len(c.one) + len(c.zero) == 14 for c in version.classes)
    shuffled = np.random.default_rng(0).permutation(vectors)
    assert benchmark_settings.make_version("classes-4", shuffled) == version
    assert labels.make_label_version("classes-4", version.definition()) == version


def test_rows_with_extra_findings_or_no_label_do_not_count():
    vectors = np.concatenate([_vectors(Edema=4, Fracture=3, Pneumonia=2), np.zeros((9, 14))])
    extra = np.array(["Hernia", "Hernia"] + [""] * 16, object)
    version = benchmark_settings.make_version("classes-2", vectors, extra)
    assert version.class_names == ("Fracture", "Edema")
    assert labels.assign(version, vectors, extra).tolist() == [-1, -1, 1, 1, 0, 0, 0] + [-1] * 11


def test_resolution_takes_combinations_of_more_than_256_images():
    version = benchmark_settings.make_version("resolution", _vectors(Edema=256, Fracture=257, Pneumonia=300))
    assert version.class_names == ("Pneumonia", "Fracture")


@pytest.mark.parametrize(
    ("name", "vectors", "message"),
    [
        (
            "classes-4",
            _vectors(Edema=2, Fracture=1),
            "--label_version=classes-4: needs 4 label combinations, .* have 2",
        ),
        ("resolution", _vectors(Edema=256, Fracture=1), "none of the 2 label .* more than 256 .*most frequent has 256"),
        ("resolution", np.zeros((3, 14)), "no labelled row"),
    ],
)
def test_too_few_combinations(name, vectors, message):
    with pytest.raises(InputError, match=message):
        benchmark_settings.make_version(name, vectors)


def _rows():
    rng = np.random.default_rng(0)
    return rng.choice(np.array([*SPLITS, ""], object), 2000), rng.integers(-1, 3, 2000)


def test_draw_exact_numbers():
    splits, classes = _rows()
    chosen = benchmark_settings.draw(splits, classes, (50, 20, 0), class_names=("a", "b", "c"), seed=1)
    assert chosen.dtype == bool and chosen.sum() == 3 * 70
    counts = [[int((chosen & (splits == s) & (classes == c)).sum()) for c in range(3)] for s in SPLITS]
    assert counts == [[50] * 3, [20] * 3, [0] * 3]
    again = benchmark_settings.draw(splits, classes, (50, 20, 0), class_names=("a", "b", "c"), seed=1)
    assert (again == chosen).all()
    other = benchmark_settings.draw(splits, classes, (50, 20, 0), class_names=("a", "b", "c"), seed=2)
    assert (other != chosen).any()
    fewer = benchmark_settings.draw(splits, classes, (10, 20, 0), class_names=("a", "b", "c"), seed=1)
    assert (chosen | ~fewer).all()


def test_draw_says_what_is_missing():
    splits, classes = np.repeat(np.array(SPLITS, object), 10), np.tile([0, 1], 15)
    classes[10] = 1  # validation has four images of a and six of b
    with pytest.raises(
        InputError, match="class 'a' has 4 images in the validation split, 5 are wanted; --images_per_c"
    ):
        benchmark_settings.draw(splits, classes, (5, 5, 5), class_names=("a", "b"), seed=1)
    with pytest.raises(InputError, match=r"class 'b' has 5 .* test split, 6 .*=TRAIN,VALIDATION,TEST sets smaller"):
        benchmark_settings.draw(splits[classes == 1], classes[classes == 1] * 0, (1, 6, 6), class_names=("b",), seed=1)


@pytest.mark.parametrize("numbers", [(1, 2), (1, 2, -3), (0, 0, 0)])
def test_draw_refuses_bad_numbers(numbers):
    with pytest.raises(InputError, match=r"--images_per_class=.*three numbers"):
        benchmark_settings.draw(*_rows(), numbers, class_names=("a",), seed=0)


def test_draw_needs_classes():
    with pytest.raises(InputError, match="multi-label"):
        benchmark_settings.draw(*_rows(), (1, 1, 1), class_names=(), seed=0)
