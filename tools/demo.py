"""The whole chain on two simulated hospitals, in minutes on two cores: `make demo`.

Simulates hospitals a and b, builds records, trains a small GAN on hospital a, generates a labelled synthetic set,
trains classifiers on real and on synthetic images, adapts two of them to hospital b, evaluates all, exports one and
predicts with it. Every step is a tfcxr command, printed as it runs. A step that is done is skipped: a stopped demo
goes on where it was.
"""

import dataclasses
import pathlib
import shlex
import shutil
import subprocess
import sys
import time

from absl import flags

from flags import app
from tfrecords_builder import files
from tfrecords_builder.errors import RunError

LABEL_VERSION = "v2"


@dataclasses.dataclass(frozen=True)
class Step:
    """One command; it is done when `result` exists."""

    command: str
    arguments: tuple[str, ...]
    result: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Cell:
    """One row of the table: a trained model evaluated on one hospital."""

    source: str
    target: str
    method: str
    model: str
    records: str

    @property
    def name(self) -> str:
        """Folder name of the evaluation."""
        return f"{self.model}-on-{self.records}"


CELLS = (
    Cell("hospital a", "hospital a", "baseline", "baseline-real", "a"),
    Cell("hospital a", "hospital b", "baseline", "baseline-real", "b"),
    Cell("synthetic", "hospital a", "baseline", "baseline-synthetic", "a"),
    Cell("synthetic", "hospital b", "baseline", "baseline-synthetic", "b"),
    Cell("synthetic", "hospital b", "DCAN", "dcan", "b"),
    Cell("synthetic", "hospital b", "ours", "ours", "b"),
)


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of the demo."""
    flags.DEFINE_string(
        "workspace", "workspace", "folder to work in; the demo uses its sub-folder demo", flag_values=fv
    )
    flags.DEFINE_boolean("overwrite", False, "start again from nothing", flag_values=fv)


def plan(root: pathlib.Path) -> list[Step]:
    """All steps, in order; paths lie under `root`."""
    data, records, runs = root / "data", root / "records", root / "runs"

    def step(command: str, preset: str, output: pathlib.Path, *arguments: str, flag: str = "output_dir") -> Step:
        given = (f"--flagfile=demo/{preset}", *arguments, f"--{flag}={output}")
        return Step(command, given, output / "result.json")

    def build(hospital: str, version: str) -> Step:
        return step(
            "build-records",
            f"build_records_{hospital}",
            records / f"{hospital}-{version}",
            f"--label_version={version}",
            f"--data_dir={data / hospital}",
        )

    def train(command: str, name: str, *arguments: str) -> Step:
        return step(command, command.replace("-", "_"), runs / name, *arguments, flag="run_dir")

    real = {hospital: records / f"{hospital}-{LABEL_VERSION}" for hospital in "ab"}
    synthetic = records / f"synthetic-{LABEL_VERSION}"
    steps = [step("phantom", "phantom", data / hospital, f"--hospital={hospital}") for hospital in "ab"]
    steps += [build("a", LABEL_VERSION), build("b", LABEL_VERSION), build("a", "multilabel")]
    steps += [
        train("train-gan", "gan", f"--records={records / 'a-multilabel'}"),
        step("generate", "generate", synthetic, f"--label_version={LABEL_VERSION}", f"--run_dir={runs / 'gan'}"),
        train("train-baseline", "baseline-real", f"--records={real['a']}"),
        train("train-baseline", "baseline-synthetic", f"--records={synthetic}"),
    ]
    for method in ("dcan", "ours"):
        steps.append(
            train(
                "train-dcan",
                method,
                f"--alignment={method}",
                f"--source_records={synthetic}",
                f"--target_records={real['b']}",
                f"--init_from={runs / 'baseline-synthetic'}",
            )
        )
    for cell in CELLS:
        output = root / "evaluations" / cell.name
        arguments = (f"--model={runs / cell.model}", f"--records={real[cell.records]}", f"--output_dir={output}")
        steps.append(Step("evaluate", arguments, output / "result.json"))
    export = root / "exports" / "classifier" / "1"
    steps.append(Step("export-model", (f"--run_dir={runs / 'ours'}", f"--output_dir={export}"), export / "result.json"))
    generator = root / "exports" / "generator" / "1"
    steps.append(
        Step("export-model", (f"--run_dir={runs / 'gan'}", f"--output_dir={generator}"), generator / "result.json")
    )
    return steps


def run_steps(steps: list[Step]) -> None:
    """Runs each step that is not done, in a process of its own; raises RunError at the first that fails."""
    for number, step in enumerate(steps, 1):
        if step.result.exists():
            print(f"[{number}/{len(steps)}] done before: {step.command} -> {step.result.parent}", flush=True)
            continue
        print(f"\n[{number}/{len(steps)}] $ tfcxr {step.command} {shlex.join(step.arguments)}", flush=True)
        start = time.monotonic()
        code = subprocess.run(
            [sys.executable, "-m", "tfcxr.cli", step.command, *step.arguments], check=False
        ).returncode
        if code:
            raise RunError(f"`tfcxr {step.command}` ended with exit code {code}; its message is above")
        print(f"    {time.monotonic() - start:.0f} s", flush=True)


def predict_some(root: pathlib.Path) -> str:
    """Predicts five images of hospital b with the exported classifier; returns the table's text."""
    images = sorted((root / "data" / "b" / "images").glob("*.png"))[:5]
    output = root / "predictions.csv"
    arguments = [
        f"--model={root / 'exports' / 'classifier' / '1'}",
        f"--images={','.join(map(str, images))}",
        f"--output={output}",
        "--overwrite",
    ]
    print(f"\n$ tfcxr predict {shlex.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", "tfcxr.cli", "predict", *arguments], check=True)
    return output.read_text(encoding="utf-8")


