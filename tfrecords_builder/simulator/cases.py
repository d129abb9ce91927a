"""Who comes to a hospital: the patients' diseases, their course over several studies, and what the reports mention.

The mix is not that of the real data sets: classes that the label versions select ("exactly Pneumothorax") are made more
frequent, so that a set of some hundred patients has enough of each.
"""

import dataclasses

import numpy as np

from tfrecords_builder.labels import LABELS
from tfrecords_builder.simulator.anatomy import LEFT, RIGHT
from tfrecords_builder.simulator.findings import (
    ATELECTASIS,
    CARDIOMEDIASTINUM,
    CARDIOMEGALY,
    CONSOLIDATION,
    DEVICES,
    EDEMA,
    EFFUSION,
    FRACTURE,
    LESION,
    NO_FINDING,
    OPACITY,
    PLEURAL,
    PNEUMONIA,
    PNEUMOTHORAX,
    Finding,
)

# Archetype -> chance, and the chance of each finding in it. A first finding of chance 1 is what the patient came with.
_MIXES: dict[str, tuple[float, dict[str, float]]] = {
    "healthy": (0.36, {}),
    "pneumothorax": (0.13, {PNEUMOTHORAX: 1}),
    "cardiomegaly": (0.075, {CARDIOMEGALY: 1}),
    "pneumonia": (0.075, {PNEUMONIA: 1}),
    "heart failure": (0.08, {CARDIOMEGALY: 0.8, EDEMA: 0.85, EFFUSION: 0.6, DEVICES: 0.45}),
    "infection": (0.06, {PNEUMONIA: 0.7, CONSOLIDATION: 0.8, EFFUSION: 0.35, DEVICES: 0.2}),
    "effusion": (0.05, {EFFUSION: 1, ATELECTASIS: 0.4, DEVICES: 0.3}),
    "intensive care": (0.05, {DEVICES: 1, EDEMA: 0.35, ATELECTASIS: 0.5, EFFUSION: 0.5, CONSOLIDATION: 0.2}),
    "complicated": (0.04, {PNEUMOTHORAX: 1, DEVICES: 0.8, EFFUSION: 0.4, ATELECTASIS: 0.35, FRACTURE: 0.25}),
    "lesion": (0.03, {LESION: 1, EFFUSION: 0.15, CARDIOMEDIASTINUM: 0.1}),
    "atelectasis": (0.025, {ATELECTASIS: 1, DEVICES: 0.25}),
    "opacity": (0.025, {OPACITY: 1, DEVICES: 0.2}),
    "mediastinum": (0.02, {CARDIOMEDIASTINUM: 1, CARDIOMEGALY: 0.4, DEVICES: 0.2}),
    "trauma": (0.02, {FRACTURE: 1, PNEUMOTHORAX: 0.2, OPACITY: 0.2}),
    "pleura": (0.02, {PLEURAL: 1, FRACTURE: 0.15, ATELECTASIS: 0.15}),
}

# Hospital b sees more outpatients and more single diseases, and its NIH labels know neither fractures nor devices.
_FACTORS = {
    "a": {},
    "b": {"heart failure": 0.5, "intensive care": 0.4, "complicated": 0.6, "trauma": 0.25, "mediastinum": 0.4}
    | {"healthy": 1.12, "opacity": 1.8, "lesion": 1.8, "effusion": 1.3},
}

# CheXpert's hierarchy: child -> parents.
PARENTS = {
    EDEMA: (OPACITY,),
    CONSOLIDATION: (OPACITY,),
    PNEUMONIA: (CONSOLIDATION, OPACITY),
    ATELECTASIS: (OPACITY,),
    LESION: (OPACITY,),
    CARDIOMEGALY: (CARDIOMEDIASTINUM,),
}

# How often a report says that something is absent.
_DENIED = {
    PNEUMOTHORAX: 0.25,
    EFFUSION: 0.2,
    CONSOLIDATION: 0.14,
    EDEMA: 0.1,
    CARDIOMEDIASTINUM: 0.06,
    CARDIOMEGALY: 0.05,
}
_SINGLE = ("healthy", "pneumothorax", "cardiomegaly", "pneumonia")


