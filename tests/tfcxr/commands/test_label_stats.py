import csv
import json
import re
import subprocess
import sys

import pytest

from flags import app
from tests import fakes
from tfcxr.commands import label_stats

CSVS = (
    "class_counts", "combination_totals", "combinations", "cooccurrence", "demographics", "extra_findings", "hierarchy",
    "images_per_patient", "label_agreement", "label_counts", "uncertain",
)  # fmt: skip


@pytest.fixture(scope="module")
def nih(tmp_path_factory):
    return fakes.make_chestxray(tmp_path_factory.mktemp("nih"))


@pytest.fixture(scope="module")
def written(tmp_path_factory, nih):
    folder = tmp_path_factory.mktemp("stats") / "out"
    assert _run(folder, nih, split_policy="official") == 0
    return folder


def _run(folder, data_dir, **values):
    values = {"dataset": "chestxray", **values}
    arguments = [f"--{name}={value}" for name, value in values.items()]
    argv = ["label-stats", f"--data_dir={data_dir}", f"--output_dir={folder}", *arguments]
    return app.run(label_stats.main, label_stats.define_flags, argv)


def _read(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_files(written):
    names = {path.name for path in written.iterdir()}
    pictures = {name for name in names if name.endswith(".png")}
    assert {"label_counts.png", "cooccurrence.png", "class_counts.png", "combinations_v2_finding.png"} <= pictures
    csvs = {f"{name}.csv" for name in CSVS}
    assert names == pictures | csvs | {"report.md", "report.html", "result.json", "flags.txt", ".tfcxr.json"}
    assert not list(written.parent.glob(".*"))


def test_columns_and_counts(written):
    """The columns are those of 6-interfaces.md; five patients of each case, two images each."""
    assert list(_read(written / "label_counts.csv")[0]) == ["label", "positive", "uncertain", "negative", "blank"]
    rows = _read(written / "class_counts.csv")
    assert list(rows[0]) == ["label_version", "class", "split", "count", "published"]
    counts = {(row["label_version"], row["class"], row["split"]): row["count"] for row in rows}
    assert counts["v3_0s", "Cardiomegaly", "all"] == "10"
    assert counts["v3_0s", "Cardiomegaly", "test"] == "2" and counts["v3_0s", "Cardiomegaly", "train_val"] == "8"
    assert {row["published"] for row in rows} == {""}  # another table than the published one
    rows = _read(written / "combinations.csv")
    assert list(rows[0]) == ["label_version", "class", "labels", "count", "published"]
    assert [row["labels"] for row in rows if (row["label_version"], row["class"]) == ("v1_xs", "Pneumothorax")] == [
        "Pneumothorax",
        "Pneumothorax|Pleural Effusion",
    ]
    assert _read(written / "cooccurrence.csv")[0]["label"] == "No Finding"
    assert _read(written / "extra_findings.csv")[0]["finding"] == "Hernia"


def test_counts_are_those_of_build_records(tmp_path, nih, written):
    """The same selection and the same split as the program whose input these statistics describe."""
    from tfcxr.commands import build_records

    argv = ["x", "--dataset=chestxray", f"--data_dir={nih}", "--label_version=v1_xs", "--resolution=8"]
    argv += ["--split_policy=official", f"--output_dir={tmp_path / 'records'}"]
    assert app.run(build_records.main, build_records.define_flags, argv) == 0
    manifest = _read(tmp_path / "records" / "manifest.csv")
    for row in _read(written / "class_counts.csv"):
        if row["label_version"] == "v1_xs" and row["split"] in ("train", "validation", "test"):
            built = sum(r["split"] == row["split"] and r["class"] == row["class"] for r in manifest)
            assert built == int(row["count"])


def test_result_and_flags(tmp_path, written, nih):
    result = json.loads((written / "result.json").read_text())
    assert (result["rows"], result["images"], result["patients"]) == (51, 51, 25)
    assert result["published"]["compared"] == 0 and "51 rows" in result["published"]["not_compared"]
    argv = ["label-stats", f"--flagfile={written / 'flags.txt'}", f"--output_dir={tmp_path / 'again'}"]
    assert app.run(label_stats.main, label_stats.define_flags, argv) == 0
    for path in written.iterdir():
        if path.name not in ("result.json", "flags.txt"):  # they hold the time and the folder
            assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_report(written):
    page, text = (written / "report.html").read_text(), (written / "report.md").read_text()
    pictures = list(written.glob("*.png"))
    assert page.count("data:image/png;base64,") == len(pictures)
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)|@import|url\(|<script""", page)
    for content in (page, text):
        assert "not compared, the table has 51 rows" in content
        assert "are swapped in print" in content
        assert "Pneumothorax + Pleural Effusion" in content
    for picture in pictures:
        assert f"]({picture.name})" in text
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert len(tables) == page.count("<table>")


def test_names_from_a_table_are_escaped(tmp_path):
    from tfrecords_builder import pages

    assert pages.escape_markdown("a|b <i> *c*\n`d`") == r"a\|b \<i\> \*c\* \`d\`"


def test_chosen_versions_of_a_chexpert_table(tmp_path, capfd):
    root = fakes.make_chexpert(tmp_path / "chexpert")
    assert _run(tmp_path / "out", root, dataset="chexpert", label_versions="v1_0s,v2", uncertain="drop") == 0
    rows = _read(tmp_path / "out" / "class_counts.csv")
    assert {row["label_version"] for row in rows} == {"v1_0s", "v2"}
    assert {row["split"] for row in rows} == {"all", "train", "validation", "test"}
    assert _read(tmp_path / "out" / "study_counts.csv")[0]["positive"] == "8"
    out = capfd.readouterr().out
    assert "published counts: not compared" in out and "report.html" in out


def test_own_label_version(tmp_path, nih):
    own = tmp_path / "own.json"
    own.write_text(
        '{"hernia": {"Hernia": {"one": ["Hernia"]}, "No Finding": {"one": ["No Finding"], "zero": "others"}}}'
    )
    assert _run(tmp_path / "out", nih, label_versions="hernia", label_versions_file=own) == 0
    counts = {
        row["class"]: row["count"] for row in _read(tmp_path / "out" / "class_counts.csv") if row["split"] == "all"
    }
    assert counts == {"Hernia": "1", "No Finding": "10"}


def test_folder_and_record_set(tmp_path):
    folder = tmp_path / "pneumonia"
    folder.mkdir()
    (folder / "table.csv").write_text("file,pid,kind\na.png,1,NORMAL\nb.png,2,TB\nc.png,2,PNEUMONIA\nd.png,3,NORMAL\n")
    kinds = "NORMAL:No Finding,TB:Tuberculosis,PNEUMONIA:Pneumonia"
    columns = "path:file,patient:pid,class:kind"
    assert (
        _run(
            tmp_path / "out",
            folder,
            dataset="folder",
            columns=columns,
            class_values=kinds,
            label_versions="v1_0s,v3_0s",
        )
        == 0
    )
    rows = _read(tmp_path / "out" / "class_counts.csv")
    counts = {(row["label_version"], row["class"]): row["count"] for row in rows if row["split"] == "all"}
    assert (counts["v3_0s", "No Finding"], counts["v3_0s", "Pneumonia"], counts["v1_0s", "Pneumothorax"]) == (
        "2",
        "1",
        "0",
    )
    assert _read(tmp_path / "out" / "extra_findings.csv")[0]["finding"] == "Tuberculosis"

    records = fakes.make_records(tmp_path / "records")
    assert _run(tmp_path / "again", records, dataset="records", split_policy="official", label_versions="v1_0s") == 0
    counts = {(row["class"], row["split"]): row["count"] for row in _read(tmp_path / "again" / "class_counts.csv")}
    assert counts["Pneumothorax", "all"] == "24" and counts["Pneumothorax", "test"] == "8"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"label_versions": "v9"}, "--label_versions=v9: unknown"),
        ({"uncertain": "maybe"}, "--uncertain=maybe"),
        ({"split_policy": "lists"}, "--split_lists"),
        ({"split_fractions": "0.5,0.1,0.1"}, "split_fractions"),
        ({"view": "AP"}, "--view=AP"),
        ({"dataset": "chexpert"}, "train.csv"),
        ({"dataset": "other"}, "dataset"),
    ],
)
def test_bad_flags(tmp_path, nih, values, message, capfd):
    assert _run(tmp_path / "out", nih, **values) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
    assert not list(tmp_path.iterdir())


def test_missing_column(tmp_path, capfd):
    root = fakes.make_chestxray(tmp_path / "nih", num_patients=5)
    table = root / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace("Finding Labels", "Findings"))
    assert _run(tmp_path / "out", root) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "has no column 'Finding Labels'" in line and not (tmp_path / "out").exists()


def test_refuses_to_overwrite(written, nih, capfd):
    assert _run(written, nih) == 2
    assert "is not empty" in capfd.readouterr().err


def test_help_imports_neither_tensorflow_nor_pandas():
    code = "import sys; from flags import app; from tfcxr.commands import label_stats\n"
    code += "assert app.run(label_stats.main, label_stats.define_flags, ['x', '--help']) == 0\n"
    code += "assert not {'tensorflow', 'pandas', 'matplotlib', 'jinja2'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--label_versions" in done.stdout


def test_images_without_any_label_are_a_combination_too(tmp_path):
    root = fakes.make_chexpert(tmp_path / "chexpert", num_patients=10)
    table = root / "train.csv"
    table.write_text(re.sub(r"(patient00010/.*)1\.0", r"\1", table.read_text()))
    assert _run(tmp_path / "out", root, dataset="chexpert", label_versions="v2_thesis") == 0
    rows = _read(tmp_path / "out" / "combinations.csv")
    assert {row["count"] for row in rows if row["labels"] == "" and row["class"] == "Finding"} == {"2"}
    assert "| no label | 2 |" in (tmp_path / "out" / "report.md").read_text()
