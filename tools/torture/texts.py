"""Surfaces of what people write: label tables, JSON files, flagfiles, study files, plans. Hypothesis draws them."""

import contextlib
import csv
import dataclasses
import functools
import gzip
import io
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from absl import flags
from hypothesis import strategies as st

from flags import app
from tests import fake_data_sets, fakes, study_runs
from tfrecords_builder import csv_files, json_lines, labels, readers
from tfrecords_builder.errors import InputError
from tools.torture.trials import SilentlyWrong, Surface, draw

# What has broken readers before, here and elsewhere.
_TOKENS = (
    "", " ", "nan", "NaN", "inf", "-inf", "-1", "-1.0", "1.0", "1", "0", "2", "1e400", "-0.0", "0x1", "1_0", "\u0661",
    "\uff11", "True", "null", "None", "[]", "{}", "[[", "\ufeff", "\r", "\n", "\r\n", "\t", ",", ";", '"', '""', "'",
    "|", "\\", "../..", "/", "~", "C:\\x", "a" * 300, "9" * 400, "999999999999", "1" * 19, "=1+1", "<b>", "\u00e9",
    "e\u0301", "\u2028", "\x85", "\x0b", "\x1c", "\x7f", "\x00", "\U0001d7cf", "%s", "${HOME}", "--", "--x=1", "#",
    "No Finding", "Edema", "train", "test", "valid", "patient", "061Y", "200Y", "-5", "1.5", "1900-01-01", "PA", "LL",
)  # fmt: skip
_PAYLOADS = st.one_of(st.sampled_from(_TOKENS), st.text(max_size=12), st.integers().map(str), st.floats().map(str))
_EDITS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 10**6), st.integers(0, 40), _PAYLOADS), max_size=4)


def _edit(text: str, edits: Sequence[tuple[int, int, int, str]]) -> bytes:
    """Changes cells, columns, lines and characters; the last kinds of edits change the bytes."""
    last = None
    for kind, place, other, payload in edits:
        lines = text.split("\n")
        row = place % len(lines)
        cells = lines[row].split(",")
        at = place % (len(text) + 1)
        if kind <= 2:  # a cell
            cells[other % len(cells)] = payload.replace("\n", " ") if kind else payload
            lines[row] = ",".join(cells)
            text = "\n".join(lines)
        elif kind == 3:  # a column's name
            head = lines[0].split(",")
            head[other % len(head)] = payload
            text = "\n".join([",".join(head), *lines[1:]])
        elif kind == 4:  # a line is doubled, at another place
            lines.insert(other % (len(lines) + 1), lines[row])
            text = "\n".join(lines)
        elif kind == 5:
            text = text[:at] + payload + text[at:]
        elif kind == 6:
            text = text[:at] + text[at + other :]
        elif kind == 7:
            text = text[:at]
        elif kind == 8:
            text = text.replace(",", ("\t", ";", ",,", " , ")[other % 4])
        else:
            last = other
    data = text.encode("utf-8", "surrogatepass")
    if last is None:
        return data
    return (text.encode("utf-16", "surrogatepass"), text.encode("latin-1", "replace"), data + b"\xff", data + b"\0",
            data.replace(b"\n", b"\r\n"), data.replace(b"\n", b"\r"), b"\xef\xbb\xbf" + data)[last % 7]  # fmt: skip


def edited(*texts: str) -> Callable[[int], Iterable[bytes]]:
    """Inputs: the texts, edited."""
    strategy = st.builds(_edit, st.sampled_from(texts), _EDITS)
    return lambda seed: itertools.chain((text.encode() for text in texts), draw(strategy, seed))


# Tables that are read back.

_HEADER = ("Path", "Sex", "Age", "No Finding", "Edema")
_CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
_ROUND = st.tuples(
    st.lists(st.tuples(*[_CELL] * len(_HEADER)), min_size=1, max_size=6),
    st.sampled_from(",;\t"),
    st.sampled_from(("\n", "\r\n")),
    st.sampled_from((csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC)),
    st.sampled_from(("utf-8", "utf-8-sig", "utf-16")),
)


def _write_round(drawn: tuple) -> bytes:
    """A table as JSON of its cells, a line feed, and its bytes."""
    rows, separator, end, quoting, encoding = drawn
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=separator, lineterminator=end, quoting=quoting).writerows([_HEADER, *rows])
    return json.dumps(rows).encode() + b"\n" + stream.getvalue().encode(encoding)


