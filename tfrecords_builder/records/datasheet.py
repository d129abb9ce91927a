"""The datasheet of a record set: what it holds, how it was made, what it may be used for, as Markdown.

Its sections follow Gebru et al., Datasheets for Datasets, 2021 (https://arxiv.org/abs/1803.09010).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from tfrecords_builder import choices, labels, records
from tfrecords_builder.records import sources

FILE = "DATASHEET.md"
NO_SCORECARD = (
    "audited: no. There is no scorecard of this set: how good it is, and whether it gives away patients, is unknown. "
    "`tfcxr scorecard` makes one."
)

_UNCERTAIN = {
    "zeros": "an uncertain label counts as absent (0)",
    "ones": "an uncertain label counts as present (1)",
    "drop": "a row is left out if a label that its label version looks at is uncertain; other uncertain labels are 0",
}
_SPLITS = {
    "patient": "by patient, stratified by label: all images of a patient are in one split",
    "official": "those that the data set declares itself; if it tells only test from the rest, a tenth of the other "
    "patients, stratified by label, is for validation. All images of a patient are in one split",
    "kfold": "folds of whole patients, stratified by label: all images of a patient are in one split",
    "lists": "as given by split lists, in which no patient is in two splits",
    "index": "by the number of the image within its class; synthetic images belong to no patient",
    "image": "by image, stratified by label. **Images of one patient may be in several splits, so scores on this set "
    "will be too good**",
}
ASPECTS = {
    "stretch": "stretched to a square, whatever the image's aspect",
    "pad": "padded with black to a square, so that the aspect is kept",
    "crop": "cut to the centred square of the shorter side, so that the aspect is kept",
}
CONTRASTS = {
    "none": "not changed",
    "max": "divided, image by image, by the greatest value, so that the brightest pixel is white",
    **{
        name: f"the {name} window of Hounsfield units (centre {centre:g}, width {width:g})"
        for name, (centre, width) in choices.CT_WINDOWS.items()
    },
    "percentile": "stretched, image by image, so that the 0.5th percentile is black and the 99.5th white",
}
_DUPLICATES = {
    "images": "images that repeat the pixels of another",
    "across_patients": "groups of equal images that are under several patients",
    "across_splits": "groups of equal images that are in several splits",
}


def render(info: records.RecordSetInfo, report: Mapping[str, Any], scorecard: Sequence[str] = (NO_SCORECARD,)) -> str:
    """Returns the datasheet of a record set; equal arguments give equal text.

    Args:
        info: the record set.
        report: what build_report.json holds. All keys are optional: `tables` {file: SHA-256}, `rows`, `skipped`
            {reason: count}, `warnings`, `hierarchy` {"child without parent": count}, `duplicates` {what: count}.
        scorecard: lines of the scorecard of a synthetic set, see scorecards.py; others have none.

    Returns:
        Markdown, ending with a line break.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tfrecords_builder"),
        autoescape=False,  # it is Markdown; `text` escapes what comes from outside
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["text"] = _escape
    text = environment.get_template("datasheet.md.j2").render(
        info=info,
        source=sources.lookup(info.source),
        report=report,
        counts=_count(info),
        definitions={name: labels.describe_rule(rule, info.label_set) for name, rule in info.label_definition.items()},
        settings=_settings(info),
        splits=list(info.splits),
        scorecard=scorecard,
        synthetic=info.source.startswith("synthetic:"),
        uncertain=_describe_uncertain(info.uncertain),
        split_policy=_SPLITS.get(info.split_policy, ""),
        aspect=ASPECTS.get(info.aspect, _escape(info.aspect)),
        contrast=CONTRASTS.get(info.contrast, _escape(info.contrast)),
        duplicates={text: report.get("duplicates", {}).get(key, 0) for key, text in _DUPLICATES.items()},
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def _describe_uncertain(policy: str) -> str:
    """The policy in words, and label by label where it differs; empty if there is none."""
    if not policy:
        return ""
    default, *rest = [item.strip() for item in policy.split(",")]
    if ":" in default:
        default, rest = "zeros", [default, *rest]
    words = _UNCERTAIN.get(default, default)
    return f"{words}; other policies for single labels: {', '.join(rest)}" if rest else words


def _count(info: records.RecordSetInfo) -> dict[str, dict[str, list[int | str]]]:
    """Tables of counts: for each row one number per split, then the sum."""
    parts = list(info.splits.values())

    def row(values: list[int]) -> list[int | str]:
        return [*values, sum(values)]

    patients = [part.num_patients for part in parts]
    known = [count for count in patients if count is not None]
    # Under `image` alone a patient may be in several splits, and a sum would count that patient twice.
    add = len(known) == len(parts) and (info.split_policy != "image" or len(parts) == 1)
    return {
        "size": {
            "images": row([part.num_examples for part in parts]),
            "patients": [*("–" if count is None else count for count in patients), sum(known) if add else "–"],
        },
        "classes": {name: row([part.class_counts[name] for part in parts]) for name in info.classes},
        "labels": {name: row([part.label_counts[name] for part in parts]) for name in info.labels},
    }


def _settings(info: records.RecordSetInfo) -> dict[str, str]:
    """The settings of the build and what its provenance holds as single values or short lists."""
    settings: dict[str, Any] = {
        "data set name": info.dataset_name,
        **({} if info.label_set == labels.DEFAULT else {"label set": info.label_set.name}),
        "label version": info.label_version,
        "resolution": info.resolution,
        "uncertain": info.uncertain,
        "split policy": info.split_policy,
        "view": info.view,
        "aspect": info.aspect,
        "contrast": info.contrast,
        "seed": info.seed,
    }
    for key, value in info.provenance.items():
        if isinstance(value, str | int | float) or (
            isinstance(value, list | tuple) and all(isinstance(item, str | int | float) for item in value)
        ):
            settings[key.replace("_", " ")] = value
    return {
        key: ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        for key, value in settings.items()
        if value not in ("", None)
    }


def _escape(value: Any) -> str:
    """One line of plain text that Markdown does not read as markup, in a table cell either."""
    return re.sub(r"([\\|<*`\[])", r"\\\1", " ".join(str(value).split()))
