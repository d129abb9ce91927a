"""The demo's plan and table; the demo itself is run by `make demo`."""

import json
import pathlib

import pytest
from absl import flags

from flags import app
from tests import classifier_runs
from tfcxr import cli, evaluate
from tfrecords_builder import files
from tfrecords_builder.errors import RunError
from tools import demo


def test_every_step_parses_with_its_command_and_writes_where_it_says(tmp_path):
    for step in demo.plan(tmp_path):
        module = __import__(cli.COMMANDS[step.command][0], fromlist=["define_flags"])
        fv = flags.FlagValues()
        module.define_flags(fv)
        preset = [a for a in step.arguments if a.startswith("--flagfile=")]
        assert all((app.PRESETS / f"{a.split('=')[1]}.flags").is_file() for a in preset)
        # Folders that earlier steps will have made do not exist yet: only the names are checked.
        names = {a[2:].split("=")[0] for a in step.arguments} - {"flagfile"}
        assert names <= set(fv)
        assert any(a.endswith(f"={step.result.parent}") for a in step.arguments)


def test_models_are_trained_before_they_are_used(tmp_path):
    made: set[str] = set()
    for step in demo.plan(tmp_path):
        for argument in step.arguments:
            name, _, value = argument.removeprefix("--").partition("=")
            if name in ("records", "model", "data_dir", "init_from", "source_records", "target_records"):
                assert value in made, f"{step.command} {argument}"
        made.add(str(step.result.parent))


def test_the_table_is_read_from_the_results(tmp_path, capsys):
    records = classifier_runs.make_records(tmp_path / "records")
    run = classifier_runs.make_classifier_run(tmp_path / "run", records)
    out = tmp_path / "evaluation"
    arguments = [f"--model={run}", f"--records={records}", f"--output_dir={out}", "--resamples=50"]
    assert app.run(evaluate.main, evaluate.define_flags, ["evaluate", *arguments]) == 0
    result = json.loads((out / "result.json").read_text())
    for number, cell in enumerate(demo.CELLS):
        result["balanced_accuracy"]["value"] = 0.5 + number / 100
        files.write_json(tmp_path / "evaluations" / cell.name / "result.json", result)
    report = demo.report(tmp_path, seconds=60)
    rows = [line for line in report.splitlines() if line.startswith(("| hospital", "| synthetic"))]
    assert len(rows) == len(demo.CELLS)
    for number, row in enumerate(rows):
        assert f"| {50 + number}.0 |" in row
    assert (tmp_path / "report.md").read_text().startswith("# Demo")


def test_a_failing_step_stops_the_demo_and_is_named(tmp_path):
    step = demo.Step("verify-records", (f"--records={tmp_path / 'none'}",), pathlib.Path(tmp_path / "result.json"))
    with pytest.raises(RunError, match=r"verify-records.*exit code 2"):
        demo.run_steps([step])
