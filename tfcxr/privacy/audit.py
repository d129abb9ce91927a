"""Library behind audit-privacy: reads the sets, trains the recogniser of patients, audits each feature space."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcxr import data
from tfcxr.classifiers import choices
from tfcxr.fidelity import features
from tfcxr.fidelity.extractor import Extractor
from tfcxr.fidelity.feature_names import PIXELS
from tfcxr.gan import loading
from tfcxr.gan.networks import network_config
from tfcxr.privacy import audit_report, planted_copies, reidentification, space_audit, spaces
from tfcxr.training import runs
from tfrecords_builder import files
from tfrecords_builder.errors import InputError
from tfrecords_builder.images import pixel_ranges
from tfrecords_builder.records import manifest
from tfrecords_builder.records.overlap import find_overlap
from tfrecords_builder.splits import policies

SCHEMA_VERSION = 1
MAX_IMAGES = 10_000
DISCRIMINATOR = "discriminator"

_LEAST_IMAGES = 10
_FEW_IMAGES = 100
_FEW_HOLDOUTS = 5  # training images for each holdout image
_BANK = 256  # training images of which copies are planted


@dataclasses.dataclass(frozen=True)
class _Images:
    """Some images of a fold, drawn at random."""

    record_set: data.RecordSet
    split: str
    positions: np.ndarray

    def __len__(self) -> int:
        return len(self.positions)

    def extract(self, extractor: Extractor, batch_size: int) -> np.ndarray:
        """Their features, float32 [N, F]."""
        return spaces.extract(extractor, self.record_set, self.split, self.positions, batch_size=batch_size)

    def rows(self, column: str) -> np.ndarray:
        """A column of the manifest, object [N]."""
        return manifest.read_rows(self.record_set.info, self.split, [column])[column].to_numpy()[self.positions]

    def to_json(self) -> dict[str, Any]:
        """What result.json says of their set."""
        info = self.record_set.info
        return {
            "path": str(self.record_set.path), "split": self.split, "source": info.source, "digest": info.digest
        }  # fmt: skip


def audit_privacy(
    *,
    synthetic: str | os.PathLike,
    train: str | os.PathLike,
    holdout: str | os.PathLike | None = None,
    synthetic_split: str = "train",
    split: str = "train",
    holdout_split: str = "test",
    feature_names: Sequence[str] = (),
    reid_steps: int = 1000,
    gan_run: str | os.PathLike | None = None,
    num_images: int = MAX_IMAGES,
    permutations: int = 999,
    draws: int = 100,
    batch_size: int = 64,
    seed: int = 0,
    output_dir: pathlib.Path,
) -> dict[str, Any]:
    """Audits a synthetic set; writes result.json, figures.csv, power.csv, filter.csv, report.md, report.html, pictures.

    Args:
        synthetic, synthetic_split: record set and fold that are audited.
        train, split: record set and fold that the generator learned from.
        holdout, holdout_split: those of other patients, drawn as the training fold was; None: of the set `train`.
        feature_names: see spaces.make_extractor; none: pixels, and efficientnet_lite0 if its weights are installed.
        reid_steps: training steps of the recogniser of patients; 0: without it.
        gan_run: run folder of the GAN, whose discriminator's scores are attacked; None: without.
        num_images: at most so many of each set, drawn by `seed`.
        permutations, draws: see space_audit.audit_space.
        batch_size: images per step of networks.
        seed: of everything random.
        output_dir: existing folder to write into.

    Returns:
        What result.json holds.

    Raises:
        InputError: sets, features or a run that cannot be used; a holdout that shares patients with training.
        RunError: damaged records, features that are not finite.
    """
    train_set = data.RecordSet(train, flag="--train")
    resolution = train_set.info.resolution
    synthetic_set = data.RecordSet(synthetic, flag="--synthetic", resolution=resolution)
    synthetic_set.refuse_other_labels(train_set.info.label_set, f"--train={train}")
    holdout_set = data.RecordSet(holdout or train, flag="--holdout", resolution=resolution)
    warnings = _check_sets(synthetic_set, train_set, split, holdout_set, holdout_split)
    sets = {
        "synthetic": _draw("--synthetic", synthetic_set, synthetic_split, num_images, seed),
        "train": _draw("--train", train_set, split, num_images, seed),
        "holdout": _draw("--holdout", holdout_set, holdout_split, num_images, seed),
    }
    extractors, notes = _make_extractors(feature_names, resolution)
    scorer = None if gan_run is None else _load_discriminator(gan_run, train_set, warnings)
    patients, is_train = _number_patients(sets["train"], sets["holdout"])
    warnings += _count_warnings(sets, patients, is_train)
    setting = {"permutations": permutations, "draws": draws, "seed": seed}

    # Pixels are kept for the recogniser; other spaces read the records again, so that memory does not grow with the
    # resolution.
    pixels = spaces.Pixels(resolution)
    grey = {name: images.extract(pixels, batch_size) for name, images in sets.items()}
    recognised = _recognise(grey, patients, is_train, pixels.side, reid_steps, seed)
    copies = _plant_copies(sets["train"], patients, is_train & recognised.audited, batch_size, seed)

    audits = []
    for extractor in extractors:
        own = (
            grey
            if isinstance(extractor, spaces.Pixels)
            else {name: images.extract(extractor, batch_size) for name, images in sets.items()}
        )
        audits.append(
            space_audit.audit_space(
                extractor.name,
                synthetic=own["synthetic"],
                reals=np.concatenate([own["train"], own["holdout"]]),
                is_train=is_train,
                patients=patients,
                copies={kind: _extract(extractor, images, kind, batch_size) for kind, images in copies.items()},
                **setting,
            )
        )
    if recognised.recogniser is not None:
        embed, audited = _Embed(pixels, recognised.recogniser), recognised.audited
        audits.append(
            space_audit.audit_space(
                reidentification.NAME,
                synthetic=embed(grey["synthetic"]),
                # It would recognise the patients that it was trained on better than holdout patients.
                reals=embed(np.concatenate([grey["train"], grey["holdout"]])[audited]),
                is_train=is_train[audited],
                patients=patients[audited],
                copies={kind: embed(_extract(pixels, images, kind, batch_size)) for kind, images in copies.items()},
                **setting,
            )
        )
    scores = () if scorer is None else _audit_discriminator(scorer, sets, is_train, patients, batch_size, setting)
    result = {
        "schema_version": SCHEMA_VERSION,
        "reidentification": recognised.to_json(patients),
        "alpha": space_audit.ALPHA,
        "spaces": [audit.to_json() for audit in audits],
        "discriminator": [{**dataclasses.asdict(figure), "indicated": figure.indicated} for figure in scores],
        "num_images": {name: len(images) for name, images in sets.items()},
        "num_patients": {
            "train": len(np.unique(patients[is_train])),
            "holdout": len(np.unique(patients[~is_train])),
        },
        **setting,
        "sets": {name: images.to_json() for name, images in sets.items()},
        "warnings": warnings,
        "notes": notes,
    }
    audit_report.add_conclusions(result)
    files.write_json(output_dir / "result.json", result)
    examples = {kind: pixel_ranges.signed_to_uint8(images[:8]).numpy() for kind, images in copies.items()}
    audit_report.write(output_dir, result, {audit.space: audit.distances for audit in audits}, examples)
    return result


@dataclasses.dataclass(frozen=True)
class _Recognised:
    """What became of the recogniser of patients.

    Attributes:
        learners: which of the real images it was trained on, bool [N]; None if it was not trained.
        reason: why it was not.
        num_images: N.
        recogniser: None if it was not trained.
        recognition: how well it knows holdout patients again; None if it was not trained.
    """

    learners: np.ndarray | None
    reason: str
    num_images: int
    recogniser: reidentification.Recogniser | None = None
    recognition: reidentification.Recognition | None = None

    @property
    def audited(self) -> np.ndarray:
        """The real images that are no learners, bool [N]."""
        return np.ones(self.num_images, bool) if self.learners is None else ~self.learners

    def to_json(self, patients: np.ndarray) -> dict[str, Any]:
        """What result.json says of it."""
        found = self.recognition
        return {
            "recognises": found is not None and found.recognises,
            "reason": self.reason,
            "trained_on_patients": 0 if self.learners is None else len(np.unique(patients[self.learners])),
            **({} if found is None else dataclasses.asdict(found)),
        }


def _recognise(
    grey: Mapping[str, np.ndarray], patients: np.ndarray, is_train: np.ndarray, side: int, steps: int, seed: int
) -> _Recognised:
    """Trains the recogniser on half of the training patients, measures it on the holdout, and prints how well it does.

    Args:
        grey: set -> flat pixels float32 [N, side^2].
        patients, is_train: of the real images, see `_number_patients`.
        side: of the pixels' images.
        steps: of its training; 0 for none.
        seed: of its weights and batches.
    """
    learners, reason = _choose_learners(patients, is_train) if steps else (None, "left out by --reid_steps=0")
    if learners is None:
        return _Recognised(None, reason, len(patients))
    reals = np.concatenate([grey["train"], grey["holdout"]])
    recogniser = reidentification.Recogniser(side, seed)
    recogniser.train(reals[learners].reshape(-1, side, side, 1), patients[learners], steps=steps)
    recognition = reidentification.measure(
        recogniser(grey["holdout"].reshape(-1, side, side, 1)), patients[~is_train], seed=seed
    )
    print(audit_report.tell_recognition(dataclasses.asdict(recognition), recognition.recognises, ""), flush=True)
    return _Recognised(learners, reason, len(patients), recogniser, recognition)


def _plant_copies(
    train: _Images, patients: np.ndarray, among: np.ndarray, batch_size: int, seed: int
) -> dict[str, np.ndarray]:
    """Copies of some training images of each kind: kind -> [M, H, W, 1] in [-1, 1]; `among`: bool [N] of all reals."""
    bank = np.flatnonzero(among)
    bank = bank[planted_copies.choose_patients_images(patients[bank], _BANK, seed)]
    batches = features.read_images(train.record_set, train.split, train.positions[bank], batch_size=batch_size)
    originals = np.concatenate(list(batches))
    return {kind: planted_copies.make_copies(originals, kind, seed=seed) for kind in planted_copies.KINDS}


class _Embed:
    """Embeddings of flat pixels."""

    def __init__(self, pixels: spaces.Pixels, recogniser: reidentification.Recogniser):
        self._side, self._recogniser = pixels.side, recogniser

    def __call__(self, flat: np.ndarray) -> np.ndarray:
        return self._recogniser(flat.reshape(-1, self._side, self._side, 1))


def _check_sets(
    synthetic: data.RecordSet, train: data.RecordSet, split: str, holdout: data.RecordSet, holdout_split: str
) -> list[str]:
    """Warnings. Raises InputError if the holdout shares patients with the training fold."""
    where = f"--holdout={holdout.path}"
    if holdout.info.digest == train.info.digest and split == holdout_split:
        raise InputError(f"{where}: its {holdout_split} split is the training fold; give another --holdout_split")
    shared = find_overlap(train.info, split, holdout.info, holdout_split)
    if shared.patients:
        number, name = len(shared.patients), min(shared.patients)
        raise InputError(
            f"{where}: its {holdout_split} split shares {number} patient{'s' if number > 1 else ''} with the training "
            f"fold, such as {name}; the holdout must be of other patients: build records with --split_policy=patient"
        )
    warnings = []
    if train.info.hashed_patients != holdout.info.hashed_patients:
        warnings.append("patient ids are hashed on one side only, so that shared patients cannot be found")
    if shared.images:
        warnings.append(
            f"{len(shared.images)} images of the holdout are also in the training fold under another patient; they "
            "hide copies"
        )
    digests = manifest.read_rows(train.info, split, ["image_digest"])["image_digest"]
    repeated = int(digests.duplicated().sum())
    if repeated:
        warnings.append(f"{repeated} images of the training fold are there more than once")
    learned = synthetic.info.provenance.get("trained_on")
    if not learned:
        warnings.append(
            "the synthetic set does not say what records its generator learned from; if not from --train, this audit "
            "says nothing"
        )
    elif train.info.digest not in learned.values():
        warnings.append(
            f"the generator of the synthetic set learned from other records (digest "
            f"{next(iter(learned.values()))[:12]}, not {train.info.digest[:12]}): this audit then says nothing of the "
            "patients it learned from"
        )
    return warnings


def _draw(flag: str, record_set: data.RecordSet, split: str, most: int, seed: int) -> _Images:
    there = record_set.num_examples(split)
    if there < _LEAST_IMAGES:
        raise InputError(
            f"{flag}={record_set.path}: the {split} split has {there} images; at least {_LEAST_IMAGES} are needed"
        )
    return _Images(record_set, split, features.choose(there, min(there, most), seed))


def _make_extractors(names: Sequence[str], resolution: int) -> tuple[list[Extractor], list[str]]:
    notes = []
    if not names:
        names = [PIXELS, choices.EFFICIENTNET_LITE0]
        try:
            choices.find_lite0(f"--features={choices.EFFICIENTNET_LITE0}", f"--features={PIXELS}")
        except InputError as error:
            names = [PIXELS]
            notes.append(f"the features of {choices.EFFICIENTNET_LITE0} were left out ({error})")
    return [spaces.make_extractor(name, resolution=resolution) for name in dict.fromkeys(names)], notes


def _load_discriminator(path: str | os.PathLike, train: data.RecordSet, warnings: list[str]) -> Any:
    config = runs.load_config(path, "gan")
    resolution = network_config.NetworkConfig.from_dict(config["config"]).resolution
    if resolution != train.info.resolution:
        raise InputError(f"--gan_run={path}: is a GAN of {resolution} px, --train has {train.info.resolution} px")
    if train.info.digest not in config["records"].values():
        warnings.append("the GAN of --gan_run was trained on other records than --train")
    return loading.load_discriminator(path)


def _number_patients(train: _Images, holdout: _Images) -> tuple[np.ndarray, np.ndarray]:
    """Number of each real image's patient int64 [N], and which images are training images bool [N]."""
    # Ids of the two sides are told apart: equal ones would be of two data sets.
    names = [name and f"train {name}" for name in train.rows("patient")]
    names += [name and f"holdout {name}" for name in holdout.rows("patient")]
    return policies.number_patients(names), np.arange(len(names)) < len(train)


