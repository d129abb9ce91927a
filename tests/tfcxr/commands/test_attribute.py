"""attribute: occlusion against a loop and a known network, agreement by hand, and the command through its flags."""

import csv
import json
import types

import numpy as np
import pytest
import tensorflow as tf

from tests import classifier_runs
from tfcxr import attribution, cli, data
from tfcxr.classifiers import inference, loading


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("attribute")
    records = classifier_runs.make_records(root / "records")
    for seed, name in enumerate(("first", "second")):
        classifier_runs.make_classifier_run(root / name, records, seed=seed)
    return root


def call(*arguments):
    return cli.main(["attribute", *arguments])


def test_occlusion_of_a_network_that_sees_one_corner(monkeypatch):
    # The logit of class 1 is the sum of the upper left 4 x 4 pixels, that of class 0 nothing.
    def compute(_, images, *, path):
        corner = tf.reduce_sum(images[:, :4, :4, 0], axis=[1, 2])
        return None, tf.stack([tf.zeros_like(corner), corner], axis=1)

    monkeypatch.setattr(inference, "compute", compute)
    image = np.zeros([1, 10, 10, 1], np.float32)
    image[0, :4, :4] = 1
    occlude = attribution.make_occlusion(types.SimpleNamespace(), 10, 4)
    maps = occlude(np.repeat(image, 2, axis=0), np.array([1, 0])).numpy()
    assert maps.shape == (2, 3, 3)
    expected = np.zeros([3, 3])
    expected[0, 0] = 16 * (1 - 0.16)  # covered by the mean, 0.16
    np.testing.assert_allclose(maps[0], expected, atol=1e-5)
    np.testing.assert_array_equal(maps[1], 0)


def test_occlusion_equals_a_loop_over_blocks(made):
    network = loading.load_network(made / "first")
    images = np.random.default_rng(0).random([2, 16, 16, 1], np.float32)
    maps = attribution.make_occlusion(network, 16, 6)(images, np.array([0, 1])).numpy()
    for number, class_id in enumerate((0, 1)):

        def logit(image, class_id=class_id):
            return inference.compute(network, tf.constant(image[None]), path="target")[1].numpy()[0, class_id]

        for row in range(3):
            for column in range(3):
                covered = images[number].copy()
                covered[6 * row : 6 * row + 6, 6 * column : 6 * column + 6] = images[number].mean()
                assert maps[number, row, column] == pytest.approx(logit(images[number]) - logit(covered), abs=2e-3)


def test_agreement_by_hand():
    first = np.arange(20.0).reshape(4, 5)
    assert attribution.agreement(first, 2 * first + 1) == {"spearman": pytest.approx(1), "iou": 1}
    assert attribution.agreement(first, -first) == {"spearman": pytest.approx(-1), "iou": 0}
    # The highest two are 18 and 19, and 17 and 19: one of three is shared.
    second = first.copy()
    second[3, 2], second[3, 3] = 18.5, 16.5
    assert attribution.agreement(first, second)["iou"] == pytest.approx(1 / 3)
    assert np.isnan(attribution.agreement(first, np.ones([4, 5]))["spearman"])


def test_the_command(made, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [f"--models={made / 'first'},{made / 'second'}", f"--records={made / 'records'}", "--block_size=4"]
    assert call(*arguments, "--num_images=8", f"--output_dir={out}") == 0
    printed = capsys.readouterr().out
    result = json.loads((out / "result.json").read_text())
    with (out / "attributions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 16
    known = {row["image/id"].decode(): row for row in data.read_records(made / "records", "test").as_numpy_iterator()}
    names = data.RecordSet(made / "records").info.classes
    assert all(row["class"] == names[known[row["id"]]["label/class"]] for row in rows)
    values = [float(row["spearman"]) for row in rows if row["method"] == "occlusion"]
    found = result["agreement"]["occlusion"]["spearman"]
    assert found["value"] == pytest.approx(np.mean(values))
    assert found["ci95"][0] <= found["value"] <= found["ci95"][1]
    assert f"occlusion spearman: {found['value']:.3f} (" in printed
    assert f"{found['value']:.3f}" in (out / "report.md").read_text()
    assert (out / "maps.png").read_bytes().startswith(b"\x89PNG")


def test_a_model_agrees_with_itself(made, tmp_path):
    arguments = [f"--models={made / 'first'},{made / 'first'}", f"--records={made / 'records'}", "--num_images=4"]
    assert call(*arguments, "--block_size=4", f"--output_dir={tmp_path / 'out'}") == 0
    result = json.loads((tmp_path / "out/result.json").read_text())["agreement"]
    assert result["occlusion"]["spearman"]["value"] == pytest.approx(1)
    assert result["occlusion"]["iou"]["value"] == 1
    assert result["occlusion"]["iou_other_image"]["value"] < 1


def test_bad_input_is_one_line(made, tmp_path, capsys):
    other_records = classifier_runs.make_records(tmp_path / "v1", label_version="v1_0s")
    other = classifier_runs.make_classifier_run(tmp_path / "other", other_records)
    both, records = f"--models={made / 'first'},{made / 'second'}", f"--records={made / 'records'}"
    cases = [
        ([f"--models={made / 'first'}", records], ["models", "give two classifiers"]),
        (
            [f"--models={made / 'first'},{other}", records],
            ["--models=", "the classes of the first are No Finding, Fin"],
        ),
        ([both, records, "--block_size=17"], ["--block_size=17", "16 px"]),
        ([both, records, "--class_name=Edema"], ["--class_name=Edema", "No Finding, Finding"]),
        (
            [both, f"--records={other_records}"],
            ["--records=", "No Finding, Pneumothorax, those of the models No Finding, Finding"],
        ),
        ([both], ["--records is required"]),
    ]
    capsys.readouterr()
    for arguments, words in cases:
        assert call(*arguments, f"--output_dir={tmp_path / 'out'}") == 2, arguments
        err = capsys.readouterr().err
        assert err.count("\n") == 1, err
        assert all(word in err for word in words), err
        assert not (tmp_path / "out").exists()
