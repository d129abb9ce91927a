"""Surfaces of files that were damaged, or made to do harm: images, records, checkpoints, exports, pickles.

A changed byte may be refused or change nothing. Where it changes the result, that is a fault, unless the format has no
checksum: pixels of JPEG and DICOM.
"""

import contextlib
import functools
import io
import itertools
import os
import pathlib
import pickle
import random
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import tensorflow as tf
from PIL import Image

from flags import app
from tests import classifier_runs, fake_data_sets, fakes, gan_runs, torch_files
from tests.tfcxr.gan.reference import reference_pickles
from tfcxr import data as records_data
from tfcxr import pickles
from tfcxr.classifiers import loading as classifier_loading
from tfcxr.classifiers.networks import torch_files as torch_reader
from tfcxr.commands import export_model
from tfcxr.gan import loading as gan_loading
from tfcxr.gan.reference import checkpoint_files
from tfcxr.training import digests, runs
from tfrecords_builder.errors import InputError, RunError
from tfrecords_builder.images import dicom, headers, pictures
from tfrecords_builder.readers import shards
from tools.torture import trials
from tools.torture.trials import SilentlyWrong, Surface

_SHORT = 20_000  # bytes of a file of which each is damaged
_DRAWN = 2000  # that are damaged of a longer file

# Those of TensorFlow become one line of the command, too (flags/app.py).
_REFUSALS = (InputError, RunError, tf.errors.OpError)


def _encoded(array: np.ndarray, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind, **options)
    return stream.getvalue()


def _pictures() -> dict[str, list[bytes]]:
    """Small images of each format."""
    rng = np.random.default_rng(0)
    grey = fakes.draw(("Pneumothorax",), 12, 0)
    colour = rng.integers(0, 256, [9, 11, 3], np.uint8)
    deep = (grey.astype(np.uint16) * 200)[:10, :12]
    palette = Image.fromarray(colour).convert("P", colors=16)
    stream = io.BytesIO()
    palette.save(stream, "PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "png": [_encoded(grey, "PNG"), _encoded(colour, "PNG"), _encoded(deep, "PNG"), stream.getvalue()],
        "jpeg": [
            _encoded(grey, "JPEG"), _encoded(colour, "JPEG", exif=exif), _encoded(grey, "JPEG", progressive=True),
        ],
    }  # fmt: skip


def _dicoms(folder: pathlib.Path) -> list[bytes]:
    """Small DICOM files: plain, and the compressed ones that come with pydicom."""
    from pydicom.data import get_testdata_file

    path = folder / "plain.dcm"
    fake_data_sets.write_dicom(path, PatientID="p1", PatientAge="061Y", WindowCenter="40", WindowWidth="80")
    names = ("MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_bigendian.dcm", "MR_small.dcm")
    found = [get_testdata_file(name, download=False) for name in names]
    return [path.read_bytes(), *(pathlib.Path(str(name)).read_bytes() for name in found if name)]


def _read_picture(encoder: pictures.PictureEncoder, data: bytes) -> np.ndarray:
    """Reads an image in both ways that there are, which must agree."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of odd values
        pictures.count_used_bits(data)
        try:
            grey = pictures.read_grey(data)
        except headers.BadImage:
            with contextlib.suppress(headers.BadImage):
                encoder.encode(data)
                raise SilentlyWrong("read_grey refuses what PictureEncoder takes") from None
            raise
        encoder.encode(data)
    if grey.ndim != 2 or not np.isfinite(grey).all() or grey.min() < 0 or grey.max() > 1:
        raise SilentlyWrong(f"pixels of shape {grey.shape} from {grey.min()} to {grey.max()}")
    return grey


def _images(kind: str, folder: pathlib.Path) -> Surface:
    bases = _dicoms(folder) if kind == "dicom" else _pictures()[kind]
    encoder = pictures.PictureEncoder(pictures.PictureOptions(8))

    def check(data: bytes) -> None:
        if kind == "dicom":
            path = folder / "some.dcm"
            path.write_bytes(data)
            dicom.read_header(str(path))
        _read_picture(encoder, data)

    changed = _with_checksums if kind == "png" else trials.mutants
    return Surface(lambda seed: changed(bases, seed), check, (headers.BadImage,), count=12000)


def _with_checksums(bases: list[bytes], seed: int) -> Iterator[bytes]:
    """Changed copies of PNGs; in three of four, what the parts hold is changed, and their checksums are right."""
    rng = random.Random(seed)
    for data in trials.mutants(bases, seed):
        if rng.random() < 0.25:
            yield data
            continue
        parts = _parts(rng.choice(bases))
        number = rng.randrange(len(parts))
        kind, content = parts[number]
        if kind == b"IDAT" and rng.random() < 0.7:
            content = zlib.compress(trials.damaged(zlib.decompress(content), rng))
        elif rng.random() < 0.8:
            content = trials.damaged(content, rng)
        else:
            kind = bytes(rng.choice(b"IDATPLTEgKRNSs") for _ in range(4))
        parts[number] = (kind, content)
        if rng.random() < 0.1:
            parts.insert(rng.randrange(len(parts)), rng.choice(parts))
        yield headers.PNG_SIGNATURE + b"".join(
            len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")
            for kind, content in parts
        )


def _parts(png: bytes) -> list[tuple[bytes, bytes]]:
    """Name and contents of a PNG's parts."""
    found, place = [], len(headers.PNG_SIGNATURE)
    while place < len(png):
        size = int.from_bytes(png[place : place + 4], "big")
        found.append((png[place + 4 : place + 8], png[place + 8 : place + 8 + size]))
        place += size + 12
    return found