def table(root: pathlib.Path) -> str:
    """The results as a Markdown table, read from the evaluations' result.json."""
    from tfcxr import evaluation

    results = [files.read_json(root / "evaluations" / cell.name / "result.json") for cell in CELLS]
    return evaluation.results_table(
        [(cell.source, cell.target, cell.method, result) for cell, result in zip(CELLS, results, strict=True)]
    )


def report(root: pathlib.Path, seconds: float) -> str:
    """Writes report.md and returns it: the table, and where to look."""
    samples = sorted((root / "runs" / "gan" / "samples").glob("fakes*.png"))
    text = f"""# Demo: two simulated hospitals, label version {LABEL_VERSION}

{table(root)}

Test folds; 95% bootstrap intervals over patients; chance is 50%. The networks are small and trained for minutes: this
shows that the chain works, not what it can reach.

- Curves and samples: tensorboard --logdir={root / "runs"}
- Samples of the GAN: {samples[-1] if samples else "-"}
- Synthetic images per class: {root / "records" / f"synthetic-{LABEL_VERSION}" / "samples.png"}
- Classifier (SavedModel): {root / "exports" / "classifier" / "1"}
- Generator (SavedModel): {root / "exports" / "generator" / "1"}
"""
    files.write_text(root / "report.md", text + (f"\nThis call took {seconds / 60:.1f} minutes.\n"))
    return text


def main(fv: flags.FlagValues) -> None:
    """Runs the demo."""
    start = time.monotonic()
    root = pathlib.Path(fv.workspace) / "demo"
    if fv.overwrite and root.exists():
        shutil.rmtree(root)
    run_steps(plan(root))
    predictions = predict_some(root)
    seconds = time.monotonic() - start
    print("\n" + report(root, seconds))
    print(f"Predictions of the exported classifier:\n{predictions}")
    print(f"Report: {root / 'report.md'}   ({seconds / 60:.1f} minutes)")


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