def _read_round(folder: pathlib.Path, data: bytes) -> None:
    rows, _, content = data.partition(b"\n")
    path = folder / "round.csv"
    path.write_bytes(content)
    raw = csv_files.read_table(path, _HEADER)
    found = [raw.convert(column, str).tolist() for column in _HEADER]
    expected = [[cell.strip() for cell in row] for row in json.loads(rows) if any(row)]
    if [list(row) for row in zip(*found, strict=True)] != expected:
        raise SilentlyWrong(f"{found} instead of {expected}")


# Tables of data sets.


@dataclasses.dataclass(frozen=True)
class _Set:
    """A data set whose table is changed: its folder, the table in it, and how it is read."""

    dataset: str
    make: Callable[[pathlib.Path], Any]
    table: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    below: str = "."


def _folder_columns(*items: str, dataset: str = "folder") -> Any:
    values = ["NORMAL:No Finding", "PNEUMONIA:Pneumonia", "TB:Infiltration"] if dataset == "folder" else []
    return readers.choose_columns(dataset, list(items), values, "")


def _make_described(folder: pathlib.Path, name: str) -> None:
    rows: list[dict[str, Any]] = [
        {"file_name": "a.png", "label": "Effusion", "patient_id": "p1"},
        {"file_name": "sub/b.png", "label": "normal", "patient_id": 2},
        {"file_name": "c.png", "label": ["Edema", "Effusion"], "patient_id": "p3"},
    ]
    for row in rows:
        fake_data_sets.write_image(folder / row["file_name"])
    if name.endswith("jsonl"):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        lines = [["a.png", "Effusion", "p1"], ["sub/b.png", "normal", "p2"], ["c.png", "Edema", "p3"]]
        fake_data_sets.write_table(folder / name, ["file_name", "label", "patient_id"], lines)


_SETS = {
    "chexpert": _Set(
        "chexpert", lambda folder: fakes.make_chexpert(folder, num_patients=4, num_valid=1, size=8), "train.csv",
        below="CheXpert-v1.0-small",
    ),
    "chestxray": _Set(
        "chestxray", lambda folder: fakes.make_chestxray(folder, num_patients=5, size=8), "Data_Entry_2017.csv",
        {"official": True},
    ),
    "chestxray_lists": _Set(
        "chestxray", lambda folder: fakes.make_chestxray(folder, num_patients=5, size=8), "test_list.txt",
        {"official": True},
    ),
    "folder": _Set("folder", lambda folder: fakes.make_folder_set(folder, num_patients=6, size=8), "table.csv"),
    "chexlocalize": _Set("chexlocalize", fake_data_sets.make_chexlocalize, "CheXpert/test_labels.csv"),
    "chexpert_plus": _Set("chexpert_plus", fake_data_sets.make_chexpert_plus, "df_chexpert_plus_240401.csv"),
    "chexpert_plus_json": _Set(
        "chexpert_plus", fake_data_sets.make_chexpert_plus, "chexbert_labels/impression_fixed.json"
    ),
    "mimic_cxr": _Set("mimic_cxr", fake_data_sets.make_mimic_cxr, "mimic-cxr-2.0.0-chexpert.csv.gz"),
    "mimic_cxr_metadata": _Set("mimic_cxr", fake_data_sets.make_mimic_cxr, "mimic-cxr-2.0.0-metadata.csv.gz"),
    "padchest": _Set(
        "padchest", fake_data_sets.make_padchest, "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz"
    ),
    "rsna_pneumonia": _Set("rsna_pneumonia", fake_data_sets.make_rsna_pneumonia, "stage_2_train_labels.csv"),
    "rsna_mappings": _Set(
        "rsna_pneumonia", functools.partial(fake_data_sets.make_rsna_pneumonia, mappings=True),
        "pneumonia-challenge-dataset-mappings_2018.json",
    ),
    "siim_acr": _Set("siim_acr", fake_data_sets.make_siim_acr, "train-rle.csv"),
    "vindr_cxr": _Set("vindr_cxr", fake_data_sets.make_vindr_cxr, "annotations/image_labels_train.csv"),
    "metadata_csv": _Set("imagefolder", lambda folder: _make_described(folder, "metadata.csv"), "metadata.csv"),
    "metadata_jsonl": _Set("imagefolder", lambda folder: _make_described(folder, "metadata.jsonl"), "metadata.jsonl"),
}  # fmt: skip


