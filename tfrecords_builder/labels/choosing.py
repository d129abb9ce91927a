"""Label versions by name: the built-in ones, and those of a user's own file."""

import difflib
import json
import os
import pathlib
import re
from collections.abc import Collection, Mapping
from typing import Any

from tfrecords_builder.errors import InputError
from tfrecords_builder.labels.benchmark_settings import NAMES, settings_of
from tfrecords_builder.labels.label_sets import DEFAULT, LabelSet
from tfrecords_builder.labels.versions import LABEL_VERSIONS, LabelVersion, built_in_versions, make_label_version

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def get_label_version(
    name: str, user_versions: Mapping[str, LabelVersion] | None = None, label_set: LabelSet = DEFAULT
) -> LabelVersion:
    """Returns the version called `name` of a label set, a built-in one or one of `user_versions`.

    Raises InputError listing the known names otherwise. The benchmark settings are listed too, but have no version
    before the data are known: `benchmark_settings.make_version`.
    """
    known = {**built_in_versions(label_set), **(user_versions or {})}
    settings = settings_of(label_set)
    if name in settings:
        raise InputError(f"--label_version={name}: its classes are found in a label table, which build-records reads")
    if name not in known:
        if name in LABEL_VERSIONS:
            raise InputError(
                f"--label_version={name}: needs labels that the label set {label_set.name} has not; choose one of "
                f"{', '.join((*known, *settings))}"
            )
        raise InputError(f"--label_version={name}: unknown; choose one of {', '.join((*known, *settings))}")
    return known[name]


def load_label_versions(path: str | os.PathLike, label_set: LabelSet = DEFAULT) -> dict[str, LabelVersion]:
    """Reads label versions of a user's own from a JSON file.

    Args:
        path: `{"version": {"class": {"one": [...], "zero": [...], "any": [...]}, ...}, ...}`, with the lists of
            `make_label_version`. A version has at least two classes, since one alone leaves nothing to tell apart.
        label_set: whose labels they are.

    Raises:
        InputError: the file cannot be read or is not JSON, a key is given twice, a name is taken or is no plain name
            (letters, digits, "_", "-" and ".", the first a letter or digit), a value is of the wrong type, or what
            `make_label_version` refuses; one line that names file, version, class and key.
    """
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8-sig")
        versions = json.loads(text, object_pairs_hook=_unique)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not valid JSON ({error})") from error
    if not isinstance(versions, dict) or not versions:
        raise InputError(f"{path}: must be an object of label versions, by name")
    try:
        return {name: _make_user_version(name, table, label_set) for name, table in versions.items()}
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def check_vocabulary(version: LabelVersion, findings: Collection[str]) -> None:
    """Raises InputError if a class names what is neither a label of its set nor one of the data set's `findings`."""
    labels = version.label_set.labels
    known = [*labels, *sorted(set(findings) - set(labels))]
    folded = {name.casefold(): name for name in known}
    for label_class in version.classes:
        for unknown in sorted(label_class.extra_findings - set(known)):
            near = difflib.get_close_matches(unknown.casefold(), folded, n=3)
            hint = (
                f"did you mean {' or '.join(repr(folded[n]) for n in near)}?" if near else f"known: {', '.join(known)}"
            )
            raise InputError(
                f"label version {version.name}: class {label_class.name!r} names {unknown!r}, which is neither one of "
                f"the labels of {version.label_set.name} nor a finding of the data set; {hint}"
            )


def _make_user_version(name: str, table: Any, label_set: LabelSet) -> LabelVersion:
    if not _NAME.fullmatch(name):
        raise InputError(
            f"label version {name!r}: a name holds letters, digits, _, - and . only, and begins with a letter or digit"
        )
    if name in LABEL_VERSIONS or name in NAMES:
        raise InputError(f"label version {name}: the name is taken by a built-in one; choose another name")
    if not isinstance(table, dict):
        raise InputError(f"label version {name}: must be an object of classes, by name, not {table!r}")
    if len(table) < 2:
        raise InputError(f"label version {name}: has {len(table)} classes; give two or more")
    for class_name in table:
        if not class_name.isprintable() or not class_name or class_name != class_name.strip():
            raise InputError(f"label version {name}: {class_name!r} is no name for a class; give a printable text")
    return make_label_version(name, table, label_set)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, which must not name a key twice: the first of the two would be lost in silence."""
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise InputError(f"the key {twice!r} is given twice in one object; give each once")
    return result
