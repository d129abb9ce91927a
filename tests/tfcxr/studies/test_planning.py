"""A definition as a graph: which jobs, on what they depend, whom a changed flag affects, and what is refused."""

import signal
import subprocess
import time

import pytest
from absl import flags as absl_flags

from tests import fakes, study_runs
from tfcxr import cli
from tfcxr.commands import evaluate, study
from tfcxr.studies import numerics, planning
from tfrecords_builder.errors import InputError

TINY = [line for line in study_runs.DEFINITION.splitlines() if line.startswith("--")]


def plan(*flags, without=()):
    fv = absl_flags.FlagValues()
    study.define_flags(fv)
    fv(["study", *(line for line in TINY if not line.startswith(tuple(without))), *flags])
    return planning.plan(study._definition(fv), study._resolve)


def test_the_chain():
    graph = plan()
    baseline, adapted = "v2-synthetic-none-sched-seed0", "v2-synthetic-to-b-dcan_noreg-seed0"
    assert {job.id: list(job.inputs.values()) for job in graph.jobs.values()} == {
        "phantom-a": [],
        "build-records-a-multilabel": ["phantom-a"],
        "train-gan-a": ["build-records-a-multilabel"],
        "generate-synthetic-v2": ["train-gan-a"],
        f"train-baseline-{baseline}": ["generate-synthetic-v2"],
        "phantom-b": [],
        "build-records-b-v2": ["phantom-b"],
        f"evaluate-{baseline}-on-b": [f"train-baseline-{baseline}", "build-records-b-v2"],
        f"train-dcan-{adapted}": ["generate-synthetic-v2", "build-records-b-v2", f"train-baseline-{baseline}"],
        f"evaluate-{adapted}-on-b": [f"train-dcan-{adapted}", "build-records-b-v2"],
    }
    assert [job.output for job in graph.jobs.values()] == [
        "data/a", "records/a/multilabel/8", "runs/gan-a", "records/synthetic/v2/8", f"runs/{baseline}",
        "data/b", "records/b/v2/8", "evaluations/b", f"runs/{adapted}", "evaluations/b",
    ]  # fmt: skip
    assert {job.id: job.inside for job in graph.jobs.values() if job.inside} == {
        f"evaluate-{baseline}-on-b": f"train-baseline-{baseline}",
        f"evaluate-{adapted}-on-b": f"train-dcan-{adapted}",
    }
    assert graph.jobs[f"train-dcan-{adapted}"].former_output == "runs/v2-synthetic-to-b-ours-seed0"
    assert [(cell.method, cell.variant, training) for cell, training, _ in graph.cells] == [
        ("none", "sched", f"train-baseline-{baseline}"),
        ("dcan_noreg", None, f"train-dcan-{adapted}"),
    ]


def test_commands_parse_with_the_paths_of_the_workspace():
    graph = plan()
    outputs = {job.id: f"w/{job.output}" for job in graph.jobs.values()}
    job = graph.jobs["train-dcan-v2-synthetic-to-b-dcan_noreg-seed0"]
    assert planning.command(job, outputs, "--overwrite")[1:] == [
        "-m", "tfcxr.cli", "train-dcan", "--backbone=resnet_tiny", "--weights=none", "--image_size=32", "--steps=2",
        "--eval_every=2", "--batch_size=4", "--alignment=dcan_noreg", "--seed=0",
        "--source_records=w/records/synthetic/v2/8", "--target_records=w/records/b/v2/8",
        "--init_from=w/runs/v2-synthetic-none-sched-seed0", "--run_dir=w/runs/v2-synthetic-to-b-dcan_noreg-seed0",
        "--overwrite",
    ]  # fmt: skip


def changed(first, second):
    assert first.jobs.keys() == second.jobs.keys()
    return {name.split("-v2")[0] for name, job in first.jobs.items() if second.jobs[name].key != job.key}


def test_a_changed_flag_affects_the_jobs_that_depend_on_it_only():
    graph = plan()
    assert changed(graph, plan()) == set()
    assert changed(graph, plan("--evaluate_flags=--resamples=30")) == {"evaluate"}
    adapted = plan("--adapt_flags=--backbone=resnet_tiny --weights=none --image_size=32 --steps=3 --eval_every=2")
    assert changed(graph, adapted) == {"train-dcan", "evaluate"}
    assert sum(adapted.jobs[name].key != job.key for name, job in graph.jobs.items()) == 2
    everything_after = {"generate-synthetic", "train-baseline", "train-dcan", "evaluate"}
    assert changed(graph, plan("--generate_flags=--per_class=11")) == everything_after
    assert changed(graph, plan("--jobs=2", "--question=Another?", "--workspace=elsewhere")) == set()


