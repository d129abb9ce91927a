"""The scorecard of a synthetic set: fidelity, utility, privacy, and what is unknown, on one page and as JSON.

It gathers outputs of compare-sets, audit-privacy, evaluate and utility, checks by digests that each is of this set,
and says what was not measured. It also goes into the set's folder (scorecard.json) and into its datasheet, which say
"audited: no" until there is an audit against the records that the generator learned from; --noattach leaves the set as
it is.
The records and their digest do not change.
After Zamzmi et al. 2024, arXiv 2406.11143.
Example: tfcxr scorecard --synthetic_set=workspace/records/synthetic/v2/64 --comparison=workspace/comparisons/gan64
  --audit=workspace/audits/gan64 --output_dir=workspace/scorecards/gan64
"""

import sys

from absl import flags

from flags import app, common


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of scorecard."""
    common.define_records(fv, "synthetic_set", "record set that generate wrote")
    for name, text in {
        "comparison": "output folders of compare-sets of this set, such as one for each kind of features",
        "audit": "output folders of audit-privacy of this set",
        "evaluation": "output folders of evaluate: of classifiers trained on this set, or tested on its images; and, "
        "for reference, of others on the same test images",
        "utility": "output folders of utility, of classifiers of this set",
    }.items():
        common.define_paths(fv, name, f"{text}; several separated by commas")
    flags.DEFINE_string("intended_use", None, "what the set is for, a sentence; default: research only", flag_values=fv)
    flags.DEFINE_boolean(
        "attach", True, "also write scorecard.json and the datasheet in the folder of the set", flag_values=fv
    )
    common.define_output_dir(fv)


def main(fv: flags.FlagValues) -> None:
    """Runs scorecard."""
    from tfcxr import scorecard
    from tfrecords_builder import files

    files.refuse_source(fv.output_dir, fv.synthetic_set, flag="--synthetic_set")
    for name in ("comparison", "audit", "evaluation", "utility"):
        for folder in getattr(fv, name):
            files.refuse_source(fv.output_dir, folder, flag=f"--{name}")
    with files.output_folder(fv.output_dir, overwrite=fv.overwrite) as folder:
        app.write_flags(fv, folder)
        card = scorecard.make_scorecard(
            synthetic_set=fv.synthetic_set,
            comparisons=fv.comparison,
            audits=fv.audit,
            evaluations=fv.evaluation,
            utilities=fv.utility,
            intended_use=fv.intended_use or scorecard.INTENDED_USE,
            attach=fv.attach,
            output_dir=folder,
        )
    print("\n".join(card["lines"]))
    print(f"Written to {fv.output_dir}: start with report.html")


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
