"""Plans of synthetic sets: sampled labels, label tables, one combination, and what is refused before any work."""

import collections

import numpy as np
import pytest

from flags import app
from tests import fakes, gan_runs
from tfcxr import generation, read_records
from tfcxr.commands import generate
from tfcxr.gan import loading
from tfcxr.generation import conditions
from tfrecords_builder import labels as labels_lib
from tfrecords_builder.errors import InputError
from tfrecords_builder.labels import LABELS

V1_0S, V1_XS, V2, MULTILABEL = (labels_lib.get_label_version(v) for v in ("v1_0s", "v1_xs", "v2", "multilabel"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return gan_runs.make_gan_run(tmp_path_factory.mktemp("gan") / "run")


@pytest.fixture(scope="module")
def generator(run):
    return loading.load(run)


def names(plan):
    return ["|".join(np.array(LABELS)[vector > 0]) for vector in plan.vectors]


def write(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_sampling_follows_the_distribution_and_a_larger_set_begins_with_a_smaller_one(generator):
    plan = generation.plan_sampled(generator, MULTILABEL, 2000, seed=4)
    counts = collections.Counter(names(plan))
    # The training fold has 50, 20, 20 and 10 of 100; five standard deviations of 2000 draws are below 112.
    for labels, expected in (("No Finding", 1000), ("Pneumothorax", 400), ("Cardiomegaly|Edema", 200)):
        assert abs(counts[labels] - expected) < 112
    assert (plan.splits == 0).sum() == 1600
    smaller = generation.plan_sampled(generator, MULTILABEL, 50, seed=4)
    np.testing.assert_array_equal(smaller.codes, plan.codes[:50])
    other = generation.plan_sampled(generator, MULTILABEL, 50, seed=5)
    assert (other.codes != smaller.codes).any()
    top = generation.plan_sampled(generator, V1_XS, 40, seed=0, top_combinations=2)
    assert set(names(top)) == {"No Finding", "Pneumothorax|Support Devices"}
    # 10 are in no class, and 20 have the pneumothorax alone, which is as frequent but comes after.
    assert top.left_out == {"in no class of v1_xs": 10, "not of the 2 most frequent combinations": 20}


def test_draws_are_in_proportion_to_the_counts():
    drawn = conditions.draw(np.array([5, 1, 4]), (np.arange(10) + 0.5) / 10)
    assert drawn.tolist() == [0] * 5 + [1] + [2] * 4
    assert conditions.draw(np.array([3, 7]), np.array([0, 1 - 2**-53])).tolist() == [0, 1]


def test_images_of_records_without_a_known_label_are_left_out_and_counted(tmp_path):
    run = gan_runs.make_gan_run(tmp_path / "run", condition_labels=(LABELS.index("Pneumothorax"),))
    records = fakes.make_records(tmp_path / "labels", label_version="multilabel", per_class=3)
    plan = generation.plan_replicated(loading.load(run), MULTILABEL, seed=0, label_records=records)
    # Of the five cases, two have a pneumothorax.
    assert names(plan) == ["Pneumothorax"] * 6
    assert plan.left_out == {"no label that the GAN is conditioned on": 9}


def test_a_plan_of_a_million_images_has_three_bytes_each(generator):
    plan = generation.plan_vector(generator, V2, "edema", 1_000_000)
    assert plan.codes.nbytes + plan.splits.nbytes == 3_000_000
    assert plan.class_counts == {"No Finding": 0, "Finding": 1_000_000}
    assert (plan.splits == 0).sum() == 800_000


def test_a_table_is_generated_as_given(generator, tmp_path):
    table = write(
        tmp_path / "t.csv",
        "pneumothorax,NO FINDING,Support Devices,count,split,class",
        "1,0,1,2,test,Pneumothorax",
        "0,1.0,0,1,train,No Finding",
        "1,0,0,3,validation,Pneumothorax",
        "0,1,0,0,train,No Finding",
    )
    plan = generation.plan_table(generator, V1_XS, table, seed=0)
    assert names(plan) == ["Pneumothorax|Support Devices"] * 2 + ["No Finding"] + ["Pneumothorax"] * 3
    assert plan.splits.tolist() == [2, 2, 0, 1, 1, 1]
    assert plan.classes.tolist() == [1, 1, 0, 1, 1, 1]


def test_a_table_without_splits_has_a_fifth_of_each_class_as_validation_whatever_its_order(generator, tmp_path):
    table = write(tmp_path / "t.csv", "Edema;Fracture;count", "1;0;400", "0;1;100")
    plan = generation.plan_table(generator, MULTILABEL, table, seed=0)
    validation = collections.Counter(np.array(names(plan))[plan.splits == 1])
    assert sum(validation.values()) == 100
    assert 8 < validation["Fracture"] < 34  # not all 100 of them, which come last
    again = generation.plan_table(generator, MULTILABEL, table, seed=0)
    np.testing.assert_array_equal(again.splits, plan.splits)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["Edema,Pnuemothorax", "1,0"], "line 1, column Pnuemothorax: is no label"),
        (["Edema,Pnuemothorax", "1,0"], "did you mean 'Pneumothorax'?"),
        (["Edema,EDEMA", "1,0"], "line 1, column EDEMA: there are two columns"),
        (["count,split", "1,train"], "line 1: has no column of a label"),
        (["Edema"], "has no rows"),
        (["Edema,count", "1,1", "1,-2"], "line 3, column count: '-2' is no count"),
        (["Edema,count", "1,2.5"], "line 2, column count: '2.5' is no count"),
        (["Edema,count", "1,0"], "asks for no image: all counts are 0"),
        (["Edema,Fracture", "1,0", "0,0"], "line 3: all labels are 0; give each row at least one label"),
        (["Edema,count", "1,999999999999"], "asks for 999999999999 images; a set holds at most 1000000000"),
        (["Edema,Fracture", "1,0", "1,-1"], "line 3, column Fracture: unknown value '-1', expected 0 or 1"),
        (["Edema,Fracture", "1,"], "line 2, column Fracture: unknown value ''"),
        (["Edema,split", "1,valid"], "line 2, column split: unknown value 'valid'"),
        (["Edema,class", "1,Findings"], "line 2, column class: unknown value 'Findings'"),
        (["Edema,class", "1,No Finding"], "line 2, column class: the labels of this row are class 'Finding'"),
        (["Edema,No Finding", "1,0", "1,1"], "line 3: No Finding|Edema is in no class of --label_version=v2"),
        (["Edema", "1,1"], "line 2: has 2 cells"),
    ],
)
def test_faults_of_a_table_name_file_line_and_column(generator, tmp_path, lines, expected):
    table = write(tmp_path / "t.csv", *lines)
    with pytest.raises(InputError) as error:
        generation.plan_table(generator, V2, table, seed=0)
    assert str(table) in str(error.value)
    assert expected in str(error.value)