def test_a_flag_that_a_later_version_adds_changes_no_key(monkeypatch):
    graph = plan()

    def define_with_another(fv, define=evaluate.define_flags):
        define(fv)
        absl_flags.DEFINE_string("another", "before", "new", flag_values=fv)

    monkeypatch.setattr(evaluate, "define_flags", define_with_another)
    assert changed(graph, plan()) == set()
    assert changed(graph, plan("--evaluate_flags=--resamples=20 --another=before")) == set()
    assert changed(graph, plan("--evaluate_flags=--resamples=20 --another=otherwise")) == {"evaluate"}


def test_other_numbers_of_a_command_affect_its_jobs_and_what_reads_them(monkeypatch):
    graph = plan()
    assert {job.kind for job in graph.jobs.values()} <= numerics.VERSIONS.keys()
    monkeypatch.setitem(numerics.VERSIONS, "train-baseline", numerics.VERSIONS["train-baseline"] + 1)
    assert changed(graph, plan()) == {"train-baseline", "train-dcan", "evaluate"}
    monkeypatch.setattr("tfcxr.__version__", "0.2.0")
    assert changed(graph, plan()) == {"train-baseline", "train-dcan", "evaluate"}


def make_run(folder, weights):
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "checkpoints" / "best.weights.h5").write_bytes(weights)
    return folder


def test_files_count_by_their_content_wherever_they_lie(tmp_path):
    def plan_with(versions, run, lists):
        return plan(
            f"--label_versions_file={versions}",
            f"--baseline_flags=--backbone=resnet_tiny --variant=sched --init_from={run}",
            f"--records=b: --dataset=chestxray --split_policy=lists --split_lists={lists}",
            without=["--records=b"],
        )

    versions, lists = tmp_path / "versions.json", tmp_path / "lists.csv"
    versions.write_text(
        '{"own": {"a": {"one": ["Edema"], "zero": ["Fracture"]}, "b": {"one": ["Fracture"], "zero": ["Edema"]}}}'
    )
    lists.write_text("split,patient\n")
    run = make_run(tmp_path / "run", b"1")
    first = plan_with(versions, run, lists)
    (tmp_path / "elsewhere").mkdir()
    for path in (versions, lists):
        (tmp_path / "elsewhere" / path.name).write_bytes(path.read_bytes())
    moved = tmp_path / "elsewhere"
    same = plan_with(moved / "versions.json", make_run(moved / "run", b"1"), moved / "lists.csv")
    assert changed(first, same) == set()
    (run / "result.json").write_text('{"seconds": 1}')  # decides nothing
    assert changed(first, plan_with(versions, run, lists)) == set()
    make_run(run, b"2")
    assert changed(first, plan_with(versions, run, lists)) == {"train-baseline", "train-dcan", "evaluate"}
    make_run(run, b"1")
    lists.write_text("split,patient\ntrain,1\n")
    assert changed(first, plan_with(versions, run, lists)) == {"build-records-b", "train-dcan", "evaluate"}
    versions.write_text(versions.read_text() + " ")
    assert "build-records-a-multilabel" in changed(first, plan_with(versions, run, lists))


# Flags of free text that are no paths. A flag that names a file or folder is made by the functions of flags.common,
# by which a study knows that its content counts; it does not belong here.
TEXTS = {
    "uncertain", "label_version", "dataset_name", "patient_pattern", "beam_options", "labels", "batch_sizes",
    "learning_rates", "augment",
}  # fmt: skip


def test_every_flag_of_a_job_that_may_be_a_path_says_so():
    for kind in numerics.VERSIONS:
        fv = absl_flags.FlagValues()
        study._module(kind).define_flags(fv)
        free = {name for name in fv if type(fv[name]) is absl_flags.Flag and fv[name].flag_type() == "string"}
        assert free - TEXTS == set(), kind


def test_a_preset_counts_by_its_values_not_its_name():
    def key(flags):
        return plan(f"--generate_flags={flags}").jobs["generate-synthetic-v2"].key

    assert key("demo/generate") == key("--label_source=balanced --per_class=1250")
    assert key("demo/generate") != key("demo/generate --per_class=10")


