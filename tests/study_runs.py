"""A whole study that takes a minute: tiny hospitals, a GAN of 8 px that learns nothing, classifiers of a few steps."""

import pathlib

DEFINITION = """\
# Everything is as small as it can be: this shows that the chain holds.
--name=tiny
--question=Does the chain hold?
--label_versions=v2
--resolution=8
--phantom=a: --hospital=a --num_patients=40 --resolution=16 --workers=1
--phantom=b: --hospital=b --num_patients=40 --resolution=16 --workers=1
--records=a: --dataset=chexpert
--records=b: --dataset=chestxray
--synthetic=synthetic: a
--gan_flags=--fmap_base=64 --fmap_max=8 --batch_size=8 --total_kimg=0.032 --tick_kimg=0.032 --init=calm --fid_images=16
--generate_flags=--per_class=10 --allow_untrained
--baseline_flags=--backbone=resnet_tiny --weights=none --image_size=32 --variant=sched --stage2_epochs=1
--adapt_flags=--backbone=resnet_tiny --weights=none --image_size=32 --steps=2 --eval_every=2 --batch_size=4
--evaluate_flags=--resamples=20
--adapt_from_baseline
--cells=synthetic -> b: none, dcan_noreg
"""


def write_definition(folder: pathlib.Path) -> pathlib.Path:
    """Writes the flagfile of the tiny study; returns its path."""
    path = folder / "tiny.flags"
    path.write_text(DEFINITION)
    return path