def _png_bytes(folder: pathlib.Path) -> Surface:
    """Every byte of a PNG, whose parts have checksums."""
    del folder
    (base, *_), encoder = _pictures()["png"], pictures.PictureEncoder(pictures.PictureOptions(8))
    right = _read_picture(encoder, base)

    def check(data: bytes) -> None:
        if not np.array_equal(_read_picture(encoder, data), right):
            raise SilentlyWrong("other pixels")

    return Surface(lambda seed: trials.every_damage(base, seed), check, (headers.BadImage,), count=2000)


def _shard(folder: pathlib.Path) -> Surface:
    """Every byte of a shard of two records, which have checksums; as models read it, and record by record."""
    root = fakes.make_records(folder / "set", label_version="v2", per_class=1, splits=("train",))
    (path,) = map(pathlib.Path, records_data.RecordSet(root).info.shard_paths("train"))
    whole = path.read_bytes()
    offsets = shards.index_shard(path).tolist()
    dataset = records_data.RecordSet(root).dataset("train")

    def read() -> list[dict[str, bytes]]:
        found = [
            {name: np.asarray(value).tobytes() for name, value in record.items()}
            for record in dataset.as_numpy_iterator()
        ]
        for place in offsets:
            with _as_refusal(ValueError):  # of which build-records makes a reason
                shards.read_record(path, place)
        return found

    right = read()

    def check(data: bytes) -> None:
        path.write_bytes(data)
        if read() != right:
            raise SilentlyWrong("other records")

    refusals = (*_REFUSALS, headers.BadImage)
    return Surface(lambda seed: trials.every_damage(whole, seed), check, refusals, count=2 * len(whole))


@contextlib.contextmanager
def _as_refusal(kind: type[Exception]) -> Iterator[None]:
    try:
        yield
    except kind as error:
        raise InputError(str(error)) from error


def _of_files(paths: Iterable[pathlib.Path], load: Callable[[], Any]) -> Surface:
    """Files that are damaged one at a time. An input is the name of a file, a line feed, and its bytes.

    Every byte of short files is damaged, and bytes drawn at random of others. `load` returns the result, which is
    compared with that of the undamaged files.
    """
    known = {path.name: path for path in paths}
    whole = {name: path.read_bytes() for name, path in known.items()}
    right = load()

    def inputs(seed: int) -> Iterator[bytes]:
        streams = {}
        for name, data in whole.items():
            short = len(data) <= _SHORT
            damage = trials.every_damage(data, seed) if short else trials.sampled_damage(data, seed)
            streams[name] = itertools.islice(damage, None if short else _DRAWN)
        while streams:
            for name in tuple(streams):
                changed = next(streams[name], None)
                if changed is None:
                    del streams[name]
                else:
                    yield name.encode() + b"\n" + changed

    def check(data: bytes) -> None:
        name, _, content = data.partition(b"\n")
        path = known[name.decode()]
        path.write_bytes(content)
        try:
            found = load()
        finally:
            path.write_bytes(whole[name.decode()])
        if not _same(found, right):
            raise SilentlyWrong(f"{name.decode()}: another result")

    count = sum(2 * len(data) if len(data) <= _SHORT else _DRAWN for data in whole.values())
    return Surface(inputs, check, _REFUSALS, count=count)