def test_real_data_count_by_their_tables(tmp_path):
    root = fakes.make_chexpert(tmp_path)
    flags = ["--records=c: --dataset=chexpert", f"--data={tmp_path}", "--cells=c -> c: none"]
    without = ["--records", "--phantom", "--synthetic", "--cells"]
    before = plan(*flags, without=without)
    assert before.jobs["build-records-c-v2"].external == {"data_dir": tmp_path}
    assert plan(*flags, without=without).jobs["evaluate-v2-c-none-sched-seed0-on-c"].key == (
        before.jobs["evaluate-v2-c-none-sched-seed0-on-c"].key
    )
    with (root / "train.csv").open("a") as stream:
        stream.write("\n")
    assert changed(before, plan(*flags, without=without)) == {"build-records-c", "train-baseline", "evaluate"}


def test_a_generator_takes_the_place_of_the_gan(tmp_path):
    graph = plan(f"--generators=synthetic:{tmp_path}")
    assert graph.jobs["generate-synthetic-v2"].external == {"generator": tmp_path}
    (tmp_path / "config.json").write_text("{}")
    again = plan(f"--generators=synthetic:{tmp_path}")
    assert again.jobs["generate-synthetic-v2"].external == {"run_dir": tmp_path}
    assert not {"train-gan-a", "phantom-a"} & set(again.jobs)
    assert graph.jobs["generate-synthetic-v2"].key != again.jobs["generate-synthetic-v2"].key


def test_seeds_and_variants_multiply_the_trainings_only():
    graph = plan("--seeds=0,1,2", "--cells=synthetic -> b, synthetic: none/plain", without=["--cells"])
    kinds = [job.kind for job in graph.jobs.values()]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "phantom": 2, "build-records": 2, "train-gan": 1, "generate": 1, "train-baseline": 3, "evaluate": 6,
    }  # fmt: skip
    assert "--seed=2" in graph.jobs["train-baseline-v2-synthetic-none-plain-seed2"].flags


def test_a_source_of_several_trainings_is_a_chain_of_jobs():
    cells = "--cells=simclr > synthetic > b@10%, none>b + synthetic -> b: none"
    graph = plan(cells, "--pretraining=simclr: a --steps=3 --image_size=32", without=["--cells"])
    first, second = (
        "v2-simclr-then-synthetic-none-sched-seed0",
        "v2-simclr-then-synthetic-then-b-10pct-none-sched-seed0",
    )
    mixed = "v2-none-then-b-and-synthetic-none-sched-seed0"
    jobs = graph.jobs
    assert dict(jobs["pretrain-simclr"].inputs) == {"records": "build-records-a-multilabel"}
    assert jobs["pretrain-simclr"].output == "runs/pretrain-simclr"
    assert jobs["pretrain-simclr"].arguments({name: name for name in jobs})[-1] == "--run_dir=pretrain-simclr"
    assert dict(jobs[f"train-baseline-{first}"].inputs) == {
        "records": "generate-synthetic-v2", "init_from": "pretrain-simclr",
    }  # fmt: skip
    last = jobs[f"train-baseline-{second}"]
    assert dict(last.inputs) == {"records": "build-records-b-v2", "init_from": f"train-baseline-{first}"}
    assert "--labelled_fraction=0.1" in last.flags
    both = jobs[f"train-baseline-{mixed}"]
    assert dict(both.inputs) == {"records": "build-records-b-v2", "extra_records": "generate-synthetic-v2"}
    assert both.flags[-1] == "--weights=none"
    assert [cell.source for cell, *_ in graph.cells] == ["simclr>synthetic>b@10%", "none>b+synthetic"]


def test_first_weights_of_a_source_replace_those_of_all():
    graph = plan(
        "--cells=imagenet>b -> b: none", "--baseline_flags=--weights=none --variant=sched", without=["--cells"]
    )
    assert graph.jobs["train-baseline-v2-imagenet-then-b-none-sched-seed0"].flags[-1] == "--weights=imagenet"


