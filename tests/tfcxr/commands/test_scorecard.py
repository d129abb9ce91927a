"""scorecard through its flags: what it gathers, says is unknown and refuses, and what the set then says of itself."""

import json

import pytest

from tests import classifier_runs, fakes, gan_runs
from tfcxr import cli
from tfrecords_builder import files, records
from tfrecords_builder.records import scorecards


def run(command, *arguments):
    return cli.main([command, *arguments])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A GAN, its set, real records, and outputs of compare-sets, audit-privacy and evaluate."""
    root = tmp_path_factory.mktemp("scorecard")
    gan = gan_runs.make_gan_run(root / "gan")
    real = fakes.make_records(root / "real", per_class=60)
    config = json.loads((gan / "config.json").read_text())
    del config["sha256"]
    config["records"] = {"records": records.load_info(real).digest}
    (gan / "config.json").write_text(json.dumps(config))
    arguments = [f"--run_dir={gan}", "--label_version=v1_0s", "--per_class=75", f"--output_dir={root / 'set'}"]
    assert run("generate", *arguments) == 0
    classifier_runs.make_classifier_run(root / "learner", root / "set")
    other = classifier_runs.make_classifier_run(root / "other", real, seed=1)
    sets = [f"--synthetic={root / 'set'}", f"--holdout={real}"]
    arguments = [*sets, f"--real={real}", "--features=texture", "--resamples=5", f"--classifier={other}"]
    assert run("compare-sets", *arguments, f"--output_dir={root / 'comparison'}") == 0
    arguments = [*sets, f"--train={real}", "--features=pixels", "--permutations=199", "--draws=1", "--reid_steps=0"]
    assert run("audit-privacy", *arguments, f"--output_dir={root / 'audit'}") == 0
    for name in ("learner", "other"):
        arguments = [
            f"--model={root / name}",
            f"--records={real}",
            "--resamples=20",
            f"--output_dir={root}/eval_{name}",
        ]
        assert run("evaluate", *arguments) == 0
    return root


def copy_set(made, folder):
    arguments = [f"--run_dir={made / 'gan'}", "--label_version=v1_0s", "--per_class=75", f"--output_dir={folder}"]
    assert run("generate", *arguments) == 0
    return folder


def test_a_new_set_says_that_it_is_not_audited(made):
    card = scorecards.read(made / "set", "--set")
    assert card["audited"] == "no"
    assert card["set"]["digest"] == records.load_info(made / "set").digest
    datasheet = (made / "set/DATASHEET.md").read_text()
    assert "## Scorecard" in datasheet
    assert "audited: no. There is no scorecard of this set" in datasheet
    assert "## Scorecard" not in (made / "real/DATASHEET.md").read_text()


def test_the_whole_card(made, tmp_path, capsys):
    folder, out = copy_set(made, tmp_path / "set"), tmp_path / "card"
    before = records.load_info(folder)
    arguments = [f"--synthetic_set={folder}", f"--comparison={made / 'comparison'}", f"--audit={made / 'audit'}"]
    arguments += [f"--evaluation={made / 'eval_learner'},{made / 'eval_other'}", "--intended_use=Tests only."]
    capsys.readouterr()
    assert run("scorecard", *arguments, f"--output_dir={out}") == 0
    printed = capsys.readouterr().out
    card = json.loads((out / "scorecard.json").read_text())
    assert card["audited"] == "yes"
    assert card["intended_use"] == "Tests only."
    compared = json.loads((made / "comparison/result.json").read_text())
    (fidelity,) = card["fidelity"]
    figure = fidelity["figures"]["fid"]
    assert figure["synthetic"] == compared["metrics"]["synthetic"]["fid/texture"]
    assert figure["holdout"] == compared["metrics"]["holdout"]["fid/texture"]
    assert figure["interval"] == compared["intervals"]["synthetic"]["fid/texture"]
    shares = [group["near_duplicates"]["synthetic"] for group in compared["groups"]]
    assert fidelity["figures"]["near_duplicates"]["synthetic"] == pytest.approx(sum(shares) / len(shares))
    assert fidelity["label_agreement"]["synthetic"] == compared["label_agreement"]["synthetic"]["all"]
    roles = {one["model"]: one["role"] for one in card["utility"]}
    assert roles == {"learner": "trained on this set", "other": "reference"}
    evaluated = json.loads((made / "eval_learner/result.json").read_text())
    assert card["utility"][0]["value"] == evaluated["balanced_accuracy"]["value"]
    (privacy,) = card["privacy"]
    assert privacy["conclusions"] == json.loads((made / "audit/result.json").read_text())["conclusions"]
    unknown = " ".join(card["unknown"])
    assert "Whether patients can be recognised is unknown" in unknown
    assert "discriminator gives away is unknown" in unknown
    for known in ("close the images", "perfect generator", "labels say", "classifier learns", "gives away patients"):
        assert known not in unknown
    assert "Tests only." in (out / "report.md").read_text()
    assert (out / "report.html").is_file()
    assert f"fid {figure['synthetic']:.4g} (held-out real {figure['holdout']:.4g})" in printed
    # The set carries it; its records and their description are as before.
    assert json.loads((folder / "scorecard.json").read_text()) == card
    datasheet = (folder / "DATASHEET.md").read_text()
    assert "- audited: yes\n" in datasheet
    assert "There is no scorecard" not in datasheet
    assert f"fid {figure['synthetic']:.4g}" in datasheet
    assert records.load_info(folder) == before
    assert run("verify-records", f"--records={folder}") == 0
    # The model card of its generator carries it, too, and that of another does not.
    arguments = [f"--run_dir={made / 'gan'}", f"--scorecard={out}", f"--output_dir={tmp_path / 'export'}"]
    assert run("export-model", *arguments) == 0
    model_card = (tmp_path / "export/assets/model_card.md").read_text()
    assert "- audited: yes\n" in model_card
    assert f"fid {figure['synthetic']:.4g}" in model_card
    # Nothing was added to the folder that its list does not know.
    files.check_output(folder, overwrite=True)


def test_gaps_of_a_report_of_utility(made, tmp_path):
    utility, out = tmp_path / "utility", tmp_path / "card"
    arguments = [f"--records={made / 'real'}", f"--real={made / 'eval_other'}", f"--synthetic={made / 'eval_learner'}"]
    assert run("utility", *arguments, "--resamples=20", f"--output_dir={utility}") == 0
    arguments = [f"--synthetic_set={made / 'set'}", f"--utility={utility}", "--noattach", f"--output_dir={out}"]
    assert run("scorecard", *arguments) == 0
    card, result = json.loads((out / "scorecard.json").read_text()), json.loads((utility / "result.json").read_text())
    (gaps,) = card["gaps"]
    assert gaps["of_set"] == ["synthetic"]
    assert gaps["gaps"] == result["gaps"]
    unknown = " ".join(card["unknown"])
    assert "classifier learns" not in unknown
    assert "groups by sex" not in unknown  # there are gaps by view
    points = f"{100 * result['gaps'][0]['value']:+.1f}"
    assert any(f"trained on synthetic ones, against real images: {points} points" in line for line in card["lines"])
    assert f"| balanced accuracy | {points} (" in (out / "report.md").read_text()
    # Of another set it is refused.
    result["arms"]["synthetic"]["trained_on"] = ["f" * 64]
    (utility / "result.json").write_text(json.dumps(result))
    assert run("scorecard", *arguments[:3], f"--output_dir={tmp_path / 'other'}") == 2


def test_what_was_not_measured_is_said_to_be_unknown(made, tmp_path):
    datasheet = (made / "set/DATASHEET.md").read_bytes()
    out = tmp_path / "card"
    assert run("scorecard", f"--synthetic_set={made / 'set'}", "--noattach", f"--output_dir={out}") == 0
    card = json.loads((out / "scorecard.json").read_text())
    assert card["audited"] == "no"
    words = ("how diverse", "labels say", "classifier learns", "gives away patients")
    for word, sentence in zip(words, card["unknown"], strict=False):
        assert word in sentence
        assert "unknown" in sentence
    report = (out / "report.md").read_text()
    assert report.count("Unknown: not measured.") == 3
    assert "no: unknown" in report
    assert (made / "set/DATASHEET.md").read_bytes() == datasheet


def test_an_audit_against_other_records_is_none(made, tmp_path):
    audit = tmp_path / "audit"
    audit.mkdir()
    result = json.loads((made / "audit/result.json").read_text())
    result["sets"]["train"]["digest"] = "f" * 64
    (audit / "result.json").write_text(json.dumps(result))
    arguments = [f"--synthetic_set={made / 'set'}", f"--audit={audit}", "--noattach"]
    assert run("scorecard", *arguments, f"--output_dir={tmp_path / 'card'}") == 0
    card = json.loads((tmp_path / "card/scorecard.json").read_text())
    assert card["audited"] == "no"
    assert any("the audit looked for copies of other records" in sentence for sentence in card["unknown"])
    assert "| the privacy audit | no: unknown |" in (tmp_path / "card/report.md").read_text()


def test_bad_input_is_one_line(made, tmp_path, capsys):
    other = tmp_path / "other_set"
    arguments = [f"--run_dir={made / 'gan'}", "--label_version=v1_0s", "--per_class=4", "--seed=5"]
    assert run("generate", *arguments, f"--output_dir={other}") == 0
    one = f"--synthetic_set={made / 'set'}"
    gan = gan_runs.make_gan_run(tmp_path / "gan2", images_shown=3000)
    foreign = json.loads((made / "set/scorecard.json").read_text())
    foreign["set"]["generator_sha256"] = "0" * 64
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/scorecard.json").write_text(json.dumps(foreign))
    cases = [
        ("scorecard", [], ["--synthetic_set is required"]),
        ("scorecard", [f"--synthetic_set={made / 'real'}"], ["--synthetic_set=", "is no synthetic set"]),
        ("scorecard", [f"--synthetic_set={other}", f"--comparison={made / 'comparison'}"], ["is of another set"]),
        ("scorecard", [f"--synthetic_set={other}", f"--audit={made / 'audit'}"], ["--audit=", "is of another set"]),
        ("scorecard", [one, f"--audit={made / 'comparison'}"], ["--audit=", "is no output of", "audit-privacy"]),
        ("scorecard", [one, f"--comparison={tmp_path}"], ["result.json", "cannot be read"]),
        ("scorecard", [one, f"--evaluation={made / 'eval_other'}"], ["--evaluation=", "is neither of a classifier"]),
        ("export-model", [f"--run_dir={gan}", f"--scorecard={tmp_path / 'foreign'}"], ["another generator drew"]),
        ("export-model", [f"--run_dir={gan}", f"--scorecard={made}"], ["--scorecard=", "holds no scorecard.json"]),
        ("export-model", [f"--run_dir={made / 'other'}", f"--scorecard={made / 'set'}"], ["is for GANs"]),
    ]
    capsys.readouterr()
    for command, arguments, words in cases:
        assert run(command, *arguments, f"--output_dir={tmp_path / 'out'}") == 2, (command, arguments)
        err = capsys.readouterr().err
        assert err.count("\n") == 1, err
        assert all(word in err for word in words), err
        assert not (tmp_path / "out").exists()