def _table_surface(name: str, folder: pathlib.Path) -> Surface:
    of = _SETS[name]
    of.make(folder)
    root = folder / of.below
    path = root / of.table
    zipped = path.suffix == ".gz"
    base = gzip.decompress(path.read_bytes()).decode() if zipped else path.read_text()
    options = dict(of.options)
    if of.dataset in ("folder", "imagefolder"):
        items = (
            ("path:file", "patient:pid", "class:finding", "age:years", "split:part") if of.dataset == "folder" else ()
        )
        options["columns"] = _folder_columns(*items, dataset=of.dataset)

    def check(data: bytes) -> None:
        path.write_bytes(gzip.compress(data, 1) if zipped else data)
        table = readers.read(of.dataset, root, **options)
        values = table.frame[list(table.label_set.labels)].to_numpy(np.float64)
        if not np.isin(values[~np.isnan(values)], (-1, 0, 1)).all():
            raise SilentlyWrong("a label is none of -1, 0, 1")
        if table.frame["id"].duplicated().any() or not len(table.frame) + len(table.skipped):
            raise SilentlyWrong("an image twice, or no row at all")
        if name == "chexpert":
            _compare_chexpert(data, table)

    return Surface(edited(base), check, count=3000)


def _compare_chexpert(data: bytes, table: readers.Table) -> None:
    """Compares labels with what Python's own reader of CSV finds in a table of UTF-8 with commas."""
    try:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), skipinitialspace=True))
    except (UnicodeDecodeError, csv.Error):
        return
    header = [name.strip() for name in rows[0]] if rows else []
    if "Path" not in header or any(header.count(label) != 1 for label in (*labels.LABELS, "Path")):
        return
    expected = {}
    for row in rows[1:]:
        if len(row) >= len(header):
            cells = dict(zip(header, map(str.strip, row), strict=False))
            image = cells["Path"].replace("\\", "/").removeprefix("./")
            expected[image.partition("/")[2]] = [float(cells[label] or "nan") for label in labels.LABELS]
    for image, *values in table.frame[["id", *labels.LABELS]].to_numpy().tolist():
        key = next((key for key in (image, image.partition("/")[2]) if key in expected), None)
        if key and not np.array_equal(np.array(values, float), expected[key], equal_nan=True):
            raise SilentlyWrong(f"{image}: {values} instead of {expected[key]}")


# Other files, each read by one function.


def _file_surface(folder: pathlib.Path, name: str, read: Callable[[pathlib.Path], object], *texts: str) -> Surface:
    def check(data: bytes) -> None:
        (folder / name).write_bytes(data)
        read(folder / name)

    return Surface(edited(*texts), check, count=4000)


_JSON_EDITS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 4)), min_size=1, max_size=2)
_JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), _PAYLOADS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_PAYLOADS, inner, max_size=3)),
    max_leaves=6,
)


def _places(value: Any, path: tuple = ()) -> list[tuple]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in inner for place in _places(each, (*path, key)))]


def _edit_json(text: str, edits: Sequence[tuple[int, int]], values: Sequence[Any]) -> bytes:
    """Replaces, removes or adds values of a JSON text, which stays JSON (or Python's kind of it, with NaN)."""
    value = json.loads(text)
    for (number, kind), new in zip(edits, values, strict=False):
        places = _places(value)
        *above, key = (None, *places[number % len(places)])
        if not above:
            value = new
            continue
        holder = value
        for step in above[1:]:
            holder = holder[step]
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[str(new)] = holder.pop(key)
        else:
            holder[key] = new
    return json.dumps(value).encode("utf-8", "surrogatepass")


def edited_json(*texts: str) -> Callable[[int], Iterable[bytes]]:
    """Inputs: JSON texts, half of them edited as values and half as characters."""
    by_value = st.builds(
        _edit_json, st.sampled_from(texts), _JSON_EDITS, st.lists(_JSON_VALUES, min_size=2, max_size=2)
    )
    return lambda seed: draw(st.one_of(by_value, st.builds(_edit, st.sampled_from(texts), _EDITS)), seed)


