"""Flags of `study`: what the table holds, and how each kind of job is run."""

from absl import flags

# The study's flag -> command whose jobs have those flags.
COMMANDS = {
    "gan_flags": "train-gan",
    "generate_flags": "generate",
    "baseline_flags": "train-baseline",
    "adapt_flags": "train-dcan",
    "evaluate_flags": "evaluate",
    "compare_flags": "compare-sets",
    "audit_flags": "audit-privacy",
}


def define_question(fv: flags.FlagValues) -> None:
    """--name, --question, --table."""
    flags.DEFINE_string("name", None, "of the study: its folder in the workspace's studies/", flag_values=fv)
    flags.DEFINE_string("question", "", "what the study answers, one sentence; heads the report", flag_values=fv)
    flags.DEFINE_string(
        "table", None, "table of the thesis, such as 5.10, whose figures are put beside ours", flag_values=fv
    )


def define_sets(fv: flags.FlagValues) -> None:
    """--records, --data, --phantom, --synthetic, --generators, --gans, --pretraining."""
    flags.DEFINE_multi_string(
        "records", [],
        "NAME: FLAGS; an image set, and the flags of build-records for it but --data_dir and --label_version; with a "
        "--resolution of its own, if it has another one than the study. Once for each set", flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_multi_string(
        "phantom", [], "NAME: FLAGS; the set of that name is simulated, with these flags of phantom", flag_values=fv
    )
    # Multi flags, since of a list that is given twice the first would be lost.
    flags.DEFINE_multi_string(
        "data", [],
        "NAME:FOLDER, ... of the data of sets that are not simulated, or one FOLDER for all; may be given more than "
        "once",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_multi_string(
        "synthetic",
        [],
        "NAME: SET FLAGS; images of a GAN that has learned the training fold of SET; FLAGS of generate, such as how "
        "many, may be left out",
        flag_values=fv,
    )
    flags.DEFINE_multi_string(
        "generators", [],
        "NAME:FOLDER, ...; a GAN's run, an exported generator, or one that comes with tfcxr (nih_32), for the "
        "synthetic set NAME, instead of training one",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_integer(
        "gans", 1,
        "GANs for each set that is learned, with the seeds that follow that of --gan_flags; the classifiers of the "
        "first of --seeds see images of the first GAN, and so on in turn",
        lower_bound=1, flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_multi_string(
        "pretraining", [],
        "NAME: SET FLAGS; first weights that pretrain, with these flags, finds on SET without labels", flag_values=fv,
    )  # fmt: skip


def define_table(fv: flags.FlagValues) -> None:
    """--label_versions, --label_versions_file, --resolution, --cells, --seeds, --adapt_from_baseline, --label_stats,
    --compare_sets, --audit_privacy.
    """
    flags.DEFINE_list("label_versions", [], "label versions, such as v1_0s,v2: a table for each", flag_values=fv)
    flags.DEFINE_string(
        "label_versions_file", None, "JSON file of label versions of your own, as for build-records", flag_values=fv
    )
    flags.DEFINE_integer("resolution", 64, "side of all images in pixels", lower_bound=8, flag_values=fv)
    flags.DEFINE_multi_string(
        "cells", [],
        "SOURCE, ... -> TARGET, ...: METHOD, ...; trained on each source, tested on each target. Sources: SET; "
        "SET@10%: a tenth of its patients; SET+OTHER: both mixed; FIRST>SET: trained on FIRST, then on SET; "
        "PRETRAINING>SET, imagenet>SET or none>SET: from such first weights. Methods: none (the baseline; none/plain, "
        "none/sched, none/layer_lr, none/layer_lr_sched name its variant), or an --alignment of train-dcan "
        "(dann/estimate: with --target_prior=estimate); where there is continued, the source alone for as many steps, "
        "gains are measured from it",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_list(
        "seeds", ["0"],
        "of the classifiers' trainings; sets are made once, with the seeds in their own flags, GANs as --gans says",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_boolean(
        "adapt_from_baseline", False,
        "adaptations start from the baseline of their source and seed; needed without pretrained weights",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_boolean("label_stats", False, "also count the labels of each set of --records", flag_values=fv)
    flags.DEFINE_boolean(
        "compare_sets", False,
        "also measure fidelity and diversity of each set of --synthetic that is made, against the training fold that "
        "its GAN learned, with the test fold as holdout (another one by --compare_flags)", flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_boolean(
        "audit_privacy", False,
        "also audit whether each of these sets gives away training images; --audit_flags says how", flag_values=fv
    )  # fmt: skip


def define_jobs(fv: flags.FlagValues) -> None:
    """The flags that jobs of each command have."""
    for name, command in COMMANDS.items():
        holes = {
            "train-baseline": "; {variant} in it stands for the variant",
            "train-dcan": "; {method} for the method",
        }
        flags.DEFINE_string(
            name, "", f"flags of {command}, first a preset: 'demo/preset --flag=value'{holes.get(command, '')}",
            flag_values=fv,
        )  # fmt: skip


def define_running(fv: flags.FlagValues) -> None:
    """--workspace, --output_dir, --jobs, --only, --collect, --if_running, --dry_run, --emit, --slurm."""
    flags.DEFINE_string(
        "workspace", "workspace", "folder for the jobs' outputs: data, records, runs, statistics", flag_values=fv
    )
    flags.DEFINE_string(
        "output_dir", None, "folder of the study's own files; default studies/NAME in the workspace", flag_values=fv
    )
    flags.DEFINE_integer("jobs", 1, "jobs that run at a time; each uses all cores", lower_bound=1, flag_values=fv)
    flags.DEFINE_string(
        "only", None,
        "run this job alone, such as train-gan-nih, if all that it needs is finished; --dry_run lists the jobs",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_boolean(
        "collect", False, "run no job: write the table and the report of what is done; cells that are not stay empty, "
        "and the exit code is 1", flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_enum(
        "if_running", "refuse", ["refuse", "wait", "stop"],
        "if another call runs this study, or a job of one that was killed: refuse, wait for it, or stop it and go on "
        "when it has saved", flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_boolean("dry_run", False, "print the plan: jobs, states, expected time; run nothing", flag_values=fv)
    flags.DEFINE_enum(
        "emit", None, ["shell", "slurm"], "print the jobs as a script instead of running them", flag_values=fv
    )
    flags.DEFINE_multi_string(
        "slurm", [],
        "KIND: OPTIONS; options of sbatch for the jobs of a command, or for the table, in the script of --emit=slurm: "
        "'train-gan: --gres=gpu:1 --cpus-per-task=8 --time=24:00:00'. Once for each kind", flag_values=fv,
    )  # fmt: skip
