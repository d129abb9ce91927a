"""Library behind scorecard: what is known of a synthetic set, and what is not, on one page.

After Zamzmi et al. 2024, "Scorecards for Synthetic Medical Data Evaluation and Reporting" (arXiv 2406.11143), whose
seven criteria say what is looked at. Each figure comes from an output of compare-sets, audit-privacy or evaluate, which
must be of the very set, by its digest; nothing is measured here.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tfcxr import percentages
from tfcxr.evaluation.utility import find_training_records
from tfcxr.fidelity import feature_names
from tfrecords_builder import files, pages, records
from tfrecords_builder.errors import InputError
from tfrecords_builder.pages import Section, Table
from tfrecords_builder.records import scorecards

INTENDED_USE = (
    "Research on learning from synthetic images. Not for diagnosis, not for training or testing a medical device "
    "without evidence from real patients."
)

_FIGURES = ("fid", "kid", "precision", "recall", "density", "coverage")
# Of utility.
_ARMS = {
    "real": "real images",
    "synthetic": "synthetic ones",
    "mixed": "both",
    "control": "real images repeated",
    "on_synthetic": "real images and tested on this set",
}
# The seven criteria, and what stands for each: keys of `_measured`.
_CRITERIA = {
    "Congruence: is it distributed as patient data are?": ("FID, KID, precision and density", "fidelity"),
    "Coverage: does it have their variety?": ("recall and coverage; MS-SSIM and near duplicates", "fidelity"),
    "Constraint: does it keep to anatomy and physics?": ("label agreement, which is a part of it only", "agreement"),
    "Completeness: does it hold all that a task needs?": ("the counts of the datasheet", "datasheet"),
    "Compliance: does it protect patients?": ("the privacy audit", "privacy"),
    "Comprehension: is it known how it was made?": ("the datasheet, and the generator's model card", "datasheet"),
    "Consistency: is it as good in every group?": (
        "figures of each class and label combination; gaps by sex, age and view",
        "groups",
    ),
}


def make_scorecard(
    *,
    synthetic_set: str | os.PathLike,
    comparisons: Sequence[str] = (),
    audits: Sequence[str] = (),
    evaluations: Sequence[str] = (),
    utilities: Sequence[str] = (),
    intended_use: str = INTENDED_USE,
    attach: bool = True,
    output_dir: pathlib.Path,
) -> dict[str, Any]:
    """Writes scorecard.json, report.md and report.html of a synthetic set.

    Args:
        synthetic_set: the record set.
        comparisons, audits: output folders of compare-sets and audit-privacy of this set.
        evaluations: output folders of evaluate: of a classifier that was trained on this set, of a classifier on the
            images of this set, or, as reference, of another classifier on the same test images as one of the first.
        utilities: output folders of utility: of classifiers of this set.
        intended_use: in words.
        attach: also writes scorecard.json into the set's folder, and its lines into the datasheet there.
        output_dir: existing folder to write into.

    Returns:
        What scorecard.json holds.

    Raises:
        InputError: no synthetic set, or an output that is damaged or not of this set.
    """
    info = records.load_info(synthetic_set)
    if not info.source.startswith("synthetic:"):
        raise InputError(f"--synthetic_set={synthetic_set}: is no synthetic set (its source is {info.source})")
    fidelity = [_read_comparison(path, info.digest) for path in comparisons]
    trained_on = dict(info.provenance.get("trained_on", {}))
    privacy = [_read_audit(path, info.digest, set(trained_on.values())) for path in audits]
    utility = _read_evaluations(evaluations, info.digest)
    card: dict[str, Any] = {
        "schema_version": scorecards.SCHEMA_VERSION,
        "audited": "yes" if any(one["of_training_records"] for one in privacy) else "no",
        "set": {
            "name": pathlib.Path(synthetic_set).resolve().name,
            "digest": info.digest,
            "source": info.source,
            "label_version": info.label_version,
            "resolution": info.resolution,
            "num_images": sum(split.num_examples for split in info.splits.values()),
            "generator_sha256": info.provenance.get("generator_sha256"),
            "trained_on": trained_on,
            "curation": info.provenance.get("curation"),
        },
        "intended_use": intended_use,
        "fidelity": fidelity,
        "utility": utility,
        "gaps": [_read_utility(path, info.digest) for path in utilities],
        "privacy": privacy,
    }
    card["unknown"] = _tell_unknown(card)
    card["lines"] = _lines(card)
    files.write_json(output_dir / scorecards.FILE, card)
    _write_page(output_dir, card)
    if attach:
        scorecards.attach(info, card)
    return card


def _read_result(path: str, flag: str, command: str, *keys: str) -> dict[str, Any]:
    """result.json of a command's output. Raises InputError if it lacks one of `keys`."""
    result = files.read_json(pathlib.Path(path) / "result.json")
    if not isinstance(result, dict) or any(key not in result for key in keys):
        raise InputError(f"{flag}={path}: is no output of this version of {command}; run it again")
    return result


