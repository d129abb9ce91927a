"""Warnings of a test on what was trained on, found by what a run says of its record sets."""

import json
import shutil

import pytest

from tests import classifier_runs
from tfcxr.evaluation import leakage
from tfrecords_builder import records


def make_run(tmp_path, name, trained, *more):
    """An untrained run that says it was trained on a record set; `more`: further lines of its flags.txt."""
    folder = classifier_runs.make_classifier_run(tmp_path / name, trained)
    (folder / "flags.txt").write_text("".join(f"{line}\n" for line in (f"--records={trained}", *more, "--balanced")))
    return folder


@pytest.fixture
def trained(tmp_path):
    return classifier_runs.make_records(tmp_path / "trained", dataset_name="a")


def find(run, tested, split):
    return leakage.find_leakage(run, records.load_info(tested), split)


def test_the_training_images_themselves_are_named(tmp_path, trained):
    run = make_run(tmp_path, "run", trained)
    assert find(run, trained, "test") == []
    assert find(run, trained, "validation") == []  # that it chose the weights is said elsewhere
    [said] = find(run, trained, "train")
    assert said.startswith("leakage: these are the images that the model was trained on")


def test_patients_and_images_of_another_set_are_counted(tmp_path, trained):
    run = make_run(tmp_path, "run", trained)
    same_patients = classifier_runs.make_records(tmp_path / "patients", dataset_name="a", seed=1)
    assert find(run, same_patients, "test") == []
    assert find(run, same_patients, "train") == [
        "leakage: of the test, 6 patients were also given to the training, so that the score is too good"
    ]
    copied = classifier_runs.make_records(tmp_path / "copied", dataset_name="b", per_class=5)
    assert find(run, copied, "test") == []
    assert "10 images were also given" in find(run, copied, "validation")[0]


def test_what_the_run_began_with_and_what_an_export_was_made_of_count(tmp_path, trained):
    first = make_run(tmp_path, "first", trained)
    other = classifier_runs.make_records(tmp_path / "other", dataset_name="b", seed=1)
    second = make_run(tmp_path, "second", other, f"--init_from={first}")
    export = tmp_path / "export"
    shutil.copytree(second, export)
    (export / "flags.txt").write_text(f"--run_dir={second}\n--output_dir={export}\n")
    for model in (second, export):
        assert "the images that the model was trained on" in find(model, trained, "train")[0]
        assert find(model, trained, "test") == []


def test_all_folds_that_a_pretraining_learned_from_count(tmp_path, trained):
    run = make_run(tmp_path, "pretrained", trained)
    config = json.loads((run / "config.json").read_text())
    del config["sha256"]
    config["config"]["splits"] = ["train", "test"]
    (run / "config.json").write_text(json.dumps(config))
    other = classifier_runs.make_records(tmp_path / "other", dataset_name="b", seed=1)
    second = make_run(tmp_path, "second", other, f"--init_from={run}")
    for model in (run, second):
        assert "the images that the model was trained on" in find(model, trained, "test")[0]
    copied = classifier_runs.make_records(tmp_path / "copied", dataset_name="c", per_class=5)
    assert "10 images were also given" in find(second, copied, "test")[0]


def test_sets_that_were_built_again_or_are_gone_are_left_out(tmp_path, trained):
    run = make_run(tmp_path, "run", trained)
    (run / "flags.txt").write_text(f"--records={tmp_path / 'gone'}\n")
    assert find(run, trained, "train") == []
    other = classifier_runs.make_records(tmp_path / "other", dataset_name="b", seed=1)
    (run / "flags.txt").write_text(f"--records={other}\n")  # not what the run's config.json has the digest of
    assert find(run, other, "train") == []
    (run / "flags.txt").unlink()
    assert find(run, trained, "train") == []
