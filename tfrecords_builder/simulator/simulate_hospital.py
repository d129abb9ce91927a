"""Simulates a whole hospital with worker processes."""

import concurrent.futures
import contextlib
import ctypes
import functools
import multiprocessing
import pathlib
import time

from tfrecords_builder import choices, files
from tfrecords_builder.errors import InputError
from tfrecords_builder.progress import progress
from tfrecords_builder.simulator import hospital as hospitals

SCHEMA_VERSION = 1
_CHUNK = 8  # patients handed to a worker at a time


def simulate_hospital(
    folder: pathlib.Path, *, hospital: str, num_patients: int, resolution: int, seed: int, workers: int
) -> dict:
    """Writes images, tables and marker file of a hospital into an existing empty folder.

    The bytes depend on hospital, num_patients, resolution and seed, not on workers. Returns what result.json holds:
    counts of images, labels and combinations (frontal images, doubtful marks as absent) and the speed.
    """
    if hospital not in choices.HOSPITALS:
        raise InputError(f"--hospital={hospital}: no such hospital; choose one of {', '.join(choices.HOSPITALS)}")
    if num_patients < 1:
        raise InputError(f"--num_patients={num_patients}: must be at least 1")
    if workers < 1:
        raise InputError(f"--workers={workers}: must be at least 1")
    start = time.monotonic()
    indices = range(1, num_patients + 1)
    chunks = [indices[first : first + _CHUNK] for first in range(0, num_patients, _CHUNK)]
    job = functools.partial(_write_chunk, folder, hospital, resolution=resolution, seed=seed)
    rows: list[dict] = []
    with progress(num_patients, f"hospital {hospital}", "patients") as bar:
        for chunk, part in zip(chunks, _map(job, chunks, workers), strict=True):
            rows += part
            bar.update(len(chunk))
    hospitals.write_tables(folder, hospital, rows)
    marker = {
        "schema_version": SCHEMA_VERSION,
        "source": f"phantom-{hospital}",
        "seed": seed,
        "num_patients": num_patients,
    }
    files.write_json(folder / hospitals.MARKER, {**marker, "resolution": resolution, "version": hospitals.VERSION})
    seconds = time.monotonic() - start
    return {
        **marker,
        "resolution": resolution,
        "num_images": len(rows),
        **hospitals.count_labels(hospital, rows),
        "seconds": round(seconds, 3),
        "images_per_second": round(len(rows) / max(seconds, 1e-9), 1),
    }


def _write_chunk(folder, hospital, chunk, *, resolution, seed):
    rows = []
    for index in chunk:
        rows += hospitals.write_patient(folder, hospital, index, resolution=resolution, seed=seed)
    return rows


def _map(job, chunks, workers):
    """Results in order of chunk. Processes, because the arrays are too small for threads to leave the interpreter."""
    workers = min(workers, len(chunks))
    if workers == 1:
        yield from map(job, chunks)
        return
    # Spawned, not forked: a fork of a process that has loaded TensorFlow may hang.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context, initializer=_keep_memory) as pool:
        try:
            yield from pool.map(job, chunks)
        finally:
            pool.shutdown(cancel_futures=True)


def _keep_memory() -> None:
    """Tells a worker's allocator to keep freed memory.

    glibc gives the arrays of each picture back to the system and asks for them again: a fifth of the time went into
    2,000 page faults a picture. Another C library is left as it is.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    with contextlib.suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(trim_threshold, 128 << 20)
        libc.mallopt(mmap_threshold, 32 << 20)
