"""audit-privacy through its flags: what it writes and says of copies and of honest sets, and bad input."""

import csv
import json

import numpy as np
import pytest

from tests import fakes, gan_runs
from tfcxr import cli, data
from tfcxr.gan import loading as gan_loading
from tfcxr.privacy import audit, membership, planted_copies, space_audit

FAST = ["--features=pixels", "--permutations=199", "--draws=4"]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    return {
        "real": fakes.make_records(root / "real", per_class=80),
        "honest": fakes.make_records(root / "honest", per_class=60, with_patients=False, seed=1, source="synthetic:x"),
        "few": fakes.make_records(root / "few", per_class=8, seed=2),
        "tiny": fakes.make_records(root / "tiny", per_class=4),
        "large": fakes.make_records(root / "large", resolution=16),
    }


def call(*arguments):
    return cli.main(["audit-privacy", *arguments])


def read(folder):
    return json.loads((folder / "result.json").read_text())


def test_the_discriminators_score_of_an_image_is_its_own(tmp_path):
    discriminator = gan_loading.load_discriminator(gan_runs.make_gan_run(tmp_path / "gan"))
    rng = np.random.default_rng(0)
    images, labels = rng.uniform(-1, 1, [7, 8, 8, 1]).astype(np.float32), np.eye(14, dtype=np.float32)[:7]
    scores = audit.score_alone(discriminator, images, labels)  # 7 images are no whole number of groups
    alone = [float(discriminator([images[i : i + 1], labels[i : i + 1]])[0, 0]) for i in range(7)]
    np.testing.assert_allclose(scores, alone, atol=1e-5)
    assert np.ptp(scores) > 1e-3
    np.testing.assert_allclose(audit.score_alone(discriminator, images[2:4], labels[2:4]), scores[2:4], atol=1e-5)


