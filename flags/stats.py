"""Flags of label-stats."""

from absl import flags

from flags import common, records


def define_stats(fv: flags.FlagValues) -> None:
    """The flags of label-stats."""
    records.define_data_set(fv)
    records.define_selection(fv)
    records.define_split_policy(fv)
    flags.DEFINE_list(
        "label_versions", [], "label versions to count, such as v1_0s,v3_xs; default: all", flag_values=fv
    )
    common.define_file(fv, "label_versions_file", "JSON file of label versions of your own, as for build-records")
    common.define_seed(fv)
    common.define_output_dir(fv)
