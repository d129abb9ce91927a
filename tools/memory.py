"""Measures the peak memory of every command on two sizes of the same data, to see what grows with it.

A phantom hospital of --sizes patients goes through the commands, each in a process of its own, which says at its end
what the most was that it held (VmHWM). Trainings take the same steps at both sizes. `import-reference` reads no data
set, and `study` only starts the other commands: neither is in the list.
"""

import dataclasses
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

from absl import flags

from flags import app
from tfrecords_builder import files
from tfrecords_builder.errors import InputError, RunError

_KIB = 2**10
_TINY = ("--backbone=resnet_tiny", "--image_size=32", "--batch_size=16")
_LABEL_VERSION = "v2"


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of the benchmark."""
    flags.DEFINE_list("sizes", ["100", "1000"], "patients of the two hospitals, about two images each", flag_values=fv)
    flags.DEFINE_integer("resolution", 32, "side of the images in pixels", lower_bound=8, flag_values=fv)
    flags.DEFINE_string("output", None, "JSON file to write; default: print only", flag_values=fv)


def command_lines(root: pathlib.Path, patients: int, resolution: int) -> Iterator[tuple[str, list[str]]]:
    """Name and command line of each measurement, in an order in which each finds what it reads; no name: not a row.

    Args:
        root: folder of all that is written.
        patients: of the hospital; the synthetic set gets as many images of each of its classes as make two each.
        resolution: side of the images.
    """

    def at(name: str) -> str:
        return str(root / name)

    real, synthetic, gan, baseline = at("real"), at("synthetic"), at("gan"), at("baseline")
    table = ["--dataset=chexpert", f"--data_dir={at('hospital')}"]
    hospital = ["phantom", "--hospital=a", f"--num_patients={patients}", f"--resolution={resolution}", "--workers=1"]
    yield "phantom", [*hospital, f"--output_dir={at('hospital')}"]
    yield "label-stats", ["label-stats", *table, f"--output_dir={at('stats')}"]
    build = ["build-records", *table, f"--label_version={_LABEL_VERSION}", f"--resolution={resolution}", "--workers=1"]
    yield "build-records", [*build, f"--output_dir={real}"]
    yield "verify-records", ["verify-records", f"--records={real}"]
    tiny_gan = ["--fmap_base=128", "--fmap_max=16", "--batch_size=16", "--init=calm", "--fid_images=64"]
    length = ["--total_kimg=0.32", "--tick_kimg=0.32"]
    yield "train-gan", ["train-gan", f"--records={real}", f"--run_dir={gan}", *tiny_gan, *length]
    made = [f"--label_version={_LABEL_VERSION}", f"--per_class={patients // 2}", "--allow_untrained"]
    yield "generate", ["generate", f"--run_dir={gan}", *made, f"--output_dir={synthetic}"]
    stage = ["--weights=none", "--stage2_epochs=1", "--samples_per_epoch=96"]
    learn = ["train-baseline", *_TINY, *stage]
    yield "train-baseline", [*learn, f"--records={real}", f"--run_dir={baseline}"]
    head = ["--stage2_epochs=0", "--stage1_solver=logistic", f"--init_from={baseline}"]
    yield (
        "train-baseline, linear probe",
        ["train-baseline", *_TINY, *head, f"--records={real}", f"--run_dir={at('probe')}"],
    )
    domains = [f"--source_records={synthetic}", f"--target_records={real}", f"--init_from={baseline}"]
    adapt = ["--alignment=dan", "--steps=6", "--eval_every=6"]
    yield "train-dcan", ["train-dcan", *_TINY, *domains, *adapt, f"--run_dir={at('dan')}"]
    steps = ["--steps=6", "--eval_every=6"]
    yield "pretrain", ["pretrain", *_TINY, f"--records={real}", *steps, f"--run_dir={at('simclr')}"]
    evaluate = ["evaluate", f"--records={real}", "--resamples=200"]
    yield "evaluate", [*evaluate, f"--model={baseline}", f"--output_dir={at('evaluation')}"]
    calibrate = ["--calibrate=temperature", f"--records={real}"]
    yield "export-model", ["export-model", f"--run_dir={baseline}", *calibrate, f"--output_dir={at('export')}"]
    pictures = [f"--images={at('hospital')}", f"--output={at('predictions.csv')}"]
    yield "predict", ["predict", f"--model={baseline}", *pictures]
    pair = [f"--real={real}", f"--synthetic={synthetic}"]
    yield "compare-sets", ["compare-sets", *pair, "--resamples=20", f"--output_dir={at('comparison')}"]
    yield "neighbours", ["neighbours", *pair, f"--output_dir={at('neighbours')}"]
    audit = ["--features=pixels", "--draws=5", "--permutations=199", "--reid_steps=0"]
    against = [f"--synthetic={synthetic}", f"--train={real}", f"--output_dir={at('audit')}"]
    yield "audit-privacy", ["audit-privacy", *audit, *against]
    models = [f"--models={baseline},{at('dan')}", f"--records={real}", "--num_images=20", "--resamples=100"]
    yield "attribute", ["attribute", *models, f"--output_dir={at('attribution')}"]
    yield "reader-study", ["reader-study", *pair, "--num_images=20", f"--output_dir={at('readers')}"]
    yield "", [*learn, f"--records={synthetic}", f"--run_dir={at('other')}"]
    yield "", [*evaluate, f"--model={at('other')}", f"--output_dir={at('other-evaluation')}"]
    gaps = [f"--real={at('evaluation')}", f"--synthetic={at('other-evaluation')}", f"--records={real}"]
    yield "utility", ["utility", *gaps, "--resamples=200", f"--output_dir={at('utility')}"]
    known = [f"--comparison={at('comparison')}", f"--audit={at('audit')}", f"--utility={at('utility')}"]
    card = ["scorecard", f"--synthetic_set={synthetic}", *known]
    yield "scorecard", [*card, f"--output_dir={at('card')}"]


# A process's own record of its peak: ru_maxrss counts what the process that started it held at that time.
_PROGRAM = """
import pathlib, re, sys
from tfcxr import cli
code = cli.main(sys.argv[2:])
status = pathlib.Path("/proc/self/status").read_text()
pathlib.Path(sys.argv[1]).write_text(re.search(r"VmHWM:\\s*(\\d+) kB", status)[1])
sys.exit(code)
"""


def peak(words: Sequence[str], log: pathlib.Path) -> float:
    """Runs a command of tfcxr in a process of its own; the peak of its memory in MiB, 2^20 bytes. Linux only.

    Args:
        words: the command and its flags.
        log: file for its output.

    Raises:
        RunError: it failed; the last line of its output is in the message.
    """
    noted = log.with_suffix(".peak")
    with log.open("wb") as stream:
        command = [sys.executable, "-c", _PROGRAM, str(noted), *words]
        code = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        lines = log.read_text(errors="replace").splitlines() or [""]
        raise RunError(f"{words[0]} ended with {code}: {lines[-1]}")
    return int(noted.read_text()) / _KIB


@dataclasses.dataclass(frozen=True)
class Size:
    """What was measured at one size: images of the hospital, and of each command the peak in MiB."""

    images: int
    peaks: dict[str, float]


def measure(root: pathlib.Path, patients: int, resolution: int) -> Size:
    """Runs all commands on a hospital of so many patients. Raises RunError if one fails."""
    peaks = {}
    for i, (name, words) in enumerate(command_lines(root, patients, resolution)):
        mib = peak(words, root / f"{i}.log")
        if name:
            peaks[name] = mib
            print(f"{patients} patients: {name}: {mib:.0f} MiB", flush=True)
    return Size(sum(1 for _ in (root / "hospital").rglob("*.jpg")), peaks)


def format_table(sizes: Sequence[Size]) -> str:
    """Markdown: the peaks at each size, and what an image more costs between the smallest and the largest."""
    first, last = sizes[0], sizes[-1]
    more = last.images - first.images
    rows = [["command", *(f"{size.images:,} images" for size in sizes), "KiB an image more"]]
    rows.append(["---"] * len(rows[0]))
    for name in first.peaks:
        grown = (last.peaks[name] - first.peaks[name]) * _KIB / more
        rows.append([f"`{name}`", *(f"{size.peaks[name]:,.0f} MiB" for size in sizes), f"{grown:.1f}"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(fv: flags.FlagValues) -> None:
    """Measures at all sizes, and prints and writes the table."""
    if not all(size.isdecimal() and int(size) > 1 for size in fv.sizes) or len(set(fv.sizes)) < 2:
        raise InputError(
            f"--sizes={','.join(fv.sizes)}: must be two or more different numbers of patients, such as 100,1000"
        )
    sizes = []
    for patients in sorted(map(int, fv.sizes)):
        with tempfile.TemporaryDirectory() as folder:
            sizes.append(measure(pathlib.Path(folder), patients, fv.resolution))
    print(format_table(sizes))
    if fv.output:
        files.write_json(
            fv.output, {"resolution": fv.resolution, "sizes": [dataclasses.asdict(size) for size in sizes]}
        )


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