def _count_warnings(sets: Mapping[str, _Images], patients: np.ndarray, is_train: np.ndarray) -> list[str]:
    found = [
        f"the {name} set has {len(images)} images; with fewer than {_FEW_IMAGES} only gross copying can be detected, "
        "and all intervals are wide"
        for name, images in sets.items()
        if len(images) < _FEW_IMAGES
    ]
    if is_train.sum() > _FEW_HOLDOUTS * (~is_train).sum():
        found.append(
            f"there are {is_train.sum() / (~is_train).sum():.0f} training images for each holdout image; the more "
            "alike their numbers are, the rarer the copies that can be detected"
        )
    if len(np.unique(patients)) == len(patients):
        found.append("no patient is known to have two images; every image counts as a patient of its own")
    return found


def _choose_learners(patients: np.ndarray, is_train: np.ndarray) -> tuple[np.ndarray | None, str]:
    """Which images the recogniser is trained on, bool [N], of half of the training patients who have two or more.

    Else None and why not.
    """
    groups = reidentification.pair_groups(np.where(is_train, patients, -1 - np.arange(len(patients))))
    half = groups[::2]
    if len(half) < reidentification.LEAST_PATIENTS:
        return None, f"only {len(groups)} training patients have two images or more"
    learners = np.zeros(len(patients), bool)
    learners[np.concatenate(half)] = True
    return learners, ""


