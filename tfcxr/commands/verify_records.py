"""Checks a record set: shards, CRCs, counts, images, labels, that no patient is in two splits, and the digest. Prints
every fault; exit code 1 if there is one. Writes nothing, unless --output_dir is given.

Example:
  tfcxr verify-records --records=workspace/records/chestxray/v1_0s/64
"""

import sys

from absl import flags

from flags import app, common


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of this program."""
    common.define_records(fv)
    flags.DEFINE_string("output_dir", None, "folder for result.json; none: only print", flag_values=fv)
    common.define_overwrite(fv)


def main(fv: flags.FlagValues) -> None:
    """Verifies the record set; raises RunError if it has faults."""
    import contextlib
    import dataclasses

    from tfrecords_builder import files
    from tfrecords_builder.errors import RunError
    from tfrecords_builder.records import verify_records

    output = files.output_folder(fv.output_dir, overwrite=fv.overwrite) if fv.output_dir else contextlib.nullcontext()
    with output as folder:
        verdict = verify_records.verify(fv.records)
        if folder:
            files.write_json(folder / "result.json", {"records": fv.records, **dataclasses.asdict(verdict)})
            app.write_flags(fv, folder)
    for fault in verdict.faults:
        print(fault)
    if verdict.faults:
        raise RunError(f"{fv.records}: {len(verdict.faults)} faults; build the records again")
    print(f"{fv.records}: sound, {verdict.num_examples} images in {verdict.num_shards} shards, digest {verdict.digest}")


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