def test_each_seed_sees_images_of_the_gan_whose_turn_it_is():
    graph = plan("--gans=2", "--seeds=5,6,7", "--synthetic=few: a --per_class=4", "--cells=few -> synthetic: none")
    trained = {
        seed: graph.jobs[f"train-baseline-v2-synthetic-none-sched-seed{seed}"].inputs["records"] for seed in (5, 6, 7)
    }
    assert trained == {5: "generate-synthetic-v2", 6: "generate-synthetic-gan1-v2", 7: "generate-synthetic-v2"}
    second = graph.jobs["generate-synthetic-gan1-v2"]
    assert second.inputs["run_dir"] == graph.jobs["generate-few-gan1-v2"].inputs["run_dir"] == "train-gan-a-gan1"
    assert second.flags[-1] == graph.jobs["train-gan-a-gan1"].flags[-1] == "--seed=1"
    assert second.output == "records/synthetic-gan1/v2/8"
    assert {"--per_class=10", "--per_class=4"} <= set(graph.jobs["generate-few-v2"].flags)
    # A test set is the same for all.
    assert {graph.jobs[name].inputs["records"] for _, _, name in graph.cells if name.endswith("-on-synthetic")} == {
        "generate-synthetic-v2"
    }


def test_a_set_may_have_a_resolution_of_its_own():
    jobs = plan("--records=large: --dataset=chexpert --resolution=16", "--phantom=large: --num_patients=4",
                "--synthetic=fake: large", "--cells=fake, large -> b: none").jobs  # fmt: skip
    assert jobs["build-records-large-v2"].output == "records/large/v2/16"
    assert "--resolution=16" in jobs["train-gan-large"].flags
    assert jobs["generate-fake-v2"].output == "records/fake/v2/16"
    assert jobs["build-records-b-v2"].output == "records/b/v2/8"


def test_an_adaptation_with_estimated_shares_has_a_name_of_its_own():
    graph = plan("--cells=synthetic -> b: dann/estimate, dann", without=["--cells"])
    assert [(cell.method, cell.variant) for cell, *_ in graph.cells] == [("dann", "estimate"), ("dann", None)]
    own = graph.jobs["train-dcan-v2-synthetic-to-b-dann-estimate-seed0"]
    assert "--target_prior=estimate" in own.flags
    assert own.key != graph.jobs["train-dcan-v2-synthetic-to-b-dann-seed0"].key


def test_label_stats_takes_the_flags_of_the_records_that_it_knows():
    lines = ["--label_stats", "--records=a: --dataset=chexpert --split_fractions=0.7,0.2,0.1 --num_shards=3"]
    graph = plan(*lines, without=["--records=a"])
    job = graph.jobs["label-stats-a"]
    assert set(job.flags) == {"--split_fractions=0.7,0.2,0.1", "--dataset=chexpert"}
    assert job.inputs == {"data_dir": "phantom-a"}


def test_synthetic_sets_are_compared_and_audited():
    extra = ["--compare_sets", "--audit_privacy", "--audit_flags=--reid_steps=0", "--gans=2", "--seeds=0,1"]
    before, graph = plan(*extra[-2:]), plan(*extra)
    added = {name: job for name, job in graph.jobs.items() if name not in before.jobs}
    examined = {name: job for name, job in added.items() if job.kind != "build-records"}
    assert {name: dict(job.inputs) for name, job in examined.items()} == {
        f"compare-sets-synthetic{gan}-v2": {
            "synthetic": f"generate-synthetic{gan}-v2",
            "real": "build-records-a-v2",
            "holdout": "build-records-a-v2",
        }
        for gan in ("", "-gan1")
    } | {
        f"audit-privacy-synthetic{gan}-v2": {
            "synthetic": f"generate-synthetic{gan}-v2",
            "train": "build-records-a-multilabel",
            "gan_run": f"train-gan-a{gan}",
        }
        for gan in ("", "-gan1")
    }
    assert set(added) - set(examined) == {"build-records-a-v2"}
    assert examined["audit-privacy-synthetic-v2"].flags == ("--reid_steps=0",)
    assert examined["audit-privacy-synthetic-gan1-v2"].output == "audits/synthetic-gan1/v2"
    assert {name: job.key for name, job in before.jobs.items()}.items() <= {
        n: j.key for n, j in graph.jobs.items()
    }.items()
    order = list(graph.jobs)
    assert order.index("audit-privacy-synthetic-v2") > order.index("generate-synthetic-v2")