@contextlib.contextmanager
def _kept(module: Any, name: str, kept: dict[Any, tf.keras.Model]) -> Iterator[None]:
    """Within it, networks that module.name makes are made once for each configuration.

    Each comes with zeros for weights: what is not loaded is seen. Making them takes far longer than reading a file.
    """
    make = getattr(module, name)

    def find(config: Any, *arguments: Any) -> Any:
        key = (config, *arguments)
        if key not in kept:
            kept[key] = make(*key)
        for variable in kept[key].variables:
            variable.assign(tf.zeros_like(variable))
        return kept[key]

    with mock.patch.object(module, name, find):
        yield


def _same(found: Any, right: Any) -> bool:
    if isinstance(right, dict):
        return found.keys() == right.keys() and all(_same(found[key], right[key]) for key in right)
    return np.array_equal(found, right) if isinstance(right, np.ndarray) else found == right


def _gan_checkpoint(folder: pathlib.Path) -> Surface:
    """Index and data of a GAN's checkpoint, restored into networks that are there."""
    run = gan_runs.make_gan_run(folder / "run")
    generator = gan_loading.load(run)
    shown = tf.Variable(0, dtype=tf.int64)

    def load() -> tuple[str, int]:
        for variable in generator.model.variables:
            variable.assign(tf.zeros_like(variable))
        gan_loading.restore(run, "latest", ema=generator.model, images_shown=shown)
        return gan_loading.digest_weights(generator), int(shown)

    paths = [path for path in (run / "checkpoints").iterdir() if path.name.startswith("ckpt-")]
    return _of_files(paths, load)


def _gan_run_files(folder: pathlib.Path) -> Surface:
    """The other files of a GAN's run."""
    run = gan_runs.make_gan_run(folder / "run")
    paths = [path for path in run.iterdir() if path.suffix == ".json" and path.name != "ticks.json"]
    return _of_files([*paths, run / "checkpoints" / "checkpoint"], _loading(run))


def _loading(path: pathlib.Path) -> Callable[[], str]:
    """Loads a generator; what it says is the digest of its configuration and weights."""
    kept: dict[Any, tf.keras.Model] = {}

    def load() -> str:
        with _kept(gan_loading.build_networks, "build_generator", kept):
            return gan_loading.digest_weights(gan_loading.load(path))

    return load


