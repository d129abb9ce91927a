"""Labels: what the rest of the project uses of them.

label_sets.py has the label sets, versions.py the label versions and their rule, choosing.py finds one
by name or in a user's file, uncertain.py holds the policies for uncertain labels, benchmark_settings.py the versions
whose classes are found in the data.
"""

from tfrecords_builder.labels.canonical import EXTRA_SEPARATOR, LABELS, NO_FINDING
from tfrecords_builder.labels.choosing import check_vocabulary, get_label_version, load_label_versions
from tfrecords_builder.labels.label_sets import (
    DEFAULT,
    LABEL_SETS,
    LabelSet,
    get_label_set,
    make_label_set,
    refuse_other,
)
from tfrecords_builder.labels.uncertain import UNCERTAIN_POLICIES, apply_uncertain, parse_uncertain
from tfrecords_builder.labels.versions import (
    LABEL_VERSIONS,
    NO_CLASS,
    LabelClass,
    LabelVersion,
    assign,
    built_in_versions,
    describe_rule,
    make_label_version,
    satisfies,
    select,
)

__all__ = [
    "DEFAULT",
    "EXTRA_SEPARATOR",
    "LABELS",
    "LABEL_SETS",
    "LABEL_VERSIONS",
    "NO_CLASS",
    "NO_FINDING",
    "UNCERTAIN_POLICIES",
    "LabelClass",
    "LabelSet",
    "LabelVersion",
    "apply_uncertain",
    "assign",
    "built_in_versions",
    "check_vocabulary",
    "describe_rule",
    "get_label_set",
    "get_label_version",
    "load_label_versions",
    "make_label_set",
    "make_label_version",
    "parse_uncertain",
    "refuse_other",
    "satisfies",
    "select",
]