def _refuse_other_set(result: Mapping[str, Any], digest: str, where: str) -> None:
    theirs = result["sets"].get("synthetic", {}).get("digest", "none")
    if theirs != digest:
        raise InputError(
            f"{where}: is of another set (digest {theirs[:12]}, not {digest[:12]}); measure this set, or give the one "
            "that was measured"
        )


def _read_comparison(path: str, digest: str) -> dict[str, Any]:
    keys = ("sets", "metrics", "features", "fid_by_number", "groups")
    result = _read_result(path, "--comparison", "compare-sets", *keys)
    _refuse_other_set(result, digest, f"--comparison={path}")
    name, found = result["features"]["name"], result["metrics"]

    def values(key: str) -> dict[str, Any]:
        return {column: metrics[feature_names.metric_name(key, name)] for column, metrics in found.items()}

    figures = {
        key: {
            **values(key),
            "interval": result["intervals"].get("synthetic", {}).get(feature_names.metric_name(key, name)),
        }
        for key in _FIGURES
    }
    figures["fid_infinity"] = {column: one["infinity"] for column, one in result["fid_by_number"].items()}
    for key in ("near_duplicates", "ms_ssim"):
        figures |= _mean_of_groups(result["groups"], key)
    agreement = result["label_agreement"]
    return {
        "features": name,
        "num_images": result["num_images"],
        "real": result["sets"]["real"],
        "holdout": result["sets"].get("holdout"),
        "figures": figures,
        "num_groups": len(result["groups"]),
        "groups_left_out": [one["name"] for one in result["groups_left_out"]],
        "label_agreement": None
        if agreement is None
        else {
            "measure": agreement["synthetic"]["measure"],
            "classifier_digest": agreement["classifier_digest"],
            **{n: agreement[n]["all"] for n in ("synthetic", "holdout", "real") if n in agreement},
        },
        "warnings": result["warnings"],
    }


def _mean_of_groups(groups: Sequence[Mapping[str, Any]], key: str) -> dict[str, dict[str, float]]:
    """{key: {set: mean over the groups that have it in all sets}}; empty if there is none."""
    sets = ("synthetic", "holdout", "real")
    rows = [{n: group[key][n] for n in sets if group[key].get(n) is not None} for group in groups]
    rows = [{n: value["mean"] if isinstance(value, Mapping) else value for n, value in row.items()} for row in rows]
    shared = [n for n in sets if rows and all(n in row for row in rows)]
    if not shared:
        return {}
    return {key: {n: sum(row[n] for row in rows) / len(rows) for n in shared}}


def _read_audit(path: str, digest: str, learned: set[str]) -> dict[str, Any]:
    """`learned`: digests of the records that the generator learned from."""
    keys = ("sets", "spaces", "conclusions", "reidentification", "discriminator")
    result = _read_result(path, "--audit", "audit-privacy", *keys)
    _refuse_other_set(result, digest, f"--audit={path}")
    return {
        "spaces": [space["space"] for space in result["spaces"]],
        "num_images": result["num_images"],
        "train": result["sets"]["train"],
        "of_training_records": result["sets"]["train"]["digest"] in learned,
        "holdout": result["sets"]["holdout"],
        "recognises_patients": result["reidentification"]["recognises"],
        "reidentification_auc": result["reidentification"].get("auc"),
        "discriminator_attacked": bool(result["discriminator"]),
        "indicated": [
            f"{figure['name']} in {space['space']}"
            for space in result["spaces"]
            for figure in space["figures"]
            if figure["indicated"]
        ],
        "conclusions": result["conclusions"],
        "warnings": result["warnings"],
    }