@pytest.mark.parametrize(
    ("flags", "without", "message"),
    [
        (["--label_versions=v9"], [], r"--label_version=v9: unknown; choose one of v1_0s"),
        (["--label_versions=multilabel"], [], "--label_versions=multilabel: has no classes"),
        (["--cells=c -> b: none"], [], "--cells: there is no set c; known: a, b, synthetic"),
        (["--cells=a -> a, b: dcan"], [], "--cells: dcan from a to itself"),
        (["--phantom=c: --hospital=a"], [], "--phantom=c: is in no --records=c"),
        (["--cells=a@10% -> b: dcan"], [], "--cells: dcan from a@10%: adaptation reads a whole set, write a"),
        (["--cells=none -> b: none"], [], "none: names first weights only"),
        (["--pretraining=imagenet: a"], [], "--cells: imagenet stands for --weights=imagenet at the start"),
        (["--pretraining=x: c"], [], "--pretraining=x: c: there is no --records=c"),
        (["--pretraining=x: --steps=3"], [], "--pretraining=x: --steps=3: must look like x: SET FLAGS"),
        (["--synthetic=more: c"], [], "--synthetic=more: c: there is no --records=c"),
        (["--synthetic=a: b"], [], "--synthetic=a: is the name of a set; choose another"),
        ([], ["--cells", "--synthetic"], "--cells is required"),
        ([], ["--label_versions"], "--label_versions is required"),
        ([], ["--phantom=b"], "--data: has no folder for b; give --data=b:FOLDER"),
        (["--generators=gan:."], [], "--generators=gan:.: gan has no use for a folder; known: synthetic"),
        (["--gan_flags=demo/train_gna"], [], "flags of train-gan: --flagfile=demo/train_gna: no such file"),
        (["--gan_flags=--stpes=3"], [], "flags of train-gan: --stpes: is not a flag of this command"),
        (["--adapt_flags=--alpha=-1"], [], "flags of train-dcan: --alpha=-1"),
        (["--baseline_flags=--seed=3"], [], "--seed=3: is among the flags of train-baseline, but .* the study has 0"),
        (["--gan_flags=demo/train_gan"], [], "--resolution=32: is among the flags of train-gan, but .* has 8"),
        (["--baseline_flags=thesis/baseline_{variant}"], [], "none needs a variant, such as none/plain"),
        (["--table=5.7"], [], "--table=5.7: must be one of 5.8, 5.9, 5.10"),
        (["--seeds=0,x"], [], "--seeds=0,x: must be whole numbers"),
        (["--name=a/b"], [], "--name=a/b: must be of letters"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(flags, without, message):
    with pytest.raises(InputError, match=message):
        plan(*flags, without=without)


@pytest.fixture
def emitted(capsys, tmp_path):
    """Emits the tiny study as a script and returns it, checked by bash."""

    def emit(backend, *flags):
        assert cli.main(["study", *TINY, f"--workspace={tmp_path}", *flags, f"--emit={backend}"]) == 0
        script = capsys.readouterr().out
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        return script

    return emit


def test_the_shell_script_runs_every_job_once_in_order(emitted, tmp_path):
    script = emitted("shell")
    # A tool that only says what it is called with, and leaves a result for what it was told to make.
    fake = tmp_path / "fake"
    fake.write_text(
        '#!/usr/bin/env bash\necho "$*"\nfor a; do case $a in --output_dir=*|--run_dir=*) out=${a#*=};; esac; done\n'
        '[ "$1" = study ] || { mkdir -p "$out"; touch "$out/result.json"; }\n'
    )
    fake.chmod(0o755)

    def run():
        environment = {"TFCXR": str(fake), "PATH": "/usr/bin:/bin"}
        ran = subprocess.run(["bash"], input=script, text=True, check=True, capture_output=True, env=environment)
        return [line.split()[0] for line in ran.stdout.splitlines()]

    kinds = [job.kind for job in plan().jobs.values()]
    assert [kind for kind in run() if kind != "study"] == kinds
    assert run() == ["study"]  # finished jobs are skipped


def test_a_failing_job_stops_the_shell_script(emitted):
    ran = subprocess.run(
        ["bash"], input=emitted("shell"), text=True, check=False, env={"TFCXR": "false", "PATH": "/usr/bin:/bin"}
    )
    assert ran.returncode == 1


@pytest.fixture
def cluster(tmp_path):
    """A stand-in for SLURM: jobs run when they are submitted, with no variable but PATH, if their needs went well.

    Yields a function: (script, body of the stand-in for tfcxr) -> what was submitted and how it ended, in order.
    """
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sbatch").write_text(
        f"""#!/usr/bin/env bash
echo x >> {folder}/count
number=$(wc -l < {folder}/count)
cat > {folder}/$number.sh
code=0
for word; do case $word in
  --dependency=afterok:*) for need in ${{word//:/ }}; do [ ! -e {folder}/$need.failed ] || code=cancelled; done ;;
esac; done
[ $code != 0 ] || env -i PATH="$PATH" bash {folder}/$number.sh >> {folder}/out 2>&1 || code=$?
[ $code = 0 ] || touch {folder}/$number.failed
echo "$code $*" >> {folder}/jobs
echo "$number;cluster"
"""
    )

    def submit(script, tool):
        (folder / "tfcxr").write_text(f"#!/usr/bin/env bash\n{tool}\n")
        for name in ("sbatch", "tfcxr"):
            (folder / name).chmod(0o755)
        environment = {"PATH": f"{folder}:/usr/bin:/bin"}
        subprocess.run(["bash"], input=script, text=True, check=True, capture_output=True, env=environment)
        return [line.split() for line in (folder / "jobs").read_text().splitlines()]

    submit.folder = folder
    return submit


def test_slurm_gets_a_job_for_each_after_those_it_needs(emitted, cluster, tmp_path):
    options = "--gres=gpu:1 --comment='two words'"
    script = emitted("slurm", f"--slurm=train-gan: {options}", "--slurm=table: --time=1")
    jobs = cluster(script, f'printf "%s\\n" "$@" >> {tmp_path}/calls')
    planned = list(plan().jobs.values())
    numbers = {job.id: str(number) for number, job in enumerate(planned, 1)}
    assert len(jobs) == len(planned) + 1
    for (code, *words), job in zip(jobs, planned, strict=False):
        assert code == "0"
        assert {"--parsable", f"--job-name=tiny-{job.id}", "--open-mode=append", "--requeue"} <= set(words)
        assert f"--output={tmp_path}/studies/tiny/logs/{job.id}.slurm.log" in words
        needs = ":".join(["afterok", *dict.fromkeys(numbers[need] for need in job.inputs.values())])
        assert [w for w in words if w.startswith("--dep")] == ([f"--dependency={needs}"] if job.inputs else [])
        assert ("--gres=gpu:1" in words) == (job.kind == "train-gan")
    after = ":".join(["afterany", *numbers.values()])
    assert {f"--dependency={after}", "--time=1"} <= set(jobs[-1])
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [c for c in calls if c.startswith(("--only", "--collect"))] == [
        *(f"--only={j.id}" for j in planned),
        "--collect",
    ]
    assert calls.count("--question=Does the chain hold?") == len(jobs)
    assert not [c for c in calls if c.startswith("--slurm")]


def test_slurm_cancels_what_needs_a_failed_job_and_the_table_comes_all_the_same(emitted, cluster):
    jobs = cluster(emitted("slurm"), 'case "${!#}" in --only=train-gan-a | --collect) exit 3 ;; esac')
    ended = [code for code, *_ in jobs]
    kinds = [job.kind for job in plan().jobs.values()]
    assert ended[kinds.index("train-gan")] == ended[-1] == "3"
    assert ended.count("cancelled") == 5  # generate, two trainings, two evaluations
    assert ended.count("0") == 4


def test_a_slurm_job_saves_and_is_queued_again_before_its_limit(emitted, cluster, tmp_path):
    cluster(emitted("slurm"), "exit 0")
    folder = cluster.folder
    # A training that takes a moment to save when it is asked to stop.
    (folder / "tfcxr").write_text(
        f"#!/usr/bin/env bash\ntrap 'sleep 0.2; touch {tmp_path}/saved; exit 143' TERM\ntouch {tmp_path}/began\n"
        "while :; do sleep 0.05; done\n"
    )
    (folder / "scontrol").write_text(
        f'#!/usr/bin/env bash\nls {tmp_path}/saved && echo "$*" > {tmp_path}/asked; exit 1\n'
    )
    (folder / "scontrol").chmod(0o755)
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "SLURM_JOB_ID": "7"}
    with subprocess.Popen(["bash", folder / "1.sh"], env=environment, stdout=subprocess.DEVNULL) as process:
        while not (tmp_path / "began").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(20) == 143
    assert (tmp_path / "asked").read_text() == "requeue 7\n"


@pytest.mark.parametrize(
    "value, message",
    [("gan: --gres=gpu:1", "must be one of phantom, "), ("train-gan: --comment='", "No closing quotation")],
)
def test_wrong_options_of_slurm_are_named(value, message, capsys):
    assert cli.main(["study", *TINY, f"--slurm={value}", "--emit=slurm"]) == 2
    assert message in capsys.readouterr().err
