"""A label set goes from a table through records, GAN, synthetic set and classifier to exports, by flags alone."""

import csv
import json

import numpy as np
import pytest

from flags import app
from tests import fakes
from tfcxr.commands import build_records, export_model, generate, label_stats, train_baseline, train_gan, verify_records
from tfcxr.gan import loading
from tfrecords_builder import labels, records

NIH = labels.get_label_set("nih14")
SPLIT = ["--split_fractions=0.6,0.4,0"]


def call(module, *arguments):
    return app.run(module.main, module.define_flags, [module.__name__.rpartition(".")[2], *arguments])


def build(data, folder, label_set, version="multilabel"):
    given = [f"--label_set={label_set}"] if label_set else []
    flags = ["--dataset=chestxray", f"--data_dir={data}", *given, f"--label_version={version}"]
    flags += ["--resolution=8", *SPLIT]
    assert call(build_records, *flags, f"--output_dir={folder}") == 0
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """NIH's layout, and of it record sets of nih14 and of chexpert14."""
    root = tmp_path_factory.mktemp("sets")
    data = fakes.make_chestxray(root / "data", num_patients=20, images_per_patient=2)
    build(data, root / "nih", "nih14")
    build(data, root / "chexpert", "")
    return root


def test_records_of_nih14_hold_images_that_chexpert14_has_no_label_for(root, capsys):
    info, other = records.load_info(root / "nih"), records.load_info(root / "chexpert")
    assert info.label_set == NIH and other.label_set == labels.DEFAULT and info.schema_version == 3
    count = {name: sum(s.num_examples for s in i.splits.values()) for name, i in (("nih", info), ("chexpert", other))}
    assert count["nih"] == count["chexpert"] + 1  # the image of a Hernia alone
    assert sum(split.label_counts["Hernia"] for split in info.splits.values()) == 1
    with (root / "nih/manifest.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert all(row["extra"] == "" for row in rows) and sum(row["Hernia"] == "1" for row in rows) == 1
    assert call(verify_records, f"--records={root / 'nih'}") == 0
    assert json.loads((root / "nih/features.json").read_text())
    assert "15 labels" in (root / "nih/DATASHEET.md").read_text()
    # As a data set, records keep their label set.
    flags = ["--dataset=records", "--resolution=8", f"--data_dir={root / 'nih'}", "--label_version=v1_0s"]
    assert call(build_records, *flags, f"--output_dir={root / 'again'}") == 0
    again = records.load_info(root / "again")
    assert again.label_set == NIH and again.classes == ("No Finding", "Pneumothorax")
    capsys.readouterr()
    assert call(build_records, *flags, "--label_set=chexpert14", f"--output_dir={root / 'mixed'}") == 2
    assert "have the labels of nih14; leave it out, or say by --label_map" in capsys.readouterr().err


def test_records_are_mapped_to_another_label_set(root, tmp_path, capsys):
    """By an explicit table; extra findings become labels, labels extra findings, and the pictures stay."""
    given = {"Effusion": "Pleural Effusion", "Pleural Thickening": "Pleural Other", "Mass": "Lung Lesion"}
    given |= dict.fromkeys(("Nodule", "Infiltration", "Emphysema", "Fibrosis", "Hernia"))
    path = tmp_path / "map.json"
    path.write_text(json.dumps(given))
    flags = ["--dataset=records", "--resolution=8", f"--data_dir={root / 'nih'}", "--label_version=multilabel"]
    flags += ["--label_set=chexpert14", "--split_policy=official", f"--label_map={path}"]
    assert call(build_records, *flags, f"--output_dir={tmp_path / 'mapped'}") == 0
    mapped, plain = tmp_path / "mapped", root / "chexpert"
    info = records.load_info(mapped)
    assert info.label_set == labels.DEFAULT and "map.json" in info.provenance["tables"]
    rows = [{row["id"]: row for row in csv.DictReader((folder / "manifest.csv").open())} for folder in (mapped, plain)]
    assert rows[0].keys() == rows[1].keys() and len(rows[0]) == 40
    same = (*labels.DEFAULT.labels, "patient", "extra", "image_digest")
    for image, row in rows[0].items():
        assert {name: row[name] for name in same} == {name: rows[1][image][name] for name in same}
    assert call(verify_records, f"--records={mapped}") == 0
    # And from there to nih14 again; mapped records are trained with those of the other set.
    back = {"Pleural Effusion": "Effusion", "Pleural Other": ["Pleural Thickening"], "Lung Lesion": ["Mass", "Nodule"]}
    names = ("Enlarged Cardiomediastinum", "Lung Opacity", "Fracture", "Support Devices")
    path.write_text(json.dumps(back | dict.fromkeys(names)))
    flags = [*flags[:2], f"--data_dir={mapped}", "--label_version=v1_0s", "--label_set=nih14", *flags[5:]]
    assert call(build_records, *flags, f"--output_dir={tmp_path / 'back'}") == 0
    info = records.load_info(tmp_path / "back")
    counts = {name: sum(split.label_counts[name] for split in info.splits.values()) for name in NIH.labels}
    assert info.label_set == NIH and counts["No Finding"] == counts["Pneumothorax"] == 8
    capsys.readouterr()
    assert call(build_records, *flags, f"--data_dir={root / 'nih'}", f"--output_dir={tmp_path / 'no'}") == 2
    assert "are those of nih14 already; give another --label_set" in capsys.readouterr().err


def test_statistics_of_nih14(root, tmp_path):
    flags = ["--dataset=chestxray", f"--data_dir={root / 'data'}", "--label_set=nih14"]
    assert call(label_stats, *flags, "--label_versions=v1_0s,multilabel", f"--output_dir={tmp_path / 'stats'}") == 0
    with (tmp_path / "stats/label_counts.csv").open(newline="") as stream:
        assert tuple(row["label"] for row in csv.DictReader(stream)) == NIH.labels
    published = json.loads((tmp_path / "stats/result.json").read_text())["published"]
    assert published["not_compared"] == "the published counts are of the labels of chexpert14, these of nih14"


def test_gan_synthetic_set_and_classifier_of_nih14(root, tmp_path, capsys):
    run, synthetic, model = tmp_path / "gan", tmp_path / "synthetic", tmp_path / "model"
    tiny = ["--fmap_base=64", "--fmap_max=8", "--batch_size=8", "--total_kimg=0.016", "--tick_kimg=0.016"]
    assert call(train_gan, f"--records={root / 'nih'}", f"--run_dir={run}", *tiny) == 0
    generator = loading.load(run)
    assert generator.label_set == NIH and generator.network.num_labels == 15
    allowed = [f"--run_dir={run}", "--allow_untrained"]
    flags = ["--label_version=multilabel", "--label_source=records", "--num_images=20"]
    assert call(generate, *allowed, *flags, f"--output_dir={synthetic}") == 0
    assert records.load_info(synthetic).label_set == NIH
    assert call(export_model, *allowed, f"--output_dir={tmp_path / 'export'}") == 0
    assert loading.load(tmp_path / "export").label_set == NIH
    assert (tmp_path / "export/assets/label_names.txt").read_text().split("\n")[:-1] == list(NIH.labels)

    small = ["--backbone=resnet_tiny", "--weights=none", "--image_size=16", "--batch_size=8", "--variant=plain"]
    small += ["--stage2_epochs=1", "--labels=Effusion,Pneumothorax"]
    train = [f"--records={root / 'nih'}", f"--run_dir={model}", *small]
    assert call(train_baseline, *train, f"--extra_records={synthetic}") == 0
    config = json.loads((model / "config.json").read_text())["config"]
    assert labels.make_label_set(config["label_set"]) == NIH and config["classes"] == ["Effusion", "Pneumothorax"]
    capsys.readouterr()
    other = [f"--records={root / 'chexpert'}"]
    for command, arguments in (
        (train_baseline, [*other, f"--extra_records={synthetic}", *small, f"--run_dir={tmp_path / 'x'}"]),
        (generate, [*allowed, *flags, f"--label_records={root / 'chexpert'}", f"--output_dir={tmp_path / 'y'}"]),
        (train_gan, [*other, f"--warm_start={run}", *tiny, f"--run_dir={tmp_path / 'z'}"]),
        (train_gan, [*other, f"--run_dir={run}", *tiny]),
    ):
        assert call(command, *arguments) == 2
        error = capsys.readouterr().err
        assert "label" in error or "records" in error, error
        assert error.count("\n") == 1


def test_evaluation_on_records_of_another_label_set_is_refused(root, tmp_path):
    from tfcxr import data
    from tfrecords_builder.errors import InputError

    record_set = data.RecordSet(root / "chexpert")
    with pytest.raises(InputError, match="has the labels of chexpert14, --model=m those of nih14"):
        record_set.refuse_other_labels(NIH, "--model=m")
    assert data.RecordSet(root / "nih").labels("train")["vector"].shape[1] == 15
    assert np.isin(data.RecordSet(root / "nih").labels("train")["vector"], (0, 1)).all()
