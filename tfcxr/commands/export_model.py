"""Writes a run's classifier, generator or pretrained network as a SavedModel with serving signatures.

A classifier takes encoded images and gives probabilities, a pretrained network gives features; a generator takes labels
and a seed and gives images. Inside are what `tfcxr.load_classifier`, `load_encoder` or `load_generator` need, and but
for pretrained networks a model card and warm-up requests for TensorFlow Serving.
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
    gan.define_allow_untrained(fv)
    common.define_paths(
        fv,
        "evaluations",
        "output folders of evaluate for this run, separated by commas, whose results the model card shows; "
        "classifiers only",
    )
    common.define_folder(
        fv,
        "scorecard",
        "output folder of scorecard of a set that this generator drew, which the model card then carries; GANs only",
        required=False,
    )
    flags.DEFINE_boolean(
        "onnx",
        False,
        "also write model.onnx, with images of the records' resolution as input; classifiers only, needs the extra "
        "onnx",
        flag_values=fv,
    )
    flags.DEFINE_enum(
        "calibrate",
        "none",
        ["none", "temperature", "per_label"],
        "fit a temperature for all outputs, or one for each label, on the validation fold of --records, so that "
        "probabilities are what they say; with it come thresholds chosen there; classifiers only",
        flag_values=fv,
    )
    common.define_folder(
        fv,
        "records",
        "record set for --calibrate: of the run, or of the place where the model is to work",
        required=False,
    )


def main(fv: flags.FlagValues) -> None:
    """Runs export-model."""
    from tfcxr.evaluation import calibrate
    from tfcxr.gan import loading
    from tfcxr.serving import export_classifier, export_encoder, export_generator, onnx_export, warmup_requests
    from tfcxr.training import digests, runs
    from tfrecords_builder import files
    from tfrecords_builder.errors import InputError

    kind = runs.load_config(fv.run_dir)["kind"]
    calibrates = fv.calibrate != "none"
    if kind != "gan" and fv.scorecard:
        raise InputError(f"--scorecard: is for GANs; {fv.run_dir} is a run of kind {kind}")
    if kind in ("gan", "pretrain") and (fv.onnx or fv.evaluations or calibrates):
        flag = "onnx" if fv.onnx else "evaluations" if fv.evaluations else "calibrate"
        raise InputError(f"--{flag}: is for classifiers; {fv.run_dir} is a run of kind {kind}")
    if calibrates != bool(fv.records):
        raise InputError("--calibrate and --records: give both, as the calibration is fitted on those images")
    if fv.onnx:
        onnx_export.check_installed()
    generator = loading.load(fv.run_dir, fv.snapshot) if kind == "gan" else None
    if generator:
        loading.check_trained(generator, f"--run_dir={fv.run_dir}", allow=fv.allow_untrained, run_dir=fv.run_dir)
    calibrated = told = None
    if calibrates:
        per_label = fv.calibrate == "per_label"
        calibrated, told = calibrate.fit_calibration(fv.run_dir, fv.records, per_label=per_label)
    with files.output_folder(fv.output_dir, overwrite=fv.overwrite) as folder:
        app.write_flags(fv, folder)
        if generator:
            result = export_generator.save_generator(generator, folder, fv.scorecard)
        elif kind == "pretrain":
            result = export_encoder.export_encoder(fv.run_dir, folder)
        else:
            result = export_classifier.export_classifier(fv.run_dir, folder, fv.evaluations, calibrated)
            result["calibration"] = told
            if fv.onnx:
                result["onnx"] = onnx_export.export_onnx(folder, folder)
        digests.write(folder)
        files.write_json(folder / "result.json", {"schema_version": 1, **result})
    if told:
        error = told["expected_calibration_error"]
        print(f"Expected calibration error on these images: {error['before']:.4f} before, {error['after']:.4f} after")
    if not result.get("warmup_requests", True):
        print(warmup_requests.HOW_TO_GET_THEM)
    print(f"Written to {fv.output_dir}; signatures: {', '.join(result['signatures'])}")


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
