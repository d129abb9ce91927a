"""`tfcxr` lists the commands; `tfcxr COMMAND --flag=value ...` is `python -m MODULE --flag=value ...`."""

import difflib
import importlib
import pathlib
import sys

from flags import app

# command: (module, what it does)
COMMANDS = {
    "phantom": ("tfcxr.commands.phantom", "simulate the radiographs and label table of a hospital"),
    "build-records": ("tfcxr.commands.build_records", "label table + images -> TFRecords of a label version"),
    "label-stats": (
        "tfcxr.commands.label_stats",
        "tables, figures and report of a label table, published counts beside",
    ),
    "verify-records": ("tfcxr.commands.verify_records", "check every shard of a record set"),
    "train-gan": ("tfcxr.commands.train_gan", "train the class-conditional GAN"),
    "generate": ("tfcxr.commands.generate", "draw a labelled synthetic record set from a GAN"),
    "pretrain": ("tfcxr.commands.pretrain", "train a classifier's backbone on images without labels"),
    "train-baseline": ("tfcxr.commands.train_baseline", "train the classifier without adaptation"),
    "train-dcan": ("tfcxr.commands.train_dcan", "train the classifier with domain adaptation (DCAN, DANN, ...)"),
    "evaluate": ("tfcxr.commands.evaluate", "recall per class and balanced accuracy, with intervals"),
    "compare-sets": (
        "tfcxr.commands.compare_sets",
        "fidelity, diversity and label agreement of synthetic images",
    ),
    "neighbours": ("tfcxr.commands.neighbours", "the real images nearest to synthetic ones: table and pictures"),
    "audit-privacy": ("tfcxr.commands.audit_privacy", "whether a synthetic set gives away training images"),
    "attribute": ("tfcxr.commands.attribute", "where two classifiers look in the same images, and how far they agree"),
    "utility": ("tfcxr.commands.utility", "what classifiers learn from synthetic images, beside real ones: gaps"),
    "scorecard": ("tfcxr.commands.scorecard", "what is known of a synthetic set, and what is not, on one page"),
    "reader-study": ("tfcxr.commands.reader_study", "a page for readers: real or synthetic? And its scores"),
    "export-model": ("tfcxr.commands.export_model", "write a run's classifier or generator as a SavedModel"),
    "predict": ("tfcxr.commands.predict", "class probabilities of image files"),
    "study": ("tfcxr.commands.study", "a whole table of results from one flagfile, resumable"),
    "import-reference": ("tfcxr.commands.import_reference", "make a run of a network that the reference GAN trained"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("--help", "-h", "help"):
        print("Usage: tfcxr COMMAND --flag=value ...     (tfcxr COMMAND --help lists a command's flags)\n\nCommands:")
        for name, (_, what) in COMMANDS.items():
            print(f"  {name:18}{what}")
        return 0
    command, *rest = argv
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        advice = f"did you mean {near[0]}?" if near else "`tfcxr` lists the commands"
        print(f"error: {command}: is not a command; {advice}", file=sys.stderr)
        return 2
    # Before site-packages, where tf2onnx puts a package called `tools`, too.
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
    module = importlib.import_module(COMMANDS[command][0])
    return app.run(module.main, module.define_flags, [f"tfcxr {command}", *rest])


if __name__ == "__main__":
    sys.exit(main())
