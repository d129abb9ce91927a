"""Names that settings of a GAN can have, besides those of networks/network_config.py; imports no TensorFlow."""

# hinge_gp and wgan_gp have Gulrajani 2017's penalty, logistic_r1 Mescheder 2018's; see training/losses.py.
LOSSES = ("wgan_gp", "logistic_ns", "logistic_r1", "hinge", "hinge_gp")
PENALISED_LOSSES = ("wgan_gp", "logistic_r1", "hinge_gp")

# Keras mixed precision policies of what networks compute.
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")

# What images of the discriminator go through, in the order in which it is applied; see training/augment.py.
AUGMENT_POLICIES = ("mirror", "translation", "zoom", "rotation", "brightness", "contrast", "noise", "cutout")

# ADA found geometry and colour to help and noise and cutout not (section 2.3, figure 4). Its mirroring is left out: in
# a radiograph it changes the anatomy.
AUGMENT_SHORTHANDS = {
    "color": ("brightness", "contrast"),
    "diffaugment": ("brightness", "contrast", "translation", "cutout"),
    "ada": ("translation", "zoom", "rotation", "brightness", "contrast"),
}

# Generators of a run: the one with the best fidelity while it was trained, or the newest.
SNAPSHOTS = ("best", "latest")
