"""The GAN benchmark runs and counts right; its numbers are its own."""

import json

import pytest

from flags import app
from tools import bench_gan


@pytest.mark.large
def test_measures_all_parts_of_all_variants(tmp_path, capsys):
    output = tmp_path / "bench.json"
    arguments = ["--resolutions=8", "--fmap_base=32", "--fmap_max=8", "--batch_size=8", "--repeats=2"]
    arguments += ["--precision=float32", "--allocator=BFC", f"--output={output}"]
    assert app.run(bench_gan.main, bench_gan.define_flags, ["bench_gan", *arguments]) == 0
    result = json.loads(output.read_text())
    assert {(row["variant"], row["part"]) for row in result["speed"]} == {
        (variant, part) for variant in ("plain", "float32") for part in bench_gan.PARTS
    }
    for row in result["speed"]:
        assert row["images_per_second"] == pytest.approx(8 / row["seconds"])
        assert ("ratio" in row) == (row["variant"] == "float32")
    assert [row["variant"] for row in result["memory"]] == ["plain", "float32"]
    assert all(50 < row["peak_mib"] < 5000 for row in result["memory"])
    assert "generation" in capsys.readouterr().out
