"""Writes a run's classifier or generator as a SavedModel with serving signatures.

A classifier takes encoded images and gives probabilities; a generator takes labels and a seed and gives images.
Example: tfcxr export-model --run_dir=workspace/runs/baseline --output_dir=workspace/exports/baseline/1
"""

import sys

from absl import flags

from flags import app, common, gan


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of export-model."""
    common.define_run_dir(fv, new=False)
    common.define_output_dir(fv)
    gan.define_snapshot(fv)


def main(fv: flags.FlagValues) -> None:
    """Runs export-model."""
    from tfcxr import runs
    from tfrecords_builder import files

    kind = runs.load_config(fv.run_dir)["kind"]
    with files.output_folder(fv.output_dir, overwrite=fv.overwrite) as folder:
        app.write_flags(fv, folder)
        if kind == "gan":
            from tfcxr.gan import export, loading

            result = export.save_generator(loading.load(fv.run_dir, fv.snapshot), folder)
        else:
            from tfcxr import exporting

            result = exporting.export_classifier(fv.run_dir, folder)
        files.write_json(folder / "result.json", {"schema_version": 1, **result})
    print(f"Written to {fv.output_dir}; signatures: {', '.join(result['signatures'])}")


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
