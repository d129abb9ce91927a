"""Makes a run of networks that the reference GAN trained: images as there, to be generated, exported and trained on.

The file is `network-final.pkl`, a pickle of (G, D, Gs), or an .npz with arrays named <G|D|Gs>/<variable>. Nothing in it
is run: a pickle may hold arrays and plain containers only. Settings are found in the file, else from its shapes.

Example:
  tfcxr import-reference --checkpoint=network-final.pkl --run_dir=workspace/runs/reference
  tfcxr generate --run_dir=workspace/runs/reference --label_version=v1_0s --per_class=100 --output_dir=samples
  tfcxr train-gan --warm_start=workspace/runs/reference --records=... --run_dir=workspace/runs/further (and its sizes)
"""

import pathlib
import sys

from absl import flags

from flags import app, common
from tfrecords_builder import labels


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of import-reference."""
    common.define_file(fv, "checkpoint", "network-final.pkl, or .npz of <G|D|Gs>/<variable>")
    common.define_required(fv, "checkpoint", "the file to import")
    flags.DEFINE_string("run_dir", None, "folder of the run to make", flag_values=fv)
    common.define_required(fv, "run_dir", "the folder of the run, such as workspace/runs/reference")
    common.define_overwrite(fv)
    common.define_resolution(fv, None, low=8, high=1024)
    for name, what in (
        ("base", "feature maps at stage s are fmap_base / 2^s"),
        ("max", "most feature maps of a layer"),
        ("min", "fewest feature maps of a layer"),
    ):
        flags.DEFINE_integer(f"fmap_{name}", None, f"{what}; default: as the file says", lower_bound=1, flag_values=fv)
    flags.DEFINE_float(
        "fmap_decay",
        None,
        "feature maps at stage s are fmap_base / 2^(s fmap_decay); default: as the file says",
        lower_bound=0.0,
        flag_values=fv,
    )
    flags.DEFINE_list(
        "condition_labels", [],
        "labels the network was conditioned on, in the order of its columns; empty: all of CheXpert's, in its order",
        flag_values=fv,
    )  # fmt: skip
    flags.register_validator(
        "condition_labels",
        lambda names: all(name in labels.LABELS for name in names) and len(set(names)) == len(names),
        f"must be distinct labels of: {', '.join(labels.LABELS)}",
        flag_values=fv,
    )
    flags.DEFINE_float(
        "kimg", 0.0, "thousands of real images it was trained with, if known", lower_bound=0.0, flag_values=fv
    )


def main(fv: flags.FlagValues) -> None:
    """Imports."""
    from tfcxr.gan.reference import checkpoint_files, import_reference
    from tfcxr.training import runs
    from tfrecords_builder import files
    from tfrecords_builder.errors import InputError

    path = pathlib.Path(fv.checkpoint)
    if pathlib.Path(fv.run_dir).resolve() in path.resolve().parents:
        raise InputError(f"--run_dir={fv.run_dir}: holds --checkpoint, which --overwrite would delete; choose another")
    found = checkpoint_files.read(path)
    settings = {name: fv[name].value for name in ("resolution", *import_reference.FEATURE_MAP_SETTINGS)}
    imported = import_reference.fit(found, labels=fv.condition_labels, settings=settings)
    source = {"file": path.name, "sha256": files.sha256(path)}
    with runs.RunFolder.open(
        fv.run_dir,
        kind="gan",
        config=import_reference.run_config(imported, source),
        records_digests={},
        overwrite=fv.overwrite,
    ) as run:
        app.write_flags(fv, run.path)
        result = import_reference.write(imported, run, kimg=fv.kimg)
        run.finish({**result, "imported": source, "networks": sorted(found)})
    network = imported.network
    print(f"{', '.join(sorted(found))} of {network.resolution} px written to {fv.run_dir}")
    if "D" not in found:
        print("The file holds no discriminator: the run can generate and be exported, but not trained on")
    if len(network.condition_labels) != 0:
        print(f"Conditioned on: {', '.join(labels.LABELS[index] for index in network.condition_labels)}")
    print(
        f"Train on with: --warm_start={fv.run_dir} --resolution={network.resolution} "
        f"--fmap_base={network.fmap_base} --fmap_max={network.fmap_max}"
    )


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
