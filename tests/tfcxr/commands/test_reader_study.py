"""reader-study through its flags: the page, a reading of it, the scores, bad input."""

import base64
import html
import json
import re
import shutil
import subprocess

import pytest
import tensorflow as tf
from scipy import stats

from tests import fakes
from tfcxr import cli, data
from tfcxr.reader_study import page, scoring

# Enough of a browser for the page: elements by id, a store, key presses. The reader answers all, with one reload.
BROWSER = """
const elements = {}, kept = {}, listeners = {};
function element() {
  return { attributes: {}, listeners: {}, hidden: false, value: "", textContent: "",
    setAttribute(name, value) { this.attributes[name] = value; }, focus() {},
    addEventListener(name, call) { this.listeners[name] = call; } };
}
global.document = { getElementById: (id) => (elements[id] ??= element()),
  addEventListener: (name, call) => { listeners[name] = call; } };
global.localStorage = { setItem: (name, value) => { kept[name] = value; }, getItem: (name) => kept[name] ?? null };
const press = (key) => listeners.keydown({ key });
const script = require("fs").readFileSync(0, "utf8");
const run = new Function("document", "localStorage", script + "; return { table, begin };");
let study = run(document, localStorage);
const answer = (number) => { press(number % 3 ? "R" : "s"); press(number % 2 ? "y" : "n"); };
study.begin();
if (elements.count) throw new Error("began without a name");
elements.reader.value = 'Anna "A"';
study.begin();
for (let number = 1; number <= 3; number++) answer(number);
press("ArrowLeft"); press("ArrowRight");
const before = elements.image.src;
study = run(document, localStorage);
elements.image.src = "";
study.begin();
if (elements.image.src !== before) throw new Error("did not go on where it was");
for (let number = 4; number <= 8; number++) answer(number);
if (elements.end.hidden) throw new Error("not finished");
if (elements.summary.textContent !== "All images are answered.") throw new Error(elements.summary.textContent);
process.stdout.write(study.table());
"""


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    return {
        "real": fakes.make_records(root / "real"),
        "synthetic": fakes.make_records(root / "synthetic", with_patients=False, seed=1, source="synthetic:x"),
        "large": fakes.make_records(root / "large", resolution=16),
    }


