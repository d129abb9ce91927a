"""Model cards of exports: what a model is, what it was trained on, how good it is, and what it must not be used for.

Mitchell et al., "Model Cards for Model Reporting", FAT* 2019. The text is in tfcxr/templates.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from tfcxr import percentages
from tfcxr.classifiers import calibration
from tfcxr.classifiers.adaptation import methods
from tfrecords_builder.records import datasheet


def classifier_card(
    config: Mapping[str, Any],
    result: Mapping[str, Any],
    evaluations: Sequence[Mapping[str, Any]] = (),
    calibrated: calibration.Calibration | None = None,
) -> str:
    """Markdown about a classifier.

    Args:
        config: see `loading.load_classifier_config`.
        result: result.json of the run; empty if it is not finished.
        evaluations: result.json of each evaluation to report.
        calibrated: what its probabilities are calibrated by.
    """
    method = "trained on labelled images"
    if config["kind"] == "dcan":
        name = config.get("alignment", "dcan")
        name = methods.FORMER_NAMES.get(name, name)
        method = f"trained on labelled source and unlabelled target images; method {name}: {methods.METHODS[name][2]}"
    return _render(
        "classifier_card.md.j2",
        config=config,
        result=result,
        evaluations=evaluations,
        calibrated=calibrated,
        positive_at=calibration.BEST_F1,
        method=method,
        aspect=config["aspect"] or "stretch",
        contrast=config["contrast"] or "none",
        aspects=datasheet.ASPECTS,
        contrasts=datasheet.CONTRASTS,
    )


def generator_card(
    description: Mapping[str, Any], kind: str, seen: Sequence[str], scorecard: Sequence[str] = ()
) -> str:
    """Markdown about a generator.

    Args:
        description: see `gan.loading.description`.
        kind: of network, in words.
        seen: the labels that it was conditioned on.
        scorecard: lines of the scorecard of a set that it drew.
    """
    return _render("generator_card.md.j2", about=description, kind=kind, seen=seen, scorecard=scorecard)


def _render(template: str, **values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tfcxr"),
        autoescape=False,  # it is Markdown
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["percent"] = _percent
    return environment.get_template(template).render(**values)


def _percent(measure: Mapping[str, Any], interval: bool = True) -> str:
    """A measure of an evaluation in per cent, with its interval if it has one; a dash if it has no value."""
    ends = measure["ci95"] if interval and measure["value"] is not None else None
    return percentages.percent(measure["value"]) + (f" ({percentages.interval(ends)})" if ends else "")
