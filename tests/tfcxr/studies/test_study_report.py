"""The report of the tiny study: numbers are those of the runs, what is lost is marked, and a browser can read it."""

import html.parser
import json
import re
import shutil
import subprocess

import pytest

from tfcxr import cli
from tfcxr.studies import study_report


@pytest.fixture
def study(tiny_study, tmp_path):
    """(folder of the study, workspace), in a place where they may be damaged."""
    shutil.copytree(tiny_study / "workspace", tmp_path / "workspace")
    return tmp_path / "workspace" / "studies" / "tiny", tmp_path / "workspace"


def read_table(page, caption):
    """The rows of a table of report.md."""
    lines = page[page.index(caption) :].splitlines()[2:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def test_fidelity_and_privacy_of_the_synthetic_sets(study):
    folder, workspace = study
    real, synthetic = workspace / "records/a/multilabel/8", workspace / "records/synthetic/v2/8"
    made = {"compare-sets": workspace / "comparisons/x", "audit-privacy": workspace / "audits/x"}
    given = [f"--synthetic={synthetic}", "--synthetic_split=train", f"--train={real}", "--features=pixels"]
    given += ["--reid_steps=0", "--permutations=199", "--draws=1", f"--output_dir={made['audit-privacy']}"]
    assert cli.main(["audit-privacy", *given]) == 0
    given = [f"--synthetic={synthetic}", f"--real={real}", f"--holdout={real}", "--resamples=0"]
    assert cli.main(["compare-sets", *given, f"--output_dir={made['compare-sets']}"]) == 0
    state = json.loads((folder / "study.json").read_text())
    template = state["jobs"][0]
    for kind, output in made.items():
        state["jobs"].append(template | {"id": f"{kind}-x", "kind": kind, "output": str(output.relative_to(workspace))})
    (folder / "study.json").write_text(json.dumps(state))
    study_report.write(folder, workspace)
    page = (folder / "report.md").read_text()
    compared, audited = (json.loads((output / "result.json").read_text()) for output in made.values())
    rows = {row["figure"]: row for row in read_table(page, "Fidelity and diversity, ")}
    number = compared["metrics"]["synthetic"]["recall/pixels_pca64"]
    assert rows["recall/pixels_pca64"]["synthetic"] == f"{number:.4g}"
    number = compared["metrics"]["holdout"]["recall/pixels_pca64"]
    assert rows["recall/pixels_pca64"]["held-out real"] == f"{number:.4g}"
    part = page[page.index("## Fidelity and privacy") :]
    for conclusion in audited["conclusions"]:
        assert conclusion.split(";")[0][:60] in part
    assert "All figures, and what they would have detected: audits/x/report.html." in part
    assert "power-pixels.png" in part


def accuracy_of(workspace, run):
    result = json.loads((workspace / "runs" / run / "evaluations" / "b" / "result.json").read_text())
    return f"{100 * result['balanced_accuracy']['value']:.1f}"


def test_the_study_ends_with_a_report_of_its_numbers(study):
    folder, workspace = study
    page = (folder / "report.md").read_text()
    assert page.startswith("# Does the chain hold?\n")
    assert page.index("## Answer") < page.index("## Warnings") < page.index("## Results v2") < page.index("## Data")
    plain, ours = read_table(page, "Label version v2")
    assert (plain["method"], ours["method"]) == ("none/sched", "dcan_noreg")
    assert plain["balanced accuracy"] == accuracy_of(workspace, "v2-synthetic-none-sched-seed0")
    assert ours["balanced accuracy"] == accuracy_of(workspace, "v2-synthetic-to-b-dcan_noreg-seed0")
    assert "adapted from synthetic by dcan_noreg (the thesis's variant of DCAN, without its regulariser), the" in page
    jobs = {row["job"]: row for row in read_table(page, "Every job with the command")}
    assert len(jobs) == 10
    assert {row["status"] for row in jobs.values()} == {"done"}
    assert "--seed=0" in jobs["train-baseline-v2-synthetic-none-sched-seed0"]["command"]
    records = read_table(page, "Images of each fold.")
    info = json.loads((workspace / "records" / "b" / "v2" / "8" / "tfcxr_info.json").read_text())
    [tested] = [row for row in records if (row["record set"], row["fold"]) == ("build-records-b-v2", "test")]
    assert tested["images"] == str(info["splits"]["test"]["num_examples"])
    for name in re.findall(r"\]\((\S+?\.png)\)", page):
        assert (folder / name).is_file()
    pictures = page.count("](")
    assert pictures >= 10
    assert (folder / "report.html").read_text().count("data:image/png;base64,") == pictures


def test_a_number_whose_run_was_deleted_is_empty_and_marked(study):
    folder, workspace = study
    lost = workspace / "runs" / "v2-synthetic-to-b-dcan_noreg-seed0" / "evaluations" / "b"
    before = accuracy_of(workspace, "v2-synthetic-to-b-dcan_noreg-seed0")
    assert read_table((folder / "report.md").read_text(), "Label version v2")[1]["balanced accuracy"] == before
    (lost / "result.json").unlink()
    study_report.write(folder, workspace)
    page = (folder / "report.md").read_text()
    plain, ours = read_table(page, "Label version v2")
    assert plain["balanced accuracy"] == accuracy_of(workspace, "v2-synthetic-none-sched-seed0")
    assert ours["balanced accuracy"] == ours["gain"] == "–"
    assert "result.json is gone" in ours["seeds"]
    assert read_table(page, "Other measures in %")[1]["ROC-AUC"] == "–"
    assert "1 row of the table has no result; nothing is said of it." in page
    assert "there is no result (missing: " in page
    assert 'class="alert"' in (folder / "report.html").read_text()


def test_what_a_run_could_not_measure_is_a_dash(study):
    folder, workspace = study
    run = workspace / "runs" / "v2-synthetic-to-b-dcan_noreg-seed0" / "result.json"
    result = json.loads(run.read_text())
    result["best"]["select/target"] = None
    run.write_text(json.dumps(result))
    gan = workspace / "runs" / "gan-a" / "result.json"
    result = json.loads(gan.read_text())
    result["fidelity"] |= {"value": None, "best": None, "best_kimg": None}
    gan.write_text(json.dumps(result))
    described = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps({**described, "question": ""}))
    study_report.write(folder, workspace)
    page = (folder / "report.md").read_text()
    assert page.startswith("# Study tiny\n")  # its name, where there is no question
    assert "target –" in page
    assert "Its best value was –, after – thousand images." in page