@dataclasses.dataclass(frozen=True)
class Study:
    """One visit: what is there, and what the report says of it ({label: 1, 0 or -1}; not mentioned = absent key)."""

    findings: tuple[Finding, ...]
    report: dict[str, float]
    archetype: str


def sample_studies(rng: np.random.Generator, hospital: str) -> list[Study]:
    """Draws a patient's disease and follows it over one to five studies."""
    names = list(_MIXES)
    chances = np.array([_MIXES[name][0] * _FACTORS[hospital].get(name, 1.0) for name in names])
    archetype = names[rng.choice(len(names), p=chances / chances.sum())]
    findings = _onset(rng, archetype)
    count = 1 + min(int(rng.poisson(0.9 if archetype == "healthy" else 1.5)), 4)
    course = rng.normal(-0.06, 0.12)  # of severity from study to study: most get better
    studies = []
    for index in range(count):
        if index:
            findings = _evolve(rng, findings, course)
        studies.append(Study(tuple(findings), _report(rng, findings, archetype), archetype))
    return studies


def _onset(rng, archetype):
    side = RIGHT if rng.random() < 0.55 else LEFT
    chances = _MIXES[archetype][1]
    names = [name for name, chance in chances.items() if rng.random() < chance]
    if chances and not names:
        names = [next(iter(chances))]
    if archetype == "healthy" and rng.random() < 0.16:
        names = [DEVICES]
    findings = []
    for name in names:
        findings.append(_finding(rng, name, side))
        # Effusions of heart failure are on both sides.
        if name == EFFUSION and archetype in ("heart failure", "intensive care") and rng.random() < 0.5:
            findings.append(_finding(rng, name, -side))
    return findings


def _finding(rng, name, side):
    # Beta(1.5, 1.6): all severities, the middle most often.
    severity = float(np.clip(rng.beta(1.5, 1.6), 0.06, 1.0))
    return Finding(name, severity, side, int(rng.integers(2**31)))


def _evolve(rng, findings, course):
    later = []
    for finding in findings:
        if finding.name == DEVICES:
            if rng.random() < 0.8:
                later.append(finding)
            continue
        severity = finding.severity + course + rng.normal(0, 0.08)
        if severity > 0.04:
            later.append(dataclasses.replace(finding, severity=float(np.clip(severity, 0.06, 1.0))))
    present = {finding.name for finding in later}
    if PNEUMOTHORAX in present and DEVICES not in present and rng.random() < 0.2:
        side = next(finding.side for finding in later if finding.name == PNEUMOTHORAX)
        later.append(_finding(rng, DEVICES, side))
    elif len(findings) > 1 and rng.random() < 0.1:
        extra = str(rng.choice([EFFUSION, ATELECTASIS, DEVICES]))
        if extra not in present:
            later.append(_finding(rng, extra, findings[0].side))
    return later


def _report(rng, findings, archetype) -> dict[str, float]:
    """CheXpert-like marks: what is there is mostly mentioned, the subtle with doubt, parents often not at all."""
    report: dict[str, float] = {}
    for name in dict.fromkeys(finding.name for finding in findings):
        severity = max(finding.severity for finding in findings if finding.name == name)
        doubt = 0.0 if name == DEVICES else 0.22 * max(0.0, 1 - severity / 0.3)
        draw = rng.random()
        if draw < doubt:
            report[name] = -1.0
        elif draw < 0.985 or name == DEVICES:
            report[name] = 1.0
    # A report of a single disease names that disease; a longer one describes the picture too.
    described = 0.1 if archetype in _SINGLE else 0.55
    for name in list(report):
        for parent in PARENTS.get(name, ()):
            if report[name] == 1 and parent not in report and rng.random() < described:
                report[parent] = 1.0
    abnormal = [name for name, value in report.items() if value != 0 and name != DEVICES]
    if not abnormal:
        if rng.random() < 0.04:  # "lines unchanged": nothing mentioned
            return {}
        report[NO_FINDING] = 1.0
    for name, chance in _DENIED.items():
        if name not in report and rng.random() < chance:
            report[name] = 0.0
    if abnormal and rng.random() < 0.06:  # "cannot be excluded"
        name = str(rng.choice([PNEUMONIA, ATELECTASIS, CONSOLIDATION]))
        report.setdefault(name, -1.0)
    return {label: report[label] for label in LABELS if label in report}
