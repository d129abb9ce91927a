"""study through its flags: the tiny study end to end, presets, and what it refuses."""

import csv
import json
import pathlib
import re
import shutil

import pytest

from flags import app
from tests import fakes, study_runs
from tfcxr import cli
from tfcxr.classifiers import choices
from tfcxr.classifiers.adaptation.methods import FORMER_NAMES
from tfcxr.commands import study
from tfcxr.studies import planning
from tfcxr.training import runs
from tfrecords_builder import files
from tools import digits

PRESETS = sorted(path.stem for path in (app.PRESETS / "study").glob("*.flags"))


def call(*arguments):
    return app.run(study.main, study.define_flags, ["study", *arguments])


def flags_of(tiny_study):
    return [f"--flagfile={tiny_study / 'tiny.flags'}", f"--workspace={tiny_study / 'workspace'}"]


def read_rows(folder):
    with (folder / "results.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_whole_chain_ends_in_a_table_made_of_the_evaluations(tiny_study):
    workspace = tiny_study / "workspace"
    folder = workspace / "studies" / "tiny"
    described = json.loads((folder / "study.json").read_text())
    assert described["schema_version"] == 1
    assert described["question"] == "Does the chain hold?"
    assert described["definition"]["cells"] == ["synthetic -> b: none, dcan_noreg"]
    assert described["machine"]["cores"] >= 1
    assert {"tfcxr", "python", "tensorflow", "numpy"} <= described["versions"].keys()
    assert [job["status"] for job in described["jobs"]] == ["done"] * 10
    for job in described["jobs"]:
        assert (workspace / job["output"] / "result.json").is_file()
        assert (workspace / job["log"]).read_text().startswith("$ ")
        assert job["seconds"] > 0
        assert job["command"][:2] == ["tfcxr", job["kind"]]
    rows = read_rows(folder)
    assert len(described["cells"]) == 2
    for cell in described["cells"]:
        result = json.loads((workspace / cell["result"]).read_text())
        mine = [row for row in rows if row["method"] == cell["method"]]
        assert float(mine[0]["value"]) == result["balanced_accuracy"]["value"]
        assert int(mine[0]["num_images"]) == result["num_images"]
        assert {row["status"] for row in mine} == {"done"}
    assert "| synthetic -> b | none/sched |" in (folder / "results.md").read_text()
    assert json.loads((folder / "result.json").read_text())["jobs"] == {
        "done": 10, "failed": 0, "blocked": 0, "missing": 0,
    }  # fmt: skip


def test_the_log_tree_reads_well(tiny_study):
    runs = tiny_study / "workspace" / "runs"
    found = {str(path.parent.relative_to(runs)) for path in runs.rglob("events.out.tfevents.*")}
    names = {re.sub(r"/tensorboard.*", "/tensorboard", name) for name in found}
    assert names == {
        ".",  # the layout of the charts
        "gan-a/tensorboard",
        "v2-synthetic-none-sched-seed0/tensorboard",
        "v2-synthetic-none-sched-seed0/evaluations/b/tensorboard",
        "v2-synthetic-to-b-dcan_noreg-seed0/tensorboard",
        "v2-synthetic-to-b-dcan_noreg-seed0/evaluations/b/tensorboard",
    }


def test_nothing_runs_twice_and_flags_replay(tiny_study, capsys):
    folder = tiny_study / "workspace" / "studies" / "tiny"
    before = (folder / "results.csv").read_text()
    assert call(f"--flagfile={folder / 'flags.txt'}") == 0
    out = capsys.readouterr().out
    assert "10 jobs, 10 done before. Nothing to run." in out
    assert "started" not in out
    assert (folder / "results.csv").read_text() == before


def test_dry_run_says_what_a_changed_flag_affects_and_how_long_it_takes(tiny_study, capsys):
    assert call(*flags_of(tiny_study), "--evaluate_flags=--resamples=21", "--seeds=0,1", "--dry_run") == 0
    out = capsys.readouterr().out
    states = dict(reversed(line.split()) for line in out.splitlines() if re.match(r"(done|changed|missing) ", line))
    assert [name for name, state in states.items() if state == "missing"] == [
        "evaluate-v2-synthetic-none-sched-seed0-on-b",
        "train-baseline-v2-synthetic-none-sched-seed1", "evaluate-v2-synthetic-none-sched-seed1-on-b",
        "evaluate-v2-synthetic-to-b-dcan_noreg-seed0-on-b",
        "train-dcan-v2-synthetic-to-b-dcan_noreg-seed1", "evaluate-v2-synthetic-to-b-dcan_noreg-seed1-on-b",
    ]  # fmt: skip
    beside = re.findall(r"\(written to (\S+), beside what other flags made\)", out)
    run = "runs/v2-synthetic-none-sched-seed0"
    assert len(beside) == 2 and re.fullmatch(rf"{run}/evaluations/b-[0-9a-f]{{6}}", beside[0])
    assert "--overwrite" not in out
    # The evaluations to come have another definition than the finished ones: their time is not known yet.
    assert "14 jobs: 8 done, 6 missing; 4 cells. Expected time: at least" in out
    assert "no evaluate of this study has finished yet" in out


def test_a_variant_of_the_study_lives_beside_it(tiny_study, tmp_path, capsys):
    variant = ["--name=variant", "--adapt_flags=--backbone=resnet_tiny --weights=none --image_size=32 --steps=3"]
    assert call(*flags_of(tiny_study), *variant, "--dry_run") == 0
    out = capsys.readouterr().out
    [adapted] = re.findall(r"written to (\S+), beside", out)
    assert re.fullmatch(r"runs/v2-synthetic-to-b-dcan_noreg-seed0-[0-9a-f]{6}", adapted)
    assert f"--model={tiny_study}/workspace/{adapted} " in out
    assert f"--output_dir={tiny_study}/workspace/{adapted}/evaluations/b\n" in out
    assert "10 jobs: 8 done, 2 missing; 2 cells" in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--generate_flags=--label_source=balanced"], "generate-synthetic-v2: --per_class is required"),
        (
            ["--adapt_flags=--weights=none --image_size=32", "--noadapt_from_baseline"],
            "train-dcan-v2-synthetic-to-b-dcan_noreg-seed0: --weights=none: BatchNorm would run",
        ),
        (["--baseline_flags=--backbone=resnet_tiny"], "--weights=imagenet: there are none for resnet_tiny"),
        (["--gan_flags=--augment=blur"], "train-gan-a: --augment=blur"),
        (["--gan_flags=fast/gan_32"], "from the preset fast/gan_32: choose another preset"),
        (["--gan_flags=fast/gan_32", "--resolution=64"], "from the preset fast/gan_32: give fast/gan_64 instead"),
        (["--generate_flags=--label_source=vector --labels=Support Devices"], "write --labels='Support Devices'"),
        (["--generate_flags=--per_class 10"], "10 stands after --per_class and is no flag; .* write --per_class=10"),
    ],
)
@pytest.mark.parametrize("dry", [["--dry_run"], []])
def test_what_a_later_job_would_refuse_is_said_before_anything_runs(flags, message, dry, tmp_path, capsys):
    arguments = [line for line in study_runs.DEFINITION.splitlines() if line.startswith("--")]
    assert call(*arguments, *flags, f"--workspace={tmp_path / 'w'}", *dry) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("dry", [["--dry_run"], []])
