"""Can readers tell synthetic radiographs from real ones? Makes a page for them, and scores their answers.

Without --score it writes reader_study.html, one file that works offline: shuffled real and synthetic images, one
question for each, by mouse or keyboard. A reader gives a name, may go on after a break, and saves the answers as a CSV
file. key.json says which image is which: keep it. The name of the study, on the page and in all answers, is a digest
of the key, so that nobody can change it afterwards. With --score it scores those files: exact intervals for each
reader, and how far readers agree.
Example: tfcxr reader-study --real=workspace/records/chexpert/v2/64 --synthetic=workspace/records/synthetic/v2/64
  --output_dir=workspace/readers/gan64
Example: tfcxr reader-study --study=workspace/readers/gan64 --score=anna.csv,ben.csv
  --output_dir=workspace/readers/gan64-scores
"""

import sys

from absl import flags

from flags import app, common
from tfrecords_builder.errors import InputError


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of reader-study."""
    common.define_folder(
        fv, "real", "record set of real images, best ones that the generator has not seen", required=False
    )
    common.define_folder(fv, "synthetic", "record set of synthetic images", required=False)
    common.define_split(fv, "test")
    flags.DEFINE_enum(
        "synthetic_split", "train", ["train", "validation", "test"], "which fold of --synthetic to read", flag_values=fv
    )
    flags.DEFINE_integer("num_images", 60, "images in all, half of them synthetic", lower_bound=2, flag_values=fv)
    flags.register_validator("num_images", lambda value: value % 2 == 0, "must be even", flag_values=fv)
    flags.DEFINE_string("finding", None, "also ask whether this label is present, such as Pneumonia", flag_values=fv)
    common.define_folder(fv, "study", "folder of the study that --score is of", required=False)
    common.define_paths(fv, "score", "score these CSV files of answers, one of each reader")
    common.define_seed(fv)
    common.define_output_dir(fv)


def main(fv: flags.FlagValues) -> None:
    """Runs reader-study."""
    needed = ("study",) if fv.score else ("real", "synthetic")
    for name in needed:
        if not fv[name].value:
            what = "of the answers of --score" if fv.score else "unless --score is given"
            raise InputError(f"--{name} is required {what}: {fv[name].help}")
    from tfcxr.reader_study import page, scoring
    from tfrecords_builder import files

    with files.output_folder(fv.output_dir, overwrite=fv.overwrite) as folder:
        app.write_flags(fv, folder)
        if fv.score:
            result = scoring.score_study(study=fv.study, answers=fv.score, output_dir=folder)
        else:
            page.make_study(
                real=fv.real,
                synthetic=fv.synthetic,
                split=fv.split,
                synthetic_split=fv.synthetic_split,
                num_images=fv.num_images,
                finding=fv.finding,
                seed=fv.seed,
                output_dir=folder,
            )
    if fv.score:
        print(scoring.to_markdown(result))
        print(f"Written to {fv.output_dir}")
    else:
        print(f"Written to {fv.output_dir}: give {page.PAGE_FILE} to the readers, and keep {page.KEY_FILE}")


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