def _extract(extractor: Extractor, images: np.ndarray, kind: str, batch_size: int) -> np.ndarray:
    batches = (images[i : i + batch_size] for i in range(0, len(images), batch_size))
    return features.extract(extractor, batches, total=len(images), what=f"{kind} copies").astype(np.float32)


def score_alone(discriminator: tf.keras.Model, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A discriminator's score of each image, whatever images are beside it: float [N].

    In training its score depends on the other images of a group (see layers.MinibatchStddev); here the group of an
    image is copies of itself.

    Args:
        discriminator: of `loading.load_discriminator`.
        images: [N, R, R, 1] in [-1, 1]; N may be any number.
        labels: [N, L] in {0, 1}.
    """
    group = max(getattr(layer, "group", 1) for layer in discriminator.layers)
    copies = [np.concatenate([each] * group) for each in (images, labels)]
    return np.asarray(discriminator(copies, training=False))[: len(images), 0]


def _audit_discriminator(
    scorer: Any,
    sets: Mapping[str, _Images],
    is_train: np.ndarray,
    patients: np.ndarray,
    batch_size: int,
    setting: Mapping[str, int],
) -> tuple[space_audit.Figure, ...]:
    scores = []
    for name in ("train", "holdout"):
        images = sets[name]
        vectors = images.record_set.labels(images.split)["vector"][images.positions]
        batches = features.read_images(images.record_set, images.split, images.positions, batch_size=batch_size)
        for number, batch in enumerate(batches):
            labels = vectors[number * batch_size : number * batch_size + len(batch)]
            scores.append(score_alone(scorer, batch, labels))
    return space_audit.audit_scores(
        DISCRIMINATOR,
        np.concatenate(scores),
        is_train,
        patients,
        permutations=setting["permutations"],
        seed=setting["seed"],
    )
