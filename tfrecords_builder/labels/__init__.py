"""Labels: what the rest of the project uses of them.

canonical.py has the 14 labels and their hierarchy, versions.py the label versions and their rule, choosing.py finds one
by name or in a user's file, uncertain.py holds the policies for uncertain labels, benchmark_settings.py the versions
whose classes are found in the data.
"""

from tfrecords_builder.labels.canonical import EXTRA_SEPARATOR, INDEX, LABELS, NO_FINDING, PARENTS, count_orphans
from tfrecords_builder.labels.choosing import check_vocabulary, get_label_version, load_label_versions
from tfrecords_builder.labels.uncertain import UNCERTAIN_POLICIES, apply_uncertain, parse_uncertain
from tfrecords_builder.labels.versions import (
    LABEL_VERSIONS,
    NO_CLASS,
    LabelClass,
    LabelVersion,
    assign,
    describe_rule,
    make_label_version,
    satisfies,
    select,
)

__all__ = [
    "EXTRA_SEPARATOR",
    "INDEX",
    "LABELS",
    "LABEL_VERSIONS",
    "NO_CLASS",
    "NO_FINDING",
    "PARENTS",
    "UNCERTAIN_POLICIES",
    "LabelClass",
    "LabelVersion",
    "apply_uncertain",
    "assign",
    "check_vocabulary",
    "count_orphans",
    "describe_rule",
    "get_label_version",
    "load_label_versions",
    "make_label_version",
    "parse_uncertain",
    "satisfies",
    "select",
]
