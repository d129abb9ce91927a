"""Writes probabilities of image files to a CSV, and with --heatmaps pictures of what they rest on (Grad-CAM).

Reads PNG, JPEG and DICOM as build-records does. A bad file does not stop the rest: bad files are listed at the end,
and the exit code is then 1.
Example: tfcxr predict --model=workspace/exports/baseline/1 --images=folder,other.dcm --output=predictions.csv
"""

import contextlib
import pathlib
import sys

from absl import flags

from flags import app, common


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of predict."""
    common.define_folder(fv, "model", "run folder or export of a classifier")
    common.define_paths(fv, "images", "PNG, JPEG or DICOM files and folders of them, separated by commas")
    common.define_place(fv, "output", "CSV to write; flags and result are written beside it")
    common.define_required(fv, "output", "the CSV to write")
    common.define_place(
        fv,
        "heatmaps",
        "folder, empty or new, for a picture of each image under the heat map of its predicted class, or those of its "
        "positive labels, or of the most probable one if none is",
    )
    flags.DEFINE_list(
        "heatmap_labels",
        [],
        "labels to draw heat maps of, whether positive or not, separated by commas; for models of labels that do not "
        "exclude each other",
        flag_values=fv,
    )
    common.define_overwrite(fv)
    common.define_batch_size(fv, 32)


def main(fv: flags.FlagValues) -> int:
    """Runs predict."""
    from tfcxr.serving import predict
    from tfrecords_builder import files
    from tfrecords_builder.errors import InputError, RunError

    output = pathlib.Path(fv.output)
    if fv.heatmaps and output.absolute().is_relative_to(pathlib.Path(fv.heatmaps).absolute()):
        raise InputError(f"--output={output}: lies in the folder of --heatmaps, which must be for them alone")
    predict.check_output(output, overwrite=fv.overwrite)
    image_paths = predict.find_images(fv.images)
    with contextlib.ExitStack() as stack:
        heatmaps = None
        if fv.heatmaps:
            heatmaps = stack.enter_context(files.output_folder(fv.heatmaps, overwrite=fv.overwrite, flag="--heatmaps"))
            app.write_flags(fv, heatmaps)
        result = predict.predict_files(
            fv.model,
            image_paths,
            output,
            batch_size=fv.batch_size,
            heatmaps=heatmaps,
            heatmap_labels=fv.heatmap_labels,
        )
    result_file, flags_file = predict.written_beside(output)
    try:
        with files.naming_failures(output, "--output"):
            files.write_json(result_file, {"schema_version": 1, "model": fv.model, **result})
            app.write_flags(fv, output.parent, flags_file.name)
    except RunError:  # the next call shall not meet a half of this one
        for path in (output, result_file, flags_file):
            path.unlink(missing_ok=True)
        raise
    print(f"{result['num_images']} images written to {output}")
    for path, reason in result["failed"].items():
        print(f"error: {path}: {reason}", file=sys.stderr)
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