def test_an_honest_set_gets_bounds(sets, tmp_path, capsys):
    run = gan_runs.make_gan_run(tmp_path / "gan")
    out = tmp_path / "out"
    arguments = [f"--synthetic={sets['honest']}", f"--train={sets['real']}", f"--gan_run={run}", *FAST]
    assert call(*arguments, "--reid_steps=3", f"--output_dir={out}") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Patient re-identification, on 80 holdout patients")
    result = read(out)
    recognition = result["reidentification"]
    assert f"AUC {recognition['auc']:.2f}" in printed
    assert recognition["trained_on_patients"] == 40
    assert result["num_images"] == {"synthetic": 120, "train": 160, "holdout": 160}
    assert [space["space"] for space in result["spaces"]] == ["pixels", "reidentification"]
    pixels = result["spaces"][0]
    assert [figure["name"] for figure in pixels["figures"]] == list(space_audit.FIGURES)
    assert not any(figure.get("p_holm", 1) <= 0.05 for figure in pixels["figures"])
    assert [figure["name"] for figure in result["discriminator"]] == list(membership.NAMES)
    assert not result["discriminator"][0]["power"]
    # Of 0.1% of 120 images one copy is planted, which no test can tell from chance; of 10% twelve.
    power = {(p["kind"], p["rate"]): p for p in pixels["figures"][0]["power"]}
    assert power["exact", 0.001]["copies"] == 1
    assert power["exact", 0.001]["detected"] == 0
    assert power["exact", 0.1]["copies"] == 12
    assert power["exact", 0.1]["detected"] == 1
    assert power["exact", 0.1]["interval"][1] == 1
    assert pixels["filter_misses"]["exact"] == 0
    assert pixels["filter_misses"]["noised"] > 0.5
    with (out / "power.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 2 * len(space_audit.FIGURES) * len(planted_copies.KINDS) * 3
    report = (out / "report.md").read_text()
    assert report.index("Can the audit recognise patients?") < report.index("What was found")
    assert "not detectable with this test" in report
    assert "exact copies would have been detected from 10% of the set on" in report
    assert "safe" not in report + printed
    assert "does not say what records its generator learned from" in printed
    assert (out / "report.html").is_file()
    for name in ("copies", "distances-pixels", "power-reidentification"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_copies_are_indicated(sets, tmp_path, capsys):
    arguments = [f"--synthetic={sets['real']}", f"--train={sets['real']}", *FAST, "--reid_steps=0"]
    assert call(*arguments, f"--output_dir={tmp_path / 'out'}") == 0
    assert "Copying of training images is indicated, all figures taken together, by: distance_ratio" in (
        capsys.readouterr().out
    )
    result = read(tmp_path / "out")
    (space,) = result["spaces"]
    figures = {figure["name"]: figure for figure in space["figures"]}
    assert figures["train_share"]["value"] == 1
    assert figures["nearer_than_any_holdout"]["value"] == 1
    assert figures["authenticity"]["value"] == 0
    assert figures["membership_auc"]["value"] == 1
    assert all(figure["indicated"] for figure in figures.values())
    assert space["filter_removes"] == 1
    assert result["reidentification"]["reason"] == "left out by --reid_steps=0"


def test_few_images_and_other_records_are_warned_of(sets, tmp_path):
    info = sets["few"] / "tfcxr_info.json"
    value = json.loads(info.read_text())
    value["provenance"]["trained_on"] = {"records": "f" * 64}
    info.write_text(json.dumps(value))
    arguments = [f"--synthetic={sets['few']}", f"--train={sets['few']}", *FAST, "--draws=1"]
    assert call(*arguments, f"--output_dir={tmp_path / 'out'}") == 0
    result = read(tmp_path / "out")
    warnings = " ".join(result["warnings"])
    assert "learned from other records (digest ffffffffffff, not" in warnings
    assert "the holdout set has 16 images; with fewer than 100" in warnings
    assert "only 8 training patients have two images" in result["reidentification"]["reason"]
    assert np.isfinite([f["p_value"] for f in result["spaces"][0]["figures"]]).all()


def test_bad_input_is_one_line(sets, tmp_path, capsys):
    honest, real = f"--synthetic={sets['honest']}", f"--train={sets['real']}"
    cases = [
        ([honest], ["--train is required"]),
        ([honest, real, "--holdout_split=train"], ["--holdout=", "its train split is the training fold"]),
        (
            [honest, real, f"--holdout={sets['few']}", "--holdout_split=train"],
            ["shares 8 patients with the", "such as train-0-0"],
        ),
        ([honest, real, f"--holdout={sets['large']}"], ["--holdout=", "images are 16 px, not 8"]),
        ([f"--synthetic={sets['large']}", real], ["--synthetic=", "images are 16 px, not 8"]),
        ([f"--synthetic={sets['tiny']}", real], ["--synthetic=", "8 images; at least 10"]),
        ([honest, real, "--features=nothing"], ["--features=nothing: must be pixels"]),
        ([honest, real, f"--gan_run={sets['real']}"], ["config.json"]),
    ]
    capsys.readouterr()
    for arguments, words in cases:
        assert call(*arguments, f"--output_dir={tmp_path / 'out'}") == 2, arguments
        err = capsys.readouterr().err
        assert err.count("\n") == 1, err
        assert all(word in err for word in words), err
        assert not (tmp_path / "out").exists()


@pytest.mark.large  # simulates 700 patients
def test_simulated_patients_are_the_ground_truth(tmp_path, capsys):
    """Images of other patients are honest by construction; copies in disguise of one in ten are not."""
    hospital, records = tmp_path / "hospital", tmp_path / "records"
    assert cli.main(["phantom", f"--output_dir={hospital}", "--num_patients=700", "--resolution=64"]) == 0
    build = ["build-records", "--dataset=chexpert", f"--data_dir={hospital}", "--label_version=multilabel"]
    build += ["--resolution=32", "--split_fractions=0.4,0.3,0.3", f"--output_dir={records}"]
    assert cli.main(build) == 0
    images = {}
    for split in ("train", "validation"):
        rows = data.read_records(records, split).as_numpy_iterator()
        images[split] = np.stack([row["image"] for row in rows])
    honest = images["validation"]
    count = len(honest) // 10
    sets = {"honest": honest}
    for kind in ("exact", "noised", "mirrored"):
        copies = planted_copies.make_copies(images["train"][:count] / np.float32(127.5) - 1, kind, seed=0)
        grey = np.round((copies + 1) * 127.5).astype(np.uint8)
        sets[kind] = np.concatenate([honest[count:], grey])
    found = {}
    for name, pictures in sets.items():
        folder = fakes.write_images(tmp_path / name, pictures[..., 0])
        arguments = [f"--synthetic={folder}", f"--train={records}", "--features=pixels", "--draws=20"]
        assert call(*arguments, "--reid_steps=600", f"--output_dir={tmp_path / f'audit-{name}'}") == 0
        found[name] = read(tmp_path / f"audit-{name}")
        print(name, found[name]["reidentification"], *found[name]["conclusions"], sep="\n")
    figures = {
        (name, space["space"], figure["name"]): figure
        for name, result in found.items()
        for space in result["spaces"]
        for figure in space["figures"]
    }
    recognition = found["honest"]["reidentification"]
    assert recognition["recognises"], recognition
    assert not [key for key, figure in figures.items() if key[0] == "honest" and figure.get("p_holm", 1) <= 0.05]
    for kind in ("exact", "noised"):
        assert figures[kind, "pixels", "distance_ratio"]["p_holm"] <= 0.05, kind
    # Pixels cannot see what was mirrored, and the audit of the honest set has said so.
    assert not figures["mirrored", "pixels", "distance_ratio"]["indicated"]
    power = {(p["kind"], p["rate"]): p["detected"] for p in figures["honest", "pixels", "distance_ratio"]["power"]}
    assert power["exact", 0.1] == power["noised", 0.1] == 1
    assert power["mirrored", 0.1] < 0.2