@pytest.fixture(scope="module")
def study(sets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "study"
    arguments = [f"--real={sets['real']}", f"--synthetic={sets['synthetic']}", "--num_images=8"]
    assert call(*arguments, "--finding=Pneumothorax", f"--output_dir={folder}") == 0
    return folder


def call(*arguments):
    return cli.main(["reader-study", *arguments])


def write_answers(path, study, reader, answers, finding=""):
    name = page.name_study(json.loads((study / "key.json").read_text()))
    lines = [f"{name},{reader},{number},{answer},{finding},1.5" for number, answer in enumerate(answers, start=1)]
    path.write_text("\n".join(["study,reader,number,answer,finding,seconds", *lines]) + "\n")
    return path


def test_the_page_holds_the_images_and_not_the_key(sets, study):
    key = json.loads((study / "key.json").read_text())
    text = (study / "reader_study.html").read_text()
    images = json.loads(re.search(r"const IMAGES = (\[.*?\]);", text).group(1))
    assert len(images) == len(key["images"]) == 8
    assert sorted(row["set"] for row in key["images"]) == ["real"] * 4 + ["synthetic"] * 4
    assert [row["set"] for row in key["images"]] != ["real"] * 4 + ["synthetic"] * 4
    truth = {}
    for name, split in (("real", "test"), ("synthetic", "train")):
        for row in data.read_records(sets[name], split).as_numpy_iterator():
            truth[name, row["image/id"].decode()] = row
    for row, image in zip(key["images"], images, strict=True):
        expected = truth[row["set"], row["id"]]
        assert (tf.io.decode_png(base64.b64decode(image)).numpy() == expected["image"]).all()
        assert row["finding"] == (expected["label/vector"][fakes.labels.LABELS.index("Pneumothorax")] == 1)
    assert f'const STUDY = "{page.name_study(key)}"' in text
    assert not any(word in text for word in (key["salt"], "train-0", "test-0", "fake"))
    assert "http" not in text  # works offline


# What a reader does in a real browser: first half of the images by keys and clicks, a reload, the other half.
CHROMIUM = """
<script>
const press = (key) => document.dispatchEvent(new KeyboardEvent("keydown", { key }));
const click = (id) => document.getElementById(id).click();
document.getElementById("reader").value = "Ben";
click("begin");
const last = current + 4;
for (let number = current + 1; number <= last; number++) {
  if (number % 2) { click("synthetic"); click("no"); } else { press("r"); press("Y"); }
}
const loaded = document.getElementById("image").naturalWidth || document.getElementById("image").src.length > 100;
const saved = table();
document.body.innerHTML = "<pre></pre>";
document.querySelector("pre").textContent = JSON.stringify({ current, loaded: !!loaded, saved });
</script>
"""


@pytest.mark.large
def test_the_page_in_chromium(study, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium")
    path = tmp_path / "page.html"
    path.write_text((study / "reader_study.html").read_text().replace("</body>", f"{CHROMIUM}</body>"))
    options = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
    command = [chromium, *options.split(), f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000"]
    for expected in (4, 8):
        done = subprocess.run([*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, check=True)
        found = json.loads(html.unescape(re.search(r"<pre>(.*?)</pre>", done.stdout, re.DOTALL).group(1)))
        lines = found["saved"].splitlines()[1:]
        answers = ["synthetic" if number % 2 else "real" for number in range(1, expected + 1)]
        assert [line.split(",")[3] for line in lines] == answers + [""] * (8 - expected)
        assert found["loaded"]
    (tmp_path / "ben.csv").write_text(found["saved"])
    arguments = [f"--study={study}", f"--score={tmp_path / 'ben.csv'}", f"--output_dir={tmp_path / 'out'}"]
    assert call(*arguments) == 0
    scores = json.loads((tmp_path / "out/result.json").read_text())["readers"]["Ben"]
    assert scores["answered"] == scores["finding"]["of"] == 8


def test_a_reading_of_the_page(study, tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs Node.js to run the page's script")
    script = re.search(r"<script>(.*?)</script>", (study / "reader_study.html").read_text(), re.DOTALL).group(1)
    done = subprocess.run([node, "-e", BROWSER], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(",")[3] for line in lines[1:]] == ["synthetic" if n % 3 == 0 else "real" for n in range(1, 9)]
    assert [line.split(",")[4] for line in lines[1:]] == ["yes" if n % 2 else "no" for n in range(1, 9)]
    (tmp_path / "anna.csv").write_text(done.stdout)
    arguments = [f"--study={study}", f"--score={tmp_path / 'anna.csv'}", f"--output_dir={tmp_path / 'out'}"]
    assert call(*arguments) == 0
    key = json.loads((study / "key.json").read_text())
    right = [row["set"] == ("synthetic" if row["number"] % 3 == 0 else "real") for row in key["images"]]
    scores = json.loads((tmp_path / "out/result.json").read_text())["readers"]['Anna "A"']
    assert scores["accuracy"]["value"] == sum(right) / 8
    found = [row["finding"] == (row["number"] % 2 == 1) for row in key["images"]]
    assert scores["finding"]["value"] == sum(found) / 8


def test_scores_have_exact_intervals_and_agreement(study, tmp_path, capsys):
    truth = [row["set"] for row in json.loads((study / "key.json").read_text())["images"]]
    flipped = [{"real": "synthetic", "synthetic": "real"}[answer] for answer in truth]
    files = [
        write_answers(tmp_path / "a.csv", study, "anna", truth),
        write_answers(tmp_path / "b.csv", study, "ben", [*truth[:6], *flipped[6:]]),
        write_answers(tmp_path / "c.csv", study, "cem", [*flipped[:7], ""]),
    ]
    out = tmp_path / "out"
    assert call(f"--study={study}", f"--score={','.join(map(str, files))}", f"--output_dir={out}") == 0
    result = json.loads((out / "result.json").read_text())
    anna, ben, cem = (result["readers"][name] for name in ("anna", "ben", "cem"))
    # All eight right: the lower end is the 8th root of 0.025.
    assert anna["accuracy"]["value"] == 1
    assert anna["accuracy"]["ci95"] == pytest.approx([0.025 ** (1 / 8), 1])
    assert anna["p_value"] == pytest.approx(2 / 256)
    assert ben["accuracy"]["value"] == 0.75
    assert ben["accuracy"]["ci95"][0] == pytest.approx(stats.beta.ppf(0.025, 6, 3))
    assert (cem["answered"], cem["left_out"], cem["accuracy"]["value"]) == (7, 1, 0)
    pairs = {tuple(pair["readers"]): pair for pair in result["pairs"]}
    assert pairs["anna", "ben"]["agreement"] == 0.75
    assert pairs["anna", "cem"]["agreement"] == 0
    assert pairs["anna", "cem"]["of"] == 7
    share = sum(answer == "real" for answer in [*truth[:6], *flipped[6:]]) / 8
    chance = 0.5 * share + 0.5 * (1 - share)
    assert pairs["anna", "ben"]["kappa"] == pytest.approx((0.75 - chance) / (1 - chance))
    printed = capsys.readouterr().out
    assert "| anna | 8 | 100.0 (63.1–100.0) |" in printed
    assert "Warning: cem left out 1 images." in printed
    assert (out / "scores.csv").read_text().startswith("reader,measure,value,low,high,of\nanna,accuracy,1.0,0.63")


def test_bad_input_is_one_line(sets, study, tmp_path, capsys):
    real, synthetic, answers = f"--real={sets['real']}", f"--synthetic={sets['synthetic']}", ["real"] * 8
    good = write_answers(tmp_path / "good.csv", study, "anna", answers)
    changed = tmp_path / "changed"
    shutil.copytree(study, changed)
    key = json.loads((changed / "key.json").read_text())
    key["images"][0]["set"] = "real" if key["images"][0]["set"] == "synthetic" else "synthetic"
    (changed / "key.json").write_text(json.dumps(key))
    other_key = tmp_path / "other_key"
    other_key.mkdir()
    (other_key / "key.json").write_text('{"schema_version": 1}')
    odd = write_answers(tmp_path / "odd.csv", study, "ben", ["fake", *answers[1:]])
    many = write_answers(tmp_path / "many.csv", study, "ben", [*answers, "real"])
    blank = write_answers(tmp_path / "blank.csv", study, "ben", [""] * 8)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    heads = tmp_path / "heads"
    shutil.copytree(sets["synthetic"], heads)
    info = json.loads((heads / "tfcxr_info.json").read_text())
    info["label_set"] = {**info["label_set"], "images": "CT slices of heads"}
    (heads / "tfcxr_info.json").write_text(json.dumps(info))
    score = f"--study={study}"
    cases = [
        ([real], ["--synthetic is required unless --score"]),
        ([real, synthetic, "--num_images=7"], ["must be even"]),
        ([real, synthetic], ["--real=", "the test split has 16 images, --num_images=60 needs 30"]),
        ([real, f"--synthetic={sets['large']}"], ["--synthetic=", "images are 16 px, not 8"]),
        (
            [real, f"--synthetic={sets['real']}", "--split=train", "--num_images=2"],
            ["--synthetic=", "an image would be real and synthetic at once"],
        ),
        ([real, f"--synthetic={heads}", "--num_images=2"], ["shows CT slices of heads, --real=", "chest radiographs"]),
        ([real, synthetic, "--finding=Cold"], ["--finding=Cold: is no label of these records; choose of No Finding"]),
        ([f"--score={good}"], ["--study is required"]),
        ([f"--study={sets['real']}", f"--score={good}"], ["has no key.json"]),
        ([f"--study={changed}", f"--score={good}"], ["answers study", "or was changed since"]),
        ([f"--study={other_key}", f"--score={good}"], ["key.json: is no key of this version"]),
        ([score, f"--score={good},{good}"], ["answers of reader 'anna' already"]),
        ([score, f"--score={odd}"], ["odd.csv: line 2: answer is 'fake', not real"]),
        ([score, f"--score={many}"], ["many.csv: line 10: image '9' is not in the study"]),
        ([score, f"--score={blank}"], ["blank.csv: has no answers"]),
        ([score, f"--score={tmp_path / 'other.csv'}"], ["has no column study"]),
        ([score, f"--score={tmp_path / 'none.csv'}"], ["none.csv: cannot be read"]),
    ]
    capsys.readouterr()
    for arguments, words in cases:
        assert call(*arguments, f"--output_dir={tmp_path / 'out'}") == 2, arguments
        err = capsys.readouterr().err
        assert err.count("\n") == 1, err
        assert all(word in err for word in words), err
        assert not (tmp_path / "out").exists()


def test_a_name_with_a_bar_is_one_cell():
    score = {"value": 0.5, "ci95": [0.4, 0.6]}
    scores = dict.fromkeys(("accuracy", "synthetic_recognised", "real_recognised"), score)
    reader = scores | {"answered": 4, "left_out": 0, "p_value": 1.0}
    pair = {"readers": ["a|b", "c"], "of": 4, "agreement": 0.5, "kappa": None}
    result = {"study": "x", "num_images": 4, "finding": "", "readers": {"a|b": reader, "c": reader}, "pairs": [pair]}
    rows = [line for line in scoring.to_markdown(result).splitlines() if line.startswith("|")]
    assert rows[2].startswith("| a\\|b | 4 |")
    # As many cells as the head of its table has.
    assert [len(re.split(r"(?<!\\)\|", row)) for row in rows] == [8] * 4 + [6] * 3
    assert rows[-1].startswith("| a\\|b and c |")