_LABEL_SET = {
    "name": "mine", "labels": ["No Finding", "Edema", "Mass", "Big Mass"], "no_finding": "No Finding",
    "parents": {"Big Mass": "Mass"}, "synonyms": {"oedema": "Edema"}, "images": "chest radiographs",
}  # fmt: skip
_VERSIONS = {"own": {"a": {"one": ["Edema"]}, "b": {"one": ["No Finding"], "zero": "others"}}}
_LABEL_MAP = {"Lung Opacity": "Infiltration", "Fracture": None, "Lung Lesion": ["Mass", "Nodule"],
              "Enlarged Cardiomediastinum": None, "Pleural Other": None, "Support Devices": None}  # fmt: skip


def _json_surface(folder: pathlib.Path, name: str, read: Callable[[pathlib.Path], object], value: Any) -> Surface:
    surface = _file_surface(folder, name, read)
    return dataclasses.replace(surface, inputs=edited_json(json.dumps(value)))


def _label_map(folder: pathlib.Path) -> Surface:
    from tfrecords_builder.readers import label_maps

    read = functools.partial(
        label_maps.load, source=labels.get_label_set("chexpert14"), target=labels.get_label_set("nih14")
    )
    return _json_surface(folder, "map.json", read, _LABEL_MAP)


def _record_set(folder: pathlib.Path) -> Surface:
    """tfcxr_info.json of a set."""
    from tfrecords_builder import records

    path = fakes.make_records(folder / "set", per_class=2, splits=("train",))
    text = (path / records.INFO_FILE).read_text()

    def read(file: pathlib.Path) -> None:
        info = records.load_info(file.parent)
        if info.version.class_names != info.classes and not info.multilabel:
            raise SilentlyWrong("classes of another definition")

    return _json_surface(path, records.INFO_FILE, read, json.loads(text))


def _plan(folder: pathlib.Path) -> Surface:
    """Plans of the images to generate; what is accepted holds as many images as the counts say."""
    from tfcxr import zoo
    from tfcxr.gan import loading
    from tfcxr.generation import plans, table_plan

    plans.MAX_IMAGES = 10**6  # so that memory for a huge plan is not what is tried
    generator = loading.load(zoo.folders()["nih_32"])
    version = labels.get_label_version("multilabel", label_set=generator.label_set)
    names = generator.label_set.labels[:3]
    base = f"count,split,{','.join(names)}\n3,train,1,0,0\n2,validation,0,1,1\n10,test,0,1,0\n"

    def check(data: bytes) -> None:
        path = folder / "plan.csv"
        path.write_bytes(data)
        plan = table_plan.plan_table(generator, version, path, seed=0)
        raw = csv_files.read_table(path, csv_files.read_header(path))
        counts = next((raw.convert(name, int) for name in raw.codes if name.casefold() == "count"), None)
        if len(plan) != (len(raw.lines) if counts is None else int(counts.sum())):
            raise SilentlyWrong(f"{len(plan)} images")

    return Surface(edited(base, base.replace("split,", "").replace("train,", "").replace("validation,", "")
                          .replace("test,", "")), check, count=4000)  # fmt: skip


# Flagfiles and studies, through the programs.


def _flags_of(kind: str) -> Callable:
    import importlib

    from tfcxr import cli

    return importlib.import_module(cli.COMMANDS[kind][0]).define_flags


def _flagfile(folder: pathlib.Path) -> Surface:
    """Flagfiles of every command, made of its own presets or defaults."""
    from tfcxr import cli

    path, texts, defined = folder / "some.flags", [], {}
    for kind in cli.COMMANDS:
        defined[kind] = _flags_of(kind)
        fv = flags.FlagValues()
        defined[kind](fv)
        given = "".join(f"{fv[name].serialize()}\n" for name in sorted(fv) if fv[name].value not in (None, []))
        texts.append(f"{kind}\n# what it is\n{given}--flagfile=\n")

    def check(data: bytes) -> None:
        first, _, rest = data.partition(b"\n")
        path.write_bytes(rest)
        kind = first.decode("utf-8", "replace")
        required = [f"--{name}={folder}" for name in ("records", "source_records", "target_records", "run_dir")]
        define = defined.get(kind, defined["study"])
        fv = flags.FlagValues()
        define(fv)
        given = [flag for flag in required if flag[2:].partition("=")[0] in fv]
        app.parse(define, [kind, f"--flagfile={path}", *given, *(["--output_dir=x"] if "output_dir" in fv else [])])

    return Surface(edited(*texts), check, count=6000)