def _read_evaluations(paths: Sequence[str], digest: str) -> list[dict[str, Any]]:
    """Evaluations and their roles. Raises InputError for one that has none."""
    found = []
    for path in paths:
        result = _read_result(path, "--evaluation", "evaluate", "model", "model_digest", "records", "split")
        found.append({**_headline(result), "role": _find_role(path, result, digest)})
    tests = {(one["records_digest"], one["split"]) for one in found if one["role"] == "trained on this set"}
    for path, one in zip(paths, found, strict=True):
        if one["role"] == "reference" and (one["records_digest"], one["split"]) not in tests:
            raise InputError(
                f"--evaluation={path}: is neither of a classifier that was trained on this set, nor on images of this "
                "set, nor on the test images of such a classifier; leave it out"
            )
    return found


def _read_utility(path: str, digest: str) -> dict[str, Any]:
    """The gaps of an output of utility. Raises InputError if none of its classifiers has to do with this set."""
    result = _read_result(path, "--utility", "utility", "arms", "gaps", "subgroups", "measure")
    of_set = [
        name
        for name, arm in result["arms"].items()
        if digest in (arm["tested_on"] if name == "on_synthetic" else arm["trained_on"])
    ]
    if not of_set:
        raise InputError(
            f"--utility={path}: none of its classifiers was trained or tested on this set ({digest[:12]}); give "
            "that of classifiers of this set"
        )
    return {
        "measure": result["measure"],
        "records": result["records"],
        "split": result["split"],
        "num_images": result["num_images"],
        "arms": {name: {key: arm[key] for key in ("value", "ci95")} for name, arm in result["arms"].items()},
        "of_set": of_set,
        "gaps": result["gaps"],
        "subgroups": [
            {**{key: row[key] for key in ("attribute", "group", "num_images")}, "gaps": row["gaps"]}
            for row in result["subgroups"]
        ],
        "warnings": result["warnings"],
    }


def _headline(result: Mapping[str, Any]) -> dict[str, Any]:
    if result.get("multilabel"):
        measure, value, ends = "mean ROC-AUC", result["roc_auc"]["macro"], result["roc_auc"]["macro_ci95"]
    else:
        measure = "balanced accuracy"
        value, ends = result["balanced_accuracy"]["value"], result["balanced_accuracy"]["ci95"]
    return {
        "model": pathlib.Path(result["model"]).name,
        "model_digest": result["model_digest"],
        "tested_on": f"{result['records']['source']}, {result['split']}",
        "records_digest": result["records"]["digest"],
        "split": result["split"],
        "num_images": result["num_images"],
        "measure": measure,
        "value": value,
        "interval": ends,
        "warnings": result["warnings"],
    }


def _find_role(path: str, result: Mapping[str, Any], digest: str) -> str:
    """By the records that the run or export names, if its weights are still those that were evaluated."""
    if result["records"]["digest"] == digest:
        return "tested on this set"
    learned = find_training_records(result, f"--evaluation={path}")
    return "trained on this set" if digest in learned else "reference"


def _tell_unknown(card: Mapping[str, Any]) -> list[str]:
    """What was not measured, in sentences."""
    fidelity, utility, privacy = card["fidelity"], card["utility"], card["privacy"]
    unknown = []
    if not fidelity:
        unknown.append("How close the images are to real ones, and how diverse, is unknown: no comparison was given.")
    elif not any(one["holdout"] for one in fidelity):
        unknown.append("What a perfect generator would reach is unknown: the comparison has no holdout.")
    if fidelity and not any(one["num_groups"] for one in fidelity):
        unknown.append("How good single classes are is unknown: none has enough images.")
    if not any(one["label_agreement"] for one in fidelity):
        unknown.append("Whether images show what their labels say is unknown: no classifier was asked.")
    roles = {one["role"] for one in utility}
    learned = {arm for one in card["gaps"] for arm in one["of_set"] if arm in ("synthetic", "mixed")}
    if not learned and "trained on this set" not in roles:
        unknown.append("What a classifier learns from the set is unknown: no such evaluation was given.")
    elif not learned and "reference" not in roles:  # a report of utility has its reference
        unknown.append("What a classifier would learn from real images is unknown: there is no reference evaluation.")
    if not privacy:
        unknown.append("Whether the set gives away patients is unknown: no privacy audit was given.")
    elif not any(one["of_training_records"] for one in privacy):
        unknown.append(
            "Whether the set gives away patients is unknown: the audit looked for copies of other records than those "
            "that the generator learned from."
        )
    else:
        if not any(one["recognises_patients"] for one in privacy):
            unknown.append("Whether patients can be recognised is unknown: no network that can do so was at hand.")
        if not any(one["discriminator_attacked"] for one in privacy):
            unknown.append("What the GAN's discriminator gives away is unknown: it was not attacked.")
    groups = any(row["gaps"] for one in card["gaps"] for row in one["subgroups"])
    return [
        *unknown,
        "Whether anatomy and physics are right in every image, and whether readers take them for real, was not looked "
        "at.",
        "How good the set is for patients of other places"
        + (" was not looked at." if groups else ", and of groups by sex, age or view, was not looked at."),
    ]