def _export(module: Any, *arguments: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        if app.run(module.main, module.define_flags, ["export-model", *arguments]):
            raise RuntimeError(f"{arguments}: cannot be exported")


def _generator_export(folder: pathlib.Path) -> Surface:
    """What load_generator reads of an export."""
    run = gan_runs.make_gan_run(folder / "run")
    _export(export_model, f"--run_dir={run}", f"--output_dir={folder / 'export'}", "--allow_untrained")
    root = folder / "export"
    return _of_files(
        [root / runs.EXPORTED_GENERATOR, root / gan_loading.WEIGHTS_FILE, root / digests.FILE], _loading(root)
    )


def _classifier_run(folder: pathlib.Path) -> pathlib.Path:
    return classifier_runs.make_classifier_run(folder / "run", classifier_runs.make_records(folder / "records"))


def _predicting(path: pathlib.Path) -> Callable[[], np.ndarray]:
    """Loads a classifier; what it says are probabilities."""
    images = np.random.default_rng(0).random([2, 16, 16, 1], np.float32)
    kept: dict[Any, tf.keras.Model] = {}

    def load() -> np.ndarray:
        with _kept(classifier_loading.models, "Classifier", kept):
            return np.asarray(classifier_loading.load_classifier(path)(images))

    return load


def _classifier_weights(folder: pathlib.Path) -> Surface:
    """Weights and settings of a classifier's run."""
    run = _classifier_run(folder)
    paths = [run / "config.json", classifier_loading.weights_path(run)]
    return _of_files(paths, _predicting(run))


def _classifier_export(folder: pathlib.Path) -> Surface:
    """Settings, calibration and weights of a classifier's export, as load_classifier reads them."""
    run = _classifier_run(folder)
    _export(export_model, f"--run_dir={run}", f"--output_dir={folder / 'export'}")
    root = folder / "export"
    paths = [path for path in classifier_loading.files_of(root).values() if path.is_file()]
    return _of_files([*paths, root / digests.FILE], _predicting(root))


def _saved_model(folder: pathlib.Path) -> Surface:
    """The SavedModel of a classifier's export: graph and variables, as TensorFlow loads it after our checks."""
    from tfcxr.serving import export_classifier

    run = _classifier_run(folder)
    _export(export_model, f"--run_dir={run}", f"--output_dir={folder / 'export'}")
    root = folder / "export"
    images = tf.constant(np.random.default_rng(0).random([2, 16, 16, 1], np.float32))

    def load() -> np.ndarray:
        return np.asarray(export_classifier.load_image_tensor(root)(images)["probabilities"])

    return _of_files([root / "saved_model.pb", *(root / "variables").iterdir()], load)


# Pickles.


class _Calls:
    """Pickled as a call of a function."""

    def __init__(self, function: Callable, *arguments: Any):
        self._reduced = (function, arguments)

    def __reduce__(self) -> tuple:
        return self._reduced


def _hostile(canary: pathlib.Path) -> list[bytes]:
    """Pickles that write a file if anything in them is run."""
    command = f"touch {canary}"
    calls = [
        _Calls(os.system, command),
        _Calls(exec, f"open({str(canary)!r}, 'w')"),
        _Calls(eval, f"open({str(canary)!r}, 'w')"),
        _Calls(open, str(canary), "w"),
        _Calls(shutil.copy, __file__, str(canary)),
        _Calls(getattr, _Calls(__import__, "os"), "system"),
        _Calls(functools.partial(os.system, command)),
        _Calls(np.core.multiarray._reconstruct, _Calls(os.system, command), (0,), b"b"),  # type: ignore[attr-defined]
    ]
    found = [pickle.dumps(value, protocol) for value in calls for protocol in (0, 2, 4)]
    text = str(canary).encode()
    found.append(b"cposix\nsystem\n(S'touch " + text + b"'\ntR.")
    found.append(b"(S'touch " + text + b"'\nios\nsystem\n.")
    return found


def _guarded(read: Callable[[], object], canary: pathlib.Path) -> None:
    try:
        read()
    finally:
        if canary.exists():
            canary.unlink()
            raise SilentlyWrong("something in the file was run")


def _network_pickle(folder: pathlib.Path) -> Surface:
    """Checkpoints of the reference GAN: pickle and .npz."""
    canary, path = folder / "canary", folder / "network.pkl"
    arrays: dict[str, Any] = {"Grow/lod": np.float32(0), "4x4/Dense/weight": np.ones([3, 4], np.float32)}
    networks = {"G": arrays, "D": arrays, "Gs": arrays}
    bases = [reference_pickles.dump(networks, protocol=protocol) for protocol in (2, 4)]
    stream = io.BytesIO()
    np.savez(stream, **{f"Gs/{name}": value for name, value in arrays.items()})
    bases += [stream.getvalue(), *_hostile(canary)]

    def check(data: bytes) -> None:
        path.write_bytes(data)
        _guarded(lambda: checkpoint_files.read(path), canary)

    return Surface(lambda seed: trials.mutants(bases, seed), check, (InputError,), count=12000)


def _torch_file(folder: pathlib.Path) -> Surface:
    """Weights of PyTorch, and pickles in their place."""
    canary, path = folder / "canary", folder / "weights.pth"
    rng = np.random.default_rng(0)
    state = {"conv.weight": rng.random([2, 1, 3, 3], np.float32), "bn.count": np.array(7, np.int64)}
    plain = torch_files.dump(state)
    header = b"".join(torch_files.pickled(part) for part in (torch_files.MAGIC, 1001, torch_files.SYSTEM))
    bases = [plain, *(header + data for data in _hostile(canary)), *_hostile(canary)]

    def check(data: bytes) -> None:
        path.write_bytes(data)
        _guarded(lambda: torch_reader.read(path), canary)

    return Surface(lambda seed: trials.mutants(bases, seed), check, (pickles.Refused,), count=12000)


SURFACES: dict[str, Callable[[pathlib.Path], Surface]] = {
    **{f"image_{kind}": functools.partial(_images, kind) for kind in ("png", "jpeg", "dicom")},
    "png_every_byte": _png_bytes,
    "shard_every_byte": _shard,
    "gan_checkpoint": _gan_checkpoint,
    "gan_run": _gan_run_files,
    "generator_export": _generator_export,
    "classifier_run": _classifier_weights,
    "classifier_export": _classifier_export,
    "saved_model": _saved_model,
    "network_pickle": _network_pickle,
    "torch_file": _torch_file,
}
