"""Builds TFRecords from a label table and its images: selects the rows of a label version, splits them by patient,
resizes the images to 8-bit grey PNG, and writes sharded records with their description and a report of what was left
out and why.

Example:
  tfcxr build-records --dataset=chestxray --data_dir=nih --label_version=v1_0s --resolution=64 \\
    --split_policy=official --output_dir=workspace/records/chestxray/v1_0s/64
"""

import sys
import time

from absl import flags

from flags import app, records


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of this program."""
    records.define_build(fv)


def main(fv: flags.FlagValues) -> None:
    """Builds the record set that the flags describe."""
    from tfrecords_builder import building, files

    start = time.monotonic()
    with files.output_folder(fv.output_dir, overwrite=fv.overwrite) as folder:
        info = building.build(
            folder,
            dataset=fv.dataset,
            data_dir=fv.data_dir,
            labels_csv=fv.labels_csv,
            label_version=fv.label_version,
            resolution=fv.resolution,
            uncertain=fv.uncertain,
            split_policy=fv.split_policy,
            split_fractions=[float(value) for value in fv.split_fractions],
            view=fv.view,
            limit=fv.limit,
            num_shards=fv.num_shards,
            workers=fv.workers,
            missing_images=fv.missing_images,
            bad_images=fv.bad_images,
            seed=fv.seed,
        )
        report = files.read_json(folder / "build_report.json")
        seconds = time.monotonic() - start
        result = {**report, "digest": info.digest, "seconds": round(seconds, 3)}
        files.write_json(folder / "result.json", result)
        app.write_flags(fv, folder)
    for warning in report["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    print(building.format_counts(info))
    for reason, count in report["skipped"].items():
        print(f"left out: {count} ({reason})")
    print(f"{report['written']} of {report['rows']} rows written to {fv.output_dir} in {seconds:.1f} s")


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