def test_a_table_that_lacks_a_column_is_named_before_anything_runs(dry, tmp_path, capsys):
    fakes.make_chestxray(tmp_path / "nih", num_patients=5)
    [table] = (tmp_path / "nih").glob("Data_Entry*.csv")
    table.write_text(table.read_text().replace("Finding Labels", "Findings", 1))
    preset = ["--flagfile=study/nih_small", f"--data={tmp_path / 'nih'}", f"--workspace={tmp_path / 'w'}"]
    assert call(*preset, *dry) == 2
    assert f"{table}: has no column 'Finding Labels'" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("dry", [["--dry_run"], []])
def test_a_class_of_which_a_table_has_no_row_is_named_before_anything_runs(dry, tmp_path, capsys):
    fakes.make_chestxray(tmp_path / "nih", num_patients=5)
    [table] = (tmp_path / "nih").glob("Data_Entry*.csv")
    table.write_text(table.read_text().replace("Cardiomegaly", "Hernia"))
    arguments = [
        "--name=one", "--records=nih: --dataset=chestxray", f"--data={tmp_path / 'nih'}", "--resolution=16",
        "--cells=nih -> nih: none/plain", "--baseline_flags=--backbone=resnet_tiny --weights=none --image_size=32",
        f"--workspace={tmp_path / 'w'}", *dry,
    ]  # fmt: skip
    assert call(*arguments, "--label_versions=v3_0s") == 2
    assert (
        f"error: build-records-nih-v3_0s: --label_version=v3_0s: no row of {table} is in class 'Cardiomegaly'; choose "
        "another label version\n"
    ) in capsys.readouterr().err
    assert not (tmp_path / "w").exists()
    if dry:
        assert call(*arguments, "--label_versions=v2") == 0


