"""Simulates a hospital's chest radiographs: 3-D anatomy, CheXpert's findings, X-ray projection, and a label table.

Hospital a writes CheXpert's layout (train.csv, valid.csv, JPEG), hospital b NIH ChestX-ray14's
(Data_Entry_2017_v2020.csv, split lists, PNG). They differ in exposure, contrast, noise, borders, views and prevalence.
Patients have one to five studies each. Nobody in these pictures exists.

--body=head draws axial CT slices of heads instead, with the five kinds of haemorrhage, as DICOM files and a table in
the layout of the RSNA's set (build-records --dataset=rsna_brain).

Example:
  tfcxr phantom --hospital=a --num_patients=600 --resolution=128 --output_dir=workspace/data/phantom-a
"""

import sys

from absl import flags

from flags import app, common
from tfrecords_builder import choices


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of this program."""
    common.define_output_dir(fv)
    flags.DEFINE_enum(
        "hospital", "a", choices.HOSPITALS, "a: CheXpert layout; b: NIH ChestX-ray14 layout", flag_values=fv
    )
    flags.DEFINE_enum(
        "body", "chest", choices.BODIES, "chest radiographs of --hospital, or CT slices of heads", flag_values=fv
    )
    flags.DEFINE_integer(
        "num_patients",
        600,
        "patients, about 2 images each, of heads 6",
        lower_bound=1,
        upper_bound=99_999,
        flag_values=fv,
    )
    common.define_resolution(fv, default=128, low=16)
    common.define_seed(fv)
    common.define_workers(fv)


def main(fv: flags.FlagValues) -> None:
    """Simulates the hospital that the flags describe."""
    from tfrecords_builder import files
    from tfrecords_builder.simulator import head, simulate_hospital

    with files.output_folder(fv.output_dir, overwrite=fv.overwrite) as folder:
        what = {"num_patients": fv.num_patients, "resolution": fv.resolution, "seed": fv.seed}
        if fv.body == "head":
            result = head.simulate_heads(folder, **what)
        else:
            result = simulate_hospital.simulate_hospital(
                folder, hospital=fv.hospital, workers=common.num_workers(fv), **what
            )
        files.write_json(folder / "result.json", result)
        app.write_flags(fv, folder)
    print(
        f"{result['num_images']} images of {result['num_patients']} patients in {result['seconds']:.1f} s "
        f"({result['images_per_second']:.0f}/s) written to {fv.output_dir}"
    )


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