def _lines(card: Mapping[str, Any]) -> list[str]:
    """What datasheet and model card carry: a sentence each."""
    lines = [f"audited: {card['audited']}"]
    for one in card["fidelity"]:
        parts = [_tell_figure(one, key) for key in ("fid", "fid_infinity", "precision", "recall")]
        lines.append(
            f"Fidelity, features {one['features']}, {one['num_images']} images of each set: {'; '.join(parts)}."
        )
        agreement = one["label_agreement"]
        if agreement:
            lines.append(f"Label agreement of a classifier: {_tell_agreement(agreement)}.")
    for one in card["utility"]:
        value = f"{percentages.percent(one['value'])}% ({percentages.interval(one['interval'])})"
        lines.append(f"Utility, classifier {one['role']}, tested on {one['tested_on']}: {one['measure']} {value}.")
    for one in card["gaps"]:
        lines += [
            f"Utility, {_tell_gap(gap)} points of {one['measure']} ({percentages.interval(gap['ci95'])}), tested on "
            f"{one['records']['source']}, {one['split']}."
            for gap in one["gaps"]
            if gap["arm"] in one["of_set"]
        ]
    for one in card["privacy"]:
        lines += [f"Privacy: {sentence}" for sentence in one["conclusions"][:2]]
    return [*lines, *card["unknown"]]


def _tell_figure(comparison: Mapping[str, Any], key: str) -> str:
    figure = comparison["figures"][key]
    reference = f" (held-out real {figure['holdout']:.4g})" if "holdout" in figure else ""
    return f"{key} {figure['synthetic']:.4g}{reference}"


def _tell_agreement(agreement: Mapping[str, Any]) -> str:
    def value(name: str) -> str:
        one = agreement[name]["value"]
        if one is None:
            return percentages.NOTHING
        return f"{percentages.percent(one)}%" if agreement["measure"] == "share" else f"ROC-AUC {one:.3f}"

    reference = next((n for n in ("holdout", "real") if n in agreement), None)
    said = {"holdout": "held-out real", "real": "real"}
    return value("synthetic") + (f" ({said[reference]} {value(reference)})" if reference else "")


def _write_page(folder: pathlib.Path, card: Mapping[str, Any]) -> None:
    about = card["set"]
    trained = ", ".join(f"{name} {digest[:12]}" for name, digest in dict(about["trained_on"]).items()) or "unknown"
    sections = [
        Section(
            "The set",
            bullets=[
                f"audited: {card['audited']}",
                f"Intended use: {card['intended_use']}",
                f"{about['num_images']} images of {about['resolution']} px, label version {about['label_version']}, "
                f"digest {about['digest']}.",
                f"The generator learned from records: {trained}.",
                *([_tell_curation(about["curation"])] if about["curation"] else []),
            ],
            tables=[_criteria(card)],
        ),
        Section("Fidelity and diversity", tables=[_fidelity_table(one) for one in card["fidelity"]]),
        Section(
            "Utility",
            tables=[
                *([_utility_table(card["utility"])] if card["utility"] else []),
                *(table for one in card["gaps"] for table in _gap_tables(one)),
            ],
        ),
        Section(
            "Privacy",
            bullets=[sentence for one in card["privacy"] for sentence in [*one["conclusions"]]],
        ),
        Section("What is unknown", bullets=list(card["unknown"])),
    ]
    warnings = [w for part in ("fidelity", "utility", "gaps", "privacy") for one in card[part] for w in one["warnings"]]
    if warnings:
        sections.append(Section("Warnings of the measurements", bullets=[f"{w}." for w in dict.fromkeys(warnings)]))
    for section in sections[1:4]:
        if not section.tables and not section.bullets:
            section.text.append("Unknown: not measured.")
    pages.write(
        folder,
        title=f"Scorecard of {about['name']}",
        subtitle=f"{about['source']}. What was measured of this set, and what was not.",
        program="tfcxr scorecard",
        sections=sections,
    )