class _Links(html.parser.HTMLParser):
    """What a page loads, and the targets of its own links."""

    def __init__(self):
        super().__init__()
        self.loaded, self.anchors, self.ids = [], [], []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        if tag == "a":
            self.anchors.append(found["href"])
        else:
            self.loaded += [found[name] for name in ("src", "href") if name in found]


def test_the_page_needs_nothing_from_elsewhere(study):
    links = _Links()
    page = (study[0] / "report.html").read_text()
    links.feed(page)
    assert links.loaded
    assert all(source.startswith("data:image/png;base64,") for source in links.loaded)
    assert all(anchor.removeprefix("#") in links.ids for anchor in links.anchors)
    assert "prefers-color-scheme: dark" in page
    assert "width=device-width" in page


@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_it_without_a_sideways_scroll(study, width, tmp_path):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium here; the README's optional step installs one")
    folder, _ = study
    # A browser's window has a least width; a frame has not.
    (folder / "frame.html").write_text(
        f'<iframe src="report.html" style="width: {width}px; height: 900px; border: 0"></iframe><pre id="out"></pre>'
        "<script>onload = () => { const page = document.querySelector('iframe').contentDocument; "
        "document.getElementById('out').textContent = JSON.stringify({width: page.documentElement.scrollWidth, "
        "pictures: page.images.length, drawn: [...page.images].filter(i => i.naturalWidth > 0).length, "
        "heading: page.querySelector('h1').textContent}); };</script>"
    )
    command = [
        browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom",
        f"--user-data-dir={tmp_path / 'profile'}", (folder / "frame.html").as_uri(),
    ]  # fmt: skip
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = json.loads(re.search(r'<pre id="out">(\{.*?\})</pre>', shown)[1])
    assert found["width"] <= width
    assert found["drawn"] == found["pictures"] >= 10
    assert found["heading"] == "Does the chain hold?"


def test_published_counts_stand_beside_ours_and_differences_are_marked(tmp_path):
    path = tmp_path / "class_counts.csv"
    path.write_text(
        "label_version,class,split,count,published\n"
        "v1_0s,No Finding,all,60361,60361\nv1_0s,No Finding,train,45497,\nv1_0s,Pneumothorax,all,2194,1093\n"
    )
    [table] = study_report._compare_counts(path)
    assert table.columns == ["label version", "class", "split", "count", "published", "difference"]
    assert table.rows == [
        ["v1_0s", "No Finding", "all", "60,361", "60,361", "0"],
        ["v1_0s", "Pneumothorax", "all", "2,194", "1,093", "1,101"],
    ]
    assert table.alerts == [False, True]
    path.write_text("label_version,class,split,count,published\nv1_0s,No Finding,all,60361,\n")
    assert study_report._compare_counts(path) == []
