"""Model cards of exports: what a model is, what it was trained on, how good it is, and what it must not be used for.

Mitchell et al., "Model Cards for Model Reporting", FAT* 2019.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfrecords_builder.labels import canonical
from tfrecords_builder.records import datasheet

_LICENCE = (
    "The code is under Apache-2.0. Whoever uses the weights is also bound by the terms of the data they were trained "
    "on: see DATASHEET.md in the record sets whose digests are above."
)
_NO_DEVICE = "Not a medical device; not for diagnosis."

_ALIGNMENTS = {"none": "without adaptation", "dcan_noreg": "the thesis's variant of DCAN, without its regulariser"}


def classifier_card(
    config: Mapping[str, Any], result: Mapping[str, Any], evaluations: Sequence[Mapping[str, Any]] = ()
) -> str:
    """Markdown about a classifier.

    Args:
      config: see `loading.load_classifier_config`.
      result: result.json of the run; empty if it is not finished.
      evaluations: result.json of each evaluation to report.
    """
    classes = config["classes"]
    size = config["resolution"]
    aspect, contrast = config["aspect"] or "stretch", config["contrast"] or "none"
    unknown = [
        "With which --aspect and --contrast its training images began is not known, as they are synthetic: "
        f"--aspect={aspect} and --contrast={contrast} are a guess."
    ]
    method = "trained on labelled images"
    if config["kind"] == "dcan":
        name = config.get("alignment", "dcan")
        method = f"trained on labelled source and unlabelled target images ({_ALIGNMENTS.get(name, name)})"
    return _card(
        f"Chest radiograph classifier, label version {config['label_version']}",
        f"A network with the backbone {config['backbone']} that sees {config['image_size']} x {config['image_size']} "
        f"pixels, {method}.",
        {
            "Output": "\n".join(
                [
                    "Probabilities of classes that exclude each other; they were not calibrated:",
                    "",
                    *[f"{k}. {name}" for k, name in enumerate(classes)],
                ]
            ),
            "Input": (
                f"Frontal chest radiographs. `image_bytes`: PNG of 8 or 16 bits, or JPEG, grey or colour, of any "
                f"size; inside, they become grey, {size} x {size} pixels and 8 bits as build-records made the training "
                f"records, with --aspect={aspect} ({datasheet.ASPECTS[aspect]}) and --contrast={contrast} "
                f"({datasheet.CONTRASTS[contrast]}). `tf_example`: records "
                "of build-records: tf.train.Example with `image/encoded`, whose contrast has been set. `image_tensor`: "
                "float [N, H, W, 1] in [0, 1], made from files in that way."
            ),
            "Intended use": f"Research on learning from synthetic and foreign images. {_NO_DEVICE}",
            "Training data": _list(f"{flag}: digest {digest}" for flag, digest in config["records"].items()),
            "Selection": _selection(result),
            "Evaluation": _evaluation(evaluations, classes),
            "Limits": _list(
                [
                    "It names one of its classes for any image: for lateral views, other organs and photographs, too.",
                    "On images of another hospital, device or population expect worse than above.",
                    "Labels of public sets were mined from reports and are partly wrong; no reader has checked those "
                    "of synthetic images.",
                    *(() if config["aspect"] else unknown),
                ]
            ),
            "Licence": _LICENCE,
        },
    )


def generator_card(description: Mapping[str, Any], seen: Sequence[str]) -> str:
    """Markdown about a generator.

    Args:
      description: see `gan.loading.description`.
      seen: the labels that it was conditioned on.
    """
    network = description["network"]
    kind = "prog-GAN" if network["arch"] == "prog" else f"cpD-GAN ({network['g_arch']} architecture)"
    size = network["resolution"]
    return _card(
        f"Chest radiograph generator {description['name']}",
        f"A {kind} generator of grey images of {size} x {size} pixels, with averaged weights after "
        f"{description['kimg']:g} thousand real images.",
        {
            "Input": (
                f"Labels [N, {len(canonical.LABELS)}] in {{0, 1}} in the order of label_names.txt, at least one 1 "
                f"among those that it was conditioned on: {', '.join(seen)}. A seed, or latents [N, "
                f"{description['latent_size']}] from N(0, I)."
            ),
            "Intended use": (
                "Research on learning from synthetic images. The images show no patient and are no evidence of any "
                f"disease. {_NO_DEVICE}"
            ),
            "Training data": _list(
                [
                    *[f"{flag}: digest {digest}" for flag, digest in description["records"].items()],
                    *[
                        f"{row['count']} images: {row['labels'].replace('|', ', ')}"
                        for row in description["combinations"][:10]
                    ],
                ]
            ),
            "Limits": _list(
                [
                    "Images may repeat features of training images; nothing here guarantees privacy.",
                    "A label is what the network was asked for, not what a reader would see in the image.",
                    "Combinations of labels that the training data lack are extrapolated.",
                ]
            ),
            "Licence": _LICENCE,
        },
    )


def _card(title: str, summary: str, sections: Mapping[str, str]) -> str:
    parts = [f"# {title}", summary, *(f"## {name}\n\n{text}" for name, text in sections.items())]
    return "\n\n".join(parts) + "\n"


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines) or "Not known."


def _selection(result: Mapping[str, Any]) -> str:
    if "best" not in result:
        return "The training is not finished: these are its best weights so far."
    best, criterion = result["best"], result["select"]
    lines = [f"Weights of step {best['step']}, chosen by: {criterion}."]
    if result.get("selected_on_target_labels"):
        lines.append("This used labels of the target domain.")
    # A baseline has one validation fold, of its source.
    for fold in ("validation", "source", "target"):
        if (accuracy := best.get(f"{fold}/balanced_accuracy")) is not None:
            images = "validation images" if fold == "validation" else f"{fold} validation images"
            optimistic = " (chosen on them, so optimistic)" if fold in (criterion, "validation") else ""
            lines.append(f"Balanced accuracy there on {images}: {100 * accuracy:.1f}%{optimistic}.")
    return " ".join(lines)


def _evaluation(evaluations: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> str:
    if not evaluations:
        return "None was given to export-model (`--evaluations`)."
    heads = [
        "images of",
        "fold",
        "images",
        "patients",
        "balanced accuracy, % (95% interval)",
        *(f"recall {c}, %" for c in classes),
    ]
    rows = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for one in evaluations:
        fold = f"{one['split']}, ten crops" if one.get("ten_crop") else one["split"]
        cells = [one["records"]["source"], fold, one["num_images"], one["num_patients"]]
        cells += [_percent(one["balanced_accuracy"]), *(_percent(one["recall"][c], interval=False) for c in classes)]
        rows.append(f"| {' | '.join('-' if cell is None else str(cell) for cell in cells)} |")
    return "\n".join(rows)


def _percent(measure: Mapping[str, Any], interval: bool = True) -> str | None:
    if measure["value"] is None:
        return None
    text = f"{100 * measure['value']:.1f}"
    if interval and measure["ci95"] and None not in measure["ci95"]:
        text += f" ({100 * measure['ci95'][0]:.1f}–{100 * measure['ci95'][1]:.1f})"
    return text
