"""Measures build-records against a plain serial loop: images/s and peak memory, each in a process of its own.

The plain loop is how such sets are usually made: Pillow decodes an image, scikit-image resizes it, all results are kept
in memory and written at the end. Both read the same files from the page cache and write 8-bit grey PNG in TFRecords.
Times by the clock are those of the work, without the start of Python and TensorFlow; processor time, that of worker
processes included, and memory, the process's greatest, are with them.
"""

import csv
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from absl import flags

from flags import app
from tfrecords_builder import files
from tfrecords_builder.errors import RunError

RESOLUTION = 128
_DISTINCT = 40  # simulated images; more files are links to them
_KINDS = {"1024 px PNG": (1024, "png"), "320 px JPEG": (320, "jpg")}


def measure(root: pathlib.Path, counts: tuple[int, ...] = (1000, 4000)) -> list[dict]:
    """Runs the benchmark.

    Args:
        root: an empty folder; holds the images and outputs.
        counts: numbers of images.

    Returns:
        One dict per kind of input, number of images and program: images_per_second, cpu_seconds (with the start),
        peak_mib.
    """
    pictures = _simulate(root / "pictures")
    rows = []
    for kind, (side, suffix) in _KINDS.items():
        for count in counts:
            data = _lay_out(root / f"{suffix}-{count}", pictures, side, suffix, count)
            for name, command in _commands(data, root / "out").items():
                rows.append({"input": kind, "images": count, "program": name, **_run(command, count, root / "out")})
                print(format_row(rows[-1], rows), flush=True)
    return rows


def format_row(row: dict, rows: list[dict]) -> str:
    """One line of the table, with the speed as a multiple of the plain loop's."""
    plain = [r for r in rows if (r["input"], r["images"], r["program"]) == (row["input"], row["images"], "plain loop")]
    times = f"{row['images_per_second'] / plain[0]['images_per_second']:5.1f}x" if plain else ""
    return (
        f"{row['input']:12} {row['images']:5} images  {row['program']:26}"
        f"{row['images_per_second']:8.1f} images/s {times} {row['peak_mib']:7.0f} MiB"
    )


def plain_loop(data: str, output: str) -> None:
    """The loop that build-records is compared with; writes into the folder `output`, which it makes."""
    import numpy as np
    import tensorflow as tf
    from PIL import Image
    from skimage import transform

    start = time.monotonic()
    images = []
    with (pathlib.Path(data) / "table.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        grey = np.asarray(Image.open(pathlib.Path(data) / row["path"]).convert("L"))
        images.append(transform.resize(grey, (RESOLUTION, RESOLUTION), anti_aliasing=True))
    pathlib.Path(output).mkdir()
    with tf.io.TFRecordWriter(f"{output}/images.tfrecord") as writer:
        for image in images:
            png = tf.io.encode_png((image * 255).round().astype(np.uint8)[..., None]).numpy()
            feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[png]))
            writer.write(tf.train.Example(features=tf.train.Features(feature={"image": feature})).SerializeToString())
    files.write_json(f"{output}/result.json", {"seconds": time.monotonic() - start})


def define_flags(fv: flags.FlagValues) -> None:
    """Defines the flags of the benchmark."""
    flags.DEFINE_list("counts", ["1000", "4000"], "numbers of images", flag_values=fv)
    flags.DEFINE_string("output", None, "JSON file to write; default: print only", flag_values=fv)


def main(fv: flags.FlagValues) -> None:
    """Runs the benchmark."""
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(pathlib.Path(folder), tuple(int(count) for count in fv.counts))
    if fv.output:
        files.write_json(fv.output, {"cores": len(os.sched_getaffinity(0)), "resolution": RESOLUTION, "rows": rows})


def _commands(data: pathlib.Path, output: pathlib.Path) -> dict[str, list[str]]:
    plain = f"from tools import bench_records; bench_records.plain_loop({str(data)!r}, {str(output)!r})"
    build = [sys.executable, "-m", "tfcxr.cli", "build-records", "--dataset=folder", f"--data_dir={data}"]
    build += ["--columns=class:finding", "--label_version=multilabel", f"--resolution={RESOLUTION}"]
    return {
        "plain loop": [sys.executable, "-c", plain],
        "build-records, 1 worker": [*build, "--workers=1", f"--output_dir={output}"],
        "build-records, 2 workers": [*build, "--workers=2", f"--output_dir={output}"],
    }


def _run(command: list[str], count: int, output: pathlib.Path) -> dict[str, float]:
    """Rate and memory of one program, whose output is removed."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        # The child's peak counts what it shares with us before it is itself: this process must stay small.
        _, status, usage = os.wait4(process.pid, 0)
        log.seek(0)
        if status:
            raise RunError(f"{' '.join(command)}: {log.read().strip()}")
    seconds = files.read_json(output / "result.json")["seconds"]
    shutil.rmtree(output)
    return {
        "images_per_second": round(count / seconds, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_mib": round(usage.ru_maxrss / 1024),
    }


def _simulate(folder: pathlib.Path) -> list[pathlib.Path]:
    """Simulated radiographs of 1024 px."""
    command = [sys.executable, "-m", "tfcxr.cli", "phantom", "--hospital=b", f"--num_patients={_DISTINCT // 2}"]
    subprocess.run([*command, "--resolution=1024", f"--output_dir={folder}"], check=True)
    return sorted((folder / "images").glob("*.png"))[:_DISTINCT]


def _lay_out(folder: pathlib.Path, pictures: list[pathlib.Path], side: int, suffix: str, count: int) -> pathlib.Path:
    """A folder data set of `count` images of that size and kind."""
    from PIL import Image

    folder.mkdir()
    with (folder / "table.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["path", "patient", "finding"])
        for i in range(count):
            path = folder / f"{i:05d}.{suffix}"
            if i < len(pictures):
                picture = Image.open(pictures[i]).convert("L")
                if picture.width != side:
                    picture = picture.resize((side, side), Image.Resampling.BOX)
                picture.save(path, quality=90)
            else:
                os.link(folder / f"{i % len(pictures):05d}.{suffix}", path)
            table.writerow([path.name, i, "No Finding" if i % 2 else "Pneumothorax"])
    return folder


if __name__ == "__main__":
    sys.exit(app.run(main, define_flags))
