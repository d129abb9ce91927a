"""The memory benchmark measures processes of their own, and its table is arithmetic."""

import json

import numpy as np
import pytest

from flags import app
from tests import fakes
from tfrecords_builder.errors import RunError
from tools import memory


def test_the_table_says_what_an_image_more_costs():
    sizes = [memory.Size(200, {"a": 100.0, "b": 50.5}), memory.Size(1224, {"a": 102.0, "b": 1074.5})]
    assert memory.format_table(sizes).splitlines() == [
        "| command | 200 images | 1,224 images | KiB an image more |",
        "| --- | --- | --- | --- |",
        "| `a` | 100 MiB | 102 MiB | 2.0 |",
        "| `b` | 50 MiB | 1,074 MiB | 1024.0 |",
    ]


def test_the_peak_is_that_of_the_process(tmp_path):
    """And not of this one, which holds 300 MiB more at the time."""
    kept = np.ones(300 * 2**20, np.uint8)
    help_alone = memory.peak(["verify-records", "--help"], tmp_path / "log")
    assert 20 < help_alone < 150
    assert kept.nbytes > help_alone * 2**20


def test_a_command_that_fails_is_named(tmp_path):
    records = fakes.make_records(tmp_path / "set", resolution=8)
    assert 300 < memory.peak(["verify-records", f"--records={records}"], tmp_path / "log") < 2000
    with pytest.raises(RunError, match=r"verify-records ended with 2: error: --records=.*none"):
        memory.peak(["verify-records", f"--records={tmp_path}/none"], tmp_path / "log")


@pytest.mark.parametrize("sizes", ["100", "100,100", "100,x", "1,100"])
def test_sizes_that_say_nothing(sizes, capsys):
    assert app.run(memory.main, memory.define_flags, ["memory", f"--sizes={sizes}"]) == 2
    assert f"--sizes={sizes}: must be two or more different" in capsys.readouterr().err


@pytest.mark.large
def test_all_commands_are_measured(tmp_path, capsys):
    output = tmp_path / "memory.json"
    arguments = ["memory", "--sizes=60,80", "--resolution=16", f"--output={output}"]
    assert app.run(memory.main, memory.define_flags, arguments) == 0
    sizes = json.loads(output.read_text())["sizes"]
    assert 60 < sizes[0]["images"] < sizes[1]["images"]
    for size in sizes:
        assert len(size["peaks"]) == 21
        assert all(50 < peak < 3000 for peak in size["peaks"].values())
    assert "| `train-baseline, linear probe` |" in capsys.readouterr().out
