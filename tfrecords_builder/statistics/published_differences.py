"""Sets the published counts of published.py beside ours, with the difference and what explains it."""

import dataclasses
from collections.abc import Mapping

import pandas as pd

from tfrecords_builder import labels
from tfrecords_builder.statistics import published
from tfrecords_builder.statistics.counting import ALL, ANY_LABEL, Rows

EQUAL, ERRATUM, DIFFERS, OTHER_SPLIT = "equal", "erratum", "differs", "another split"
_COMPARED = (EQUAL, ERRATUM, DIFFERS)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Our tables with the columns published, difference, status and note.

    published and difference are Int64, <NA> where nothing is published or nothing can be compared; status is one of
    EQUAL, ERRATUM (differs, and a known error in print explains it), DIFFERS, OTHER_SPLIT (cannot be equal), or "".
    """

    obstacle: str  # why the counts cannot be compared; "" if they can
    classes: pd.DataFrame
    combinations: pd.DataFrame
    totals: pd.DataFrame  # label_version, class, what, count
    studies: pd.DataFrame  # label, value, count; no rows where the table does not tell studies
    studies_note: str

    @property
    def num_compared(self) -> int:
        """Published counts that ours should equal."""
        return sum(int(frame["status"].isin(_COMPARED).sum()) for frame in self._frames)

    @property
    def num_mismatches(self) -> int:
        """Those that ours do not equal."""
        return sum(int(frame["status"].isin((ERRATUM, DIFFERS)).sum()) for frame in self._frames)

    @property
    def num_explained(self) -> int:
        """Mismatches that a known error in print explains."""
        return sum(int((frame["status"] == ERRATUM).sum()) for frame in self._frames)

    @property
    def _frames(self) -> tuple[pd.DataFrame, ...]:
        return self.classes, self.combinations, self.totals, self.studies


def compare(
    rows: Rows,
    classes: pd.DataFrame,
    combinations: pd.DataFrame,
    totals: pd.DataFrame,
    studies: pd.DataFrame | None,
) -> Comparison:
    """Compares the frames of counting' count_classes, count_combinations, count_totals and count_studies."""
    obstacle = find_obstacle(rows)
    by_study, studies_note = _compare_studies(rows, studies)
    return Comparison(
        obstacle=obstacle,
        classes=_compare_classes(rows, classes, obstacle),
        combinations=_compare_combinations(rows, combinations, obstacle),
        totals=_compare_totals(rows, totals, obstacle),
        studies=by_study,
        studies_note=studies_note,
    )


def find_obstacle(rows: Rows, policy: str | None = "zeros") -> str:
    """Why figures published with that uncertain policy cannot stand beside ours; "" if they can.

    None as policy: figures that do not depend on one.
    """
    label_set = rows.table.label_set
    if label_set != labels.DEFAULT:
        return f"the published counts are of the labels of {labels.DEFAULT.name}, these of {label_set.name}"
    return published.obstacle(
        dataset=rows.table.dataset,
        source=rows.table.source,
        num_rows=rows.table.num_rows,
        view=rows.view if rows.frontal_only else "frontal and lateral",
        uncertain=rows.uncertain,
        policy=rows.uncertain if policy is None else policy,
    )


def _compare_classes(rows: Rows, classes: pd.DataFrame, obstacle: str) -> pd.DataFrame:
    dataset = rows.table.dataset
    ours = {tuple(key): count for *key, count in classes.itertuples(index=False)}
    cells: list[tuple] = []
    for version, name, split, count in classes.itertuples(index=False):
        printed = None
        if not obstacle and (split == ALL or _has_printed_splits(rows)):
            printed = published.class_count(dataset, version, name, split)
        if printed is not None and dataset == "chexpert" and split != ALL:
            cells.append((printed, count - printed, OTHER_SPLIT, "the published split is not known"))
        else:
            judged = _judge(count, printed)
            if printed is not None:
                judged = (*judged[:2], *_explain(dataset, (version, name, split), printed, ours))
            cells.append(judged)
    return _join(classes, cells)


def _has_printed_splits(rows: Rows) -> bool:
    """Whether our splits are made as the printed ones: NIH's official lists, CheXpert's shares of the thesis."""
    if rows.table.dataset == "chestxray":
        return rows.split_policy == "official"
    return rows.split_policy in ("patient", "image") and rows.split_fractions == published.THESIS_FRACTIONS