def test_folders_that_are_given_again_add_up(tmp_path, capsys):
    for name in "abc":
        fakes.make_chestxray(tmp_path / name, num_patients=5)
    data = {name: f"--data={name}:{tmp_path / name}" for name in "ab"}
    arguments = [
        "--name=two", "--records=a: --dataset=chestxray", "--records=b: --dataset=chestxray", "--label_versions=v2",
        "--cells=a -> b: none/plain", "--baseline_flags=--backbone=resnet_tiny --weights=none --image_size=32",
        f"--workspace={tmp_path / 'w'}", "--dry_run",
    ]  # fmt: skip
    assert call(*arguments, *data.values()) == 0
    assert f"--data_dir={tmp_path / 'a'}" in (planned := capsys.readouterr().out)
    assert call(*arguments, f"{data['a']},b:{tmp_path / 'b'}") == 0
    assert capsys.readouterr().out == planned
    assert call(*arguments, *data.values(), f"--data=a:{tmp_path / 'c'}") == 2
    assert f"--data: a has two folders, {tmp_path / 'a'} and {tmp_path / 'c'}" in capsys.readouterr().err


@pytest.fixture
def copied(tiny_study, tmp_path):
    """The tiny study in a place where it may be damaged."""
    shutil.copytree(tiny_study, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_number_without_its_run_is_empty_and_marked_never_filled(copied, monkeypatch, capsys):
    folder = copied / "workspace" / "studies" / "tiny"
    lost = copied / "workspace" / "runs" / "v2-synthetic-to-b-dcan_noreg-seed0" / "evaluations" / "b"
    old = read_rows(folder)
    (lost / "result.json").unlink()
    # The evaluation cannot be made again: all commands fail.
    monkeypatch.setattr(
        "tfcxr.studies.planning.command", lambda *_: ["/bin/sh", "-c", "echo 'error: gone' >&2; exit 1"]
    )
    assert call(*flags_of(copied)) == 1
    rows = read_rows(folder)
    assert [row for row in rows if row["method"] == "none"] == [row for row in old if row["method"] == "none"]
    [row] = [row for row in rows if row["method"] == "dcan_noreg"]
    assert (row["value"], row["status"]) == ("", "failed: gone")
    assert "| synthetic -> b | dcan_noreg | – | – | no result: failed: gone |" in (folder / "results.md").read_text()
    cells = json.loads((folder / "study.json").read_text())["cells"]
    assert [cell["result"] is None for cell in cells] == [False, True]
    err = capsys.readouterr().err
    assert err.startswith("error: 1 of 10 jobs are not done: evaluate-v2-synthetic-to-b-dcan_noreg-seed0-on-b; see ")
    assert err.count("\n") == 1


def test_a_result_put_there_by_hand_is_not_taken_for_the_study_s(copied, monkeypatch):
    folder = copied / "workspace" / "studies" / "tiny"
    result = copied / "workspace" / "runs" / "v2-synthetic-to-b-dcan_noreg-seed0" / "evaluations" / "b" / "result.json"
    values = json.loads(result.read_text())
    values["balanced_accuracy"]["value"] = 0.987
    (result.parent / "flags.txt").write_text("--resamples=7\n")
    files.write_json(result, values)
    monkeypatch.setattr("tfcxr.studies.planning.command", lambda *_: ["/bin/sh", "-c", "exit 1"])
    assert call(*flags_of(copied)) == 1
    assert "0.987" not in (folder / "results.csv").read_text()


def test_what_the_commands_made_without_the_study_is_taken_over(copied, capsys):
    # The flags of the jobs hold paths, so that the place must be the same.
    workspace = copied / "workspace"
    for path in workspace.rglob("flags.txt"):
        path.write_text(path.read_text().replace(str(copied.parent.parent), "?"))
    for stamp in workspace.rglob(".*.job.json"):
        stamp.unlink()
    for path in workspace.rglob("flags.txt"):
        text = path.read_text()
        original = next((line for line in text.splitlines() if "/workspace/" in line), "")
        old = original.partition("=")[2].partition("/workspace/")[0]
        path.write_text(text.replace(f"{old}/workspace/", f"{workspace}/") if old else text)
    assert call(*flags_of(copied)) == 0
    assert "10 jobs, 10 done before. Nothing to run." in capsys.readouterr().out
    jobs = json.loads((workspace / "studies" / "tiny" / "study.json").read_text())["jobs"]
    assert {job["status"] for job in jobs} == {"done"}
    assert {job["seconds"] for job in jobs} == {None}


def test_what_other_flags_made_is_not_replaced(copied, capsys):
    for stamp in (copied / "workspace").rglob(".*.job.json"):
        stamp.unlink()
    # All paths in the flags.txt of the copy are those of the original.
    assert call(*flags_of(copied), "--dry_run") == 0
    out = capsys.readouterr().out
    assert re.search(
        r"missing    phantom-a\n.*\n +\(written to data/a-[0-9a-f]{6}, beside what other flags made\)", out
    )
    assert "10 jobs: 10 missing" in out


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_can_be_planned(preset, tmp_path, capsys, monkeypatch):
    weights = tmp_path / "keras" / "models" / pathlib.Path(choices.BACKBONES["resnet50"].imagenet).name
    weights.parent.mkdir(parents=True)
    weights.touch()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    text = (app.PRESETS / "study" / f"{preset}.flags").read_text()
    layouts = {"chexpert": fakes.make_chexpert, "chestxray8": fakes.make_chestxray, "nih": fakes.make_chestxray}
    layouts |= dict.fromkeys(("real", "n50", "n200", "n800"), fakes.make_chexpert)
    data, more = [], []
    if preset == "digits":
        folder = tmp_path / "digits"
        assert app.run(digits.main, digits.define_flags, ["digits", f"--output_dir={folder}"]) == 0
        data, more = [f"{name}:{folder / name}" for name in ("source", "target")], [f"{folder}/versions.json"]
        capsys.readouterr()
    if "--records=kermany:" in text:
        data = [f"kermany:{fakes.make_kermany(tmp_path / 'kermany')}"]
    for name in re.findall(r"^--records=(\S+):", text, re.MULTILINE):
        if f"--phantom={name}:" not in text and preset != "digits" and name != "kermany":
            layouts[name.split("-")[0]](tmp_path / name, num_patients=5)
            data.append(f"{name}:{tmp_path / name}")
            if name.endswith("-ap"):
                [table] = (tmp_path / name).glob("Data_Entry*.csv")
                table.write_text(table.read_text().replace(",PA,", ",AP,"))
    given = [f"--data={','.join(data)}"] if data else []
    given += [f"--label_versions_file={file}" for file in more]
    assert call(f"--flagfile=study/{preset}", f"--workspace={tmp_path}", *given, "--dry_run") == 0
    out = capsys.readouterr().out
    jobs, cells = (int(number) for number in re.search(r"(\d+) jobs: .* (\d+) cells", out).groups())
    expected = {
        "phantom": (17, 6), "digits": (30, 14), "kermany": (132, 63), "phantom_adaptation": (64, 30),
        "kermany_labels": (64, 27), "kermany_64": (48, 21), "kermany_volume": (76, 30),
        "kermany_imagenet": (19, 9), "hospitals": (20, 10), "hospitals_32": (32, 15),
        "brain": (24, 9), "benchmark_classes": (68, 24), "benchmark_samples": (51, 18),
        "nih_small": (47, 18), "nih_real": (95, 48), "nih_adapted": (40, 18), "nih_labels": (14, 4),
        "nih_adapted_middle": (24, 9), "nih_pretraining": (76, 36),
        "thesis_counts": (2, 0), "thesis_5_8": (21, 12),
        "thesis_5_9": (37, 24), "thesis_5_10": (28, 12), "thesis_5_11": (12, 4), "thesis_5_12": (12, 4),
        "thesis_5_13": (20, 8), "thesis_5_14": (12, 4),
    }  # fmt: skip
    assert (jobs, cells) == expected[preset]
    assert not (tmp_path / "studies").exists()


@pytest.mark.parametrize("folder", ["demo", "nih_small"])
def test_an_adaptation_draws_its_classes_as_the_baseline_that_it_is_compared_with(folder):
    for command in ("train_baseline", "train_dcan"):
        assert "--balanced\n" in (app.PRESETS / folder / f"{command}.flags").read_text()


def test_the_presets_of_the_thesis_have_the_cells_that_it_prints(shared_dir, tmp_path):
    with (shared_dir / "spec" / "thesis_results.csv").open(newline="") as stream:
        printed = list(csv.DictReader(stream))
    from absl import flags

    for preset in PRESETS:
        if not (number := re.fullmatch(r"thesis_(5_\d+)", preset)):
            continue
        fv = flags.FlagValues()
        study.define_flags(fv)
        path = app.PRESETS / "study" / f"{preset}.flags"
        fv(["study", f"--flagfile={path}", f"--data={tmp_path}"])
        found = {
            (cell.label_version, cell.source, cell.target, cell.method if not baseline else f"baseline/{cell.variant}")
            for baseline in (number[1] in ("5_8", "5_9"),)
            for cell in study._definition(fv).list_cells(None)
        }
        table = number[1].replace("_", ".")
        assert (fv.table, fv.resolution, fv.gan_flags) == (table, 256, "reference/gan_256")
        assert found == {
            (row["version"], row["source"], row["target"], FORMER_NAMES.get(row["method"], row["method"]))
            for row in printed
            if row["table"] == table
        }


def test_a_folder_of_something_else_is_refused(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    arguments = ["--flagfile=study/phantom", f"--workspace={tmp_path}", f"--output_dir={tmp_path / 'mine'}"]
    assert call(*arguments) == 2
    assert "holds something else than a study" in capsys.readouterr().err
    (tmp_path / "mine" / "study.json").write_text('{"name": "other"}')
    assert call(*arguments) == 2
    assert "holds study other, not phantom" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["notes.txt", "study.json"]


def test_a_name_is_needed(capsys):
    assert cli.main(["study"]) == 2
    assert "--name is required" in capsys.readouterr().err


def test_what_is_shipped_is_listed_as_package_data():
    text = (pathlib.Path(__file__).parents[3] / "setup.cfg").read_text()
    assert "studies/thesis_results.csv" in text


def test_all_that_a_study_wrote_may_be_overwritten(tiny_study):
    folders = [path.parent for path in tiny_study.rglob("flags.txt") if not path.parent.match("studies/*")]
    kinds = set()
    for folder in folders:
        if (folder / "checkpoints").is_dir():
            kinds.add(runs.load_config(folder)["kind"])
            runs.refuse_foreign(folder)
        else:
            files.check_output(folder, overwrite=True)
    assert kinds == {"gan", "baseline", "dcan"}
    assert len(folders) == 10


def test_one_job_runs_only_if_what_it_needs_is_finished_and_collect_runs_none(tmp_path, capsys):
    workspace = tmp_path / "workspace"
    definition = [f"--flagfile={study_runs.write_definition(tmp_path)}", f"--workspace={workspace}"]
    assert call(*definition, "--only=build-records-a-multilabel") == 1
    assert "needs what is not finished: phantom-a (missing); run that first" in capsys.readouterr().err
    assert not (workspace / "data").exists()
    assert call(*definition, "--only=phantom-a") == 0
    assert call(*definition, "--only=phantom-a") == 0
    assert "phantom-a: done before" in capsys.readouterr().out
    folder = workspace / "studies" / "tiny"
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["phantom-a.log"]
    # A training that was cut off is not generated from.
    (workspace / "runs" / "gan-a").mkdir(parents=True)
    stamp = files.read_json(workspace / "data" / ".a.job.json")
    defined = study._definition(app.parse(study.define_flags, ["study", *definition]))
    key = planning.plan(defined, study._resolve).jobs["train-gan-a"].key
    files.write_json(workspace / "runs" / ".gan-a.job.json", stamp | {"key": key, "result_digest": None})
    assert call(*definition, "--only=generate-synthetic-v2") == 1
    assert "train-gan-a (unfinished)" in capsys.readouterr().err
    assert call(*definition, "--only=phantom-c") == 2
    assert "did you mean phantom-" in capsys.readouterr().err

    assert call(*definition, "--collect") == 1
    error = capsys.readouterr().err
    assert "9 of 10 jobs are not done: build-records-a-multilabel" in error
    assert [row["status"] for row in read_rows(folder)] == ["missing", "missing"]
    jobs = json.loads((folder / "study.json").read_text())["jobs"]
    assert [job["id"] for job in jobs if job["status"] == "done"] == ["phantom-a"]
    assert jobs[0]["seconds"] > 0 and jobs[0]["log"] == "studies/tiny/logs/phantom-a.log"
    assert not (workspace / "records").exists()
    assert "collect" not in (folder / "flags.txt").read_text()