def test_a_table_may_not_ask_for_what_the_gan_does_not_know(tmp_path):
    run = gan_runs.make_gan_run(tmp_path / "run", condition_labels=(LABELS.index("Edema"),))
    table = write(tmp_path / "t.csv", "Edema,Fracture", "1,0", "1,1")
    with pytest.raises(InputError, match="line 3, column Fracture: the GAN was not conditioned on this label, only on"):
        generation.plan_table(loading.load(run), V2, table, seed=0)
    table = write(tmp_path / "t.csv", "Edema,class", "1,Finding")
    with pytest.raises(InputError, match="line 1, column class: --label_version=multilabel has no classes"):
        generation.plan_table(loading.load(run), MULTILABEL, table, seed=0)
    with pytest.raises(InputError, match="--labels=fracture: the GAN was not conditioned on Fracture, only on Edema"):
        generation.plan_vector(loading.load(run), V2, "fracture", 1)


def call(*arguments):
    return app.run(generate.main, generate.define_flags, ["generate", *arguments])


def test_one_combination_written_to_records(run, tmp_path):
    out = tmp_path / "out"
    arguments = [f"--run_dir={run}", "--label_version=v1_xs", "--label_source=vector", "--num_images=5"]
    assert call(*arguments, "--labels=support devices, Pneumothorax", f"--output_dir={out}") == 0
    rows = [row for split in ("train", "validation") for row in read_records(out, split).as_numpy_iterator()]
    assert [row["label/class"] for row in rows] == [1] * 5
    for row in rows:
        assert set(np.array(LABELS)[row["label/vector"] > 0]) == {"Pneumothorax", "Support Devices"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--label_source=vector", "--num_images=2"], "--labels is required"),
        (["--label_source=vector", "--labels="], "--labels is required"),
        (["--label_source=vector", "--labels=Edema"], "--num_images is required"),
        (["--label_source=vector", "--labels=Edema", "--num_images=-1"], "num_images"),
        (["--label_source=vector", "--labels=,", "--num_images=1"], "unknown label ''"),
        (["--label_source=vector", "--labels=Oedema", "--num_images=1"], "did you mean 'Edema'?"),
        (["--label_source=vector", "--labels=Edema,edema", "--num_images=1"], "'Edema' is given twice"),
        (["--label_source=vector", "--labels=Edema,No Finding", "--num_images=1"], "in no class of --label_version=v2"),
        (["--label_source=vector", "--labels=Edema", "--num_images=9999999999"], "at most 1000000000"),
        (["--label_source=table"], "--label_table is required"),
        (["--label_source=table", "--label_table=absent.csv"], "there is no such file"),
        (["--per_class=2", "--num_images=4"], "--num_images: has no meaning with --label_source=balanced"),
        (["--per_class=2", "--labels=Edema"], "--labels: has no meaning with --label_source=balanced"),
        (["--per_class=2", "--truncation=0"], "must be above 0, at most 1"),
        (["--per_class=2", "--truncation=nan"], "must be above 0, at most 1"),
        (["--per_class=2", "--images_per_shard=0"], "images_per_shard"),
    ],
)
def test_bad_calls_exit_2_in_one_line_and_write_nothing(run, tmp_path, capsys, arguments, expected):
    out = tmp_path / "out"
    assert call(f"--run_dir={run}", "--label_version=v2", *arguments, f"--output_dir={out}") == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert expected in message
    assert list(tmp_path.iterdir()) == []


def test_the_output_may_not_hold_what_is_read(run, tmp_path, capsys):
    table = write(tmp_path / "t.csv", "Edema", "1")
    arguments = ["--label_version=v2", "--label_source=table", f"--label_table={table}"]
    assert call(f"--run_dir={run}", *arguments, f"--output_dir={tmp_path}", "--overwrite") == 2
    assert f"holds --label_table={table}" in capsys.readouterr().err
    assert table.exists()