def _explain(dataset: str, cell: tuple[str, str, str], printed: int, ours: Mapping[tuple, int]) -> tuple[str, str]:
    """Status and note of a printed class count, `cell` being its label version, class and split.

    An explanation that our own counts contradict explains nothing.
    """
    version, name, split = cell
    erratum = published.ERRATA.get((dataset, version, name))
    if ours[cell] == printed:
        return EQUAL, ""
    if erratum is None:
        return DIFFERS, ""
    other = erratum.same_as
    found = ours.get((*other, split)) if other else None
    if other is None or found is None:
        return ERRATUM, erratum.note
    claimed = published.sum_of_findings(dataset, version, split) if erratum.summed else printed
    if found == claimed:
        return ERRATUM, f"{erratum.note} [checked: {claimed:,} is our {' '.join(other)}, {split}]"
    return DIFFERS, f"{erratum.note} [but our {' '.join(other)}, {split}, is {found:,}, not {claimed:,}]"


def _compare_combinations(rows: Rows, combinations: pd.DataFrame, obstacle: str) -> pd.DataFrame:
    figures = {} if obstacle else published.COMBINATIONS.get(rows.table.dataset, {})
    cells = []
    for version, name, combination, count in combinations.itertuples(index=False):
        cells.append(_judge(count, figures.get(version, {}).get(name, {}).get(combination)))
    result = _join(combinations, cells)
    # A published combination that our table does not hold at all must not vanish.
    known = set(combinations[["label_version", "class", "labels"]].itertuples(index=False, name=None))
    classes = set(combinations[["label_version", "class"]].itertuples(index=False, name=None))
    absent = [
        (version, name, combination, 0, printed, -printed, DIFFERS, "")
        for version, of_version in figures.items()
        for name, of_class in of_version.items()
        for combination, printed in of_class.items()
        if (version, name) in classes and (version, name, combination) not in known
    ]
    if absent:
        result = pd.concat([result, pd.DataFrame(absent, columns=result.columns)], ignore_index=True)
    return result.astype({"published": "Int64", "difference": "Int64"})


def _compare_totals(rows: Rows, totals: pd.DataFrame, obstacle: str) -> pd.DataFrame:
    """Columns label_version, class, what, count, ...: the number of combinations of each class, all and frequent."""
    dataset = rows.table.dataset
    all_of, frequent = "combinations", f"with more than {published.FREQUENT} images"
    records, cells = [], []
    for row in totals.to_dict("records"):
        version, name = row["label_version"], row["class"]
        printed = None if obstacle else published.NUM_COMBINATIONS.get(dataset, {}).get((version, name))
        records.append((version, name, all_of, row["combinations"]))
        cells.append(_judge(row["combinations"], printed))
        ones = version == "multilabel" and name == ANY_LABEL and not find_obstacle(rows, "ones")
        records.append((version, name, frequent, row["frequent"]))
        cells.append(_judge(row["frequent"], published.NUM_FREQUENT.get(dataset) if ones else None))
    return _join(pd.DataFrame(records, columns=["label_version", "class", "what", "count"]), cells)


def _compare_studies(rows: Rows, studies: pd.DataFrame | None) -> tuple[pd.DataFrame, str]:
    """Table 3.2 in long form, and why it cannot be compared, if so."""
    records: list[tuple] = []
    cells: list[tuple] = []
    note = ""
    if studies is not None:
        obstacle = find_obstacle(rows, None)
        ours = int(studies.iloc[0, 1:].sum())
        note = f"not compared: {obstacle}" if obstacle else ""
        if not obstacle and ours != published.NUM_STUDIES:
            note = f"not compared: the table has {ours:,} studies, published are counts of {published.NUM_STUDIES:,}"
        for label, positive, uncertain, negative, blank in studies.itertuples(index=False):
            printed = (None,) * 3 if note else published.STUDY_COUNTS[label]
            counts = {"positive": positive, "uncertain": uncertain, "negative or blank": negative + blank}
            for (value, count), cell in zip(counts.items(), printed, strict=True):
                records.append((label, value, count))
                cells.append(_judge(count, cell))
    return _join(pd.DataFrame(records, columns=["label", "value", "count"]), cells), note


def _judge(count: int, printed: int | None) -> tuple[int | None, int | None, str, str]:
    """The cells published, difference, status and note."""
    if printed is None:
        return None, None, "", ""
    return printed, count - printed, EQUAL if count == printed else DIFFERS, ""


def _join(frame: pd.DataFrame, cells: list[tuple]) -> pd.DataFrame:
    columns = list(zip(*cells, strict=True)) if cells else [(), (), (), ()]
    return frame.assign(
        published=pd.array(columns[0], dtype="Int64"),
        difference=pd.array(columns[1], dtype="Int64"),
        status=pd.array(columns[2], dtype=object),
        note=pd.array(columns[3], dtype=object),
    )


def errata_of(dataset: str) -> dict[tuple[str, str], published.Erratum]:
    """(label version, class) -> erratum of a data set, in the order of the label versions."""
    found = {key[1:]: erratum for key, erratum in published.ERRATA.items() if key[0] == dataset}
    order = list(labels.LABEL_VERSIONS)
    return dict(sorted(found.items(), key=lambda item: order.index(item[0][0])))