def _tell_curation(curation: Mapping[str, Any]) -> str:
    drawn, kept = curation["drawn"], curation["kept"]
    return f"Curated: {kept} of {drawn} drawn images were kept, so that figures are those of the kept ones."


def _criteria(card: Mapping[str, Any]) -> Table:
    measured = {
        "fidelity": bool(card["fidelity"]),
        "agreement": any(one["label_agreement"] for one in card["fidelity"]),
        "privacy": card["audited"] == "yes",
        "groups": any(one["num_groups"] for one in card["fidelity"])
        or any(row["gaps"] for one in card["gaps"] for row in one["subgroups"]),
        "datasheet": True,
    }
    rows = [[name, what, "yes" if measured[key] else "no: unknown"] for name, (what, key) in _CRITERIA.items()]
    return Table(
        "The seven criteria of Zamzmi et al. 2024, and whether they were looked at.",
        ["criterion", "what stands for it", "looked at"],
        rows,
        [False] * 3,
        [row[2] != "yes" for row in rows],
    )


def _fidelity_table(one: Mapping[str, Any]) -> Table:
    rows = []
    for key, figure in one["figures"].items():
        ends = figure.get("interval")
        interval = f" ({ends[0]:.4g} to {ends[1]:.4g})" if ends else ""
        reference = figure.get("holdout")
        cell = percentages.NOTHING if reference is None else f"{reference:.4g}"
        rows.append([key, f"{figure['synthetic']:.4g}{interval}", cell])
    if one["label_agreement"]:
        rows.append(["label agreement", _tell_agreement(one["label_agreement"]), ""])
    caption = (
        f"Features {one['features']}, {one['num_images']} images of each set; the reference is held-out real images."
    )
    return Table(caption, ["figure", "synthetic", "reference"], rows, [False, True, True], [False] * len(rows))


def _utility_table(found: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [
            one["model"],
            one["role"],
            one["tested_on"],
            one["measure"],
            f"{percentages.percent(one['value'])} ({percentages.interval(one['interval'])})",
        ]
        for one in found
    ]
    return Table(
        "Evaluations of classifiers, in percent with 95% intervals.",
        ["classifier", "role", "tested on", "measure", "value"],
        rows,
        [False] * 4 + [True],
        [False] * len(rows),
    )


def _gap_tables(one: Mapping[str, Any]) -> list[Table]:
    """Gaps of a report of utility: on all test images by label, and by sex, age and view."""
    gaps = one["gaps"]
    if not gaps:
        return []
    names = [f"{gap['arm']} − {gap['reference']}" for gap in gaps]
    labels = list(dict.fromkeys(label for gap in gaps for label in gap["parts"]))
    rows = [[one["measure"], *map(_tell_difference, gaps)]]
    rows += [[label, *(_tell_difference(gap["parts"].get(label)) for gap in gaps)] for label in labels]
    where = f"on {one['records']['source']}, {one['split']}, {one['num_images']} images"
    tables = [
        Table(f"Gaps in points, {where}.", ["", *names], rows, [False, *[True] * len(names)], [False] * len(rows))
    ]
    groups = []
    for row in one["subgroups"]:
        found = {f"{gap['arm']} − {gap['reference']}": gap for gap in row["gaps"]}
        groups.append(
            [f"{row['attribute']}: {row['group']}", str(row["num_images"])]
            + [_tell_difference(found.get(name)) for name in names]
        )
    if groups:
        numeric = [False, *[True] * (1 + len(names))]
        tables.append(
            Table("Gaps by group, in points.", ["group", "images", *names], groups, numeric, [False] * len(groups))
        )
    return tables


def _tell_difference(one: Mapping[str, Any] | None) -> str:
    if one is None or one["value"] is None:
        return percentages.NOTHING
    return f"{percentages.signed(one['value'])} ({percentages.interval(one['ci95'])})"


def _tell_gap(gap: Mapping[str, Any]) -> str:
    return f"trained on {_ARMS[gap['arm']]}, against {_ARMS[gap['reference']]}: {percentages.signed(gap['value'])}"