def _study(folder: pathlib.Path) -> Surface:
    """Study files, by --dry_run: they are read, planned, and the flags of all jobs checked."""
    from tfcxr.commands import study

    path = folder / "some.flags"

    def check(data: bytes) -> None:
        path.write_bytes(data)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
            place = pathlib.Path.cwd()
            os.chdir(folder)
            try:
                arguments = ["study", f"--flagfile={path}", f"--workspace={folder / 'w'}", "--dry_run"]
                code = app.run(study.main, study.define_flags, arguments)
            finally:
                os.chdir(place)
        if code not in (0, 1, 2) or (code and said.getvalue().count("\n") != 1):
            raise SilentlyWrong(f"exit code {code}, {said.getvalue()[:300]!r}")
        if code:
            raise InputError(said.getvalue().strip())

    return Surface(edited(study_runs.DEFINITION), check, count=3000)


def _notations(_: pathlib.Path) -> Surface:
    """Small languages of flags: cells, sources, augmentations, schedules, columns, label lists."""
    from tfcxr.gan.training import augment, schedule
    from tfcxr.studies import definition
    from tfrecords_builder.labels import combinations, uncertain
    from tfrecords_builder.readers import folder_columns

    examples = (
        "a, b@10%>c+d -> e: none/sched, dcan", "name: set --flag='a b'", "translation,zoom", "8:64,16:32",
        "path:file,patient:pid", "NORMAL:No Finding", "zeros", "Edema:ones,rest:drop", r"(person\d+)_", "Edema|Mass",
        "train-gan: --time=1", "demo/x --y=1",
    )  # fmt: skip
    calls: list[tuple[Callable[[str], object], type[Exception]]] = [
        (definition.parse_cells, InputError),
        (lambda text: definition.parse_named("records", [text]), InputError),
        (lambda text: definition.parse_learned("synthetic", "x", text), InputError),
        (lambda text: definition.parse_tokens("gan_flags", text), InputError),
        (augment.parse, ValueError),  # the command adds the flag's name
        (schedule.parse_table, ValueError),
        (functools.partial(schedule.parse_table, kind=float), ValueError),
        (lambda text: folder_columns.parse_columns(text.split(",")), InputError),
        (lambda text: folder_columns.parse_class_values(text.split(",")), InputError),
        (folder_columns.parse_patient_pattern, InputError),
        (uncertain.parse_uncertain, InputError),
        (lambda text: combinations.parse(text, labels.LABELS), ValueError),
    ]

    def check(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        for call, refusal in calls:
            with contextlib.suppress(refusal):
                call(text)

    return Surface(edited(*examples), check, count=6000)


def _json_line_table(folder: pathlib.Path) -> Surface:
    lines = [{"path": "a.png", "Edema": 1.0, "x": [1, "b"]}, {"path": "b.png", "Edema": None}]
    text = "".join(json.dumps(line) + "\n" for line in lines)

    def read(path: pathlib.Path) -> None:
        json_lines.read_table(path, json_lines.read_header(path))

    return _file_surface(folder, "table.jsonl", read, text)


def _split_lists(folder: pathlib.Path) -> Surface:
    from tfrecords_builder.splits import lists

    text = "patient,id,split\np1,a.png,train\np2,,val\n,b.png,test\n"
    return _file_surface(folder, "lists.csv", lists.read_lists, text)


def _round_trip(folder: pathlib.Path) -> Surface:
    return Surface(
        lambda seed: draw(_ROUND.map(_write_round), seed), functools.partial(_read_round, folder), count=6000
    )


SURFACES: dict[str, Callable[[pathlib.Path], Surface]] = {
    "table_round_trip": _round_trip,
    **{f"table_{name}": functools.partial(_table_surface, name) for name in _SETS},
    "json_lines": _json_line_table,
    "split_lists": _split_lists,
    "label_set": lambda folder: _json_surface(
        folder, "set.json", lambda path: labels.get_label_set(str(path)), _LABEL_SET
    ),
    "label_versions": lambda folder: _json_surface(folder, "own.json", labels.load_label_versions, _VERSIONS),
    "label_map": _label_map,
    "record_set_info": _record_set,
    "plan": _plan,
    "flagfile": _flagfile,
    "study": _study,
    "notations": _notations,
}
