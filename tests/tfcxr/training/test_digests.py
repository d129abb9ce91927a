import json
import pathlib
import random
import shutil

import h5py
import numpy as np
import pytest

import tfcxr
from tests import classifier_runs
from tfcxr import npz_files, zoo
from tfcxr.classifiers import loading
from tfcxr.gan import loading as gan_loading
from tfcxr.serving import export_classifier
from tfcxr.training import digests, runs
from tfrecords_builder.errors import InputError
from tools.torture import trials


def flip(path: pathlib.Path, position: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A run, and what stands for its export: the files that are read of one, and their digests."""
    folder = tmp_path_factory.mktemp("classifier")
    run = classifier_runs.make_classifier_run(folder / "run", classifier_runs.make_records(folder / "records"))
    (folder / "export" / "variables").mkdir(parents=True)
    loading.copy_files(run, folder / "export")
    for name in ("saved_model.pb", "variables/variables.data-00000-of-00001"):
        (folder / "export" / name).write_bytes(b"whatever it holds")
    digests.write(folder / "export")
    return run, folder / "export"


@pytest.fixture
def generator(tmp_path):
    folder = shutil.copytree(zoo.find("nih_32"), tmp_path / "generator")
    digests.write(folder)
    return folder


def arrays_of(path: pathlib.Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(lambda n, item: found.update({n: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def test_whatever_bit_flips_in_weights_is_found_or_does_not_matter(classifier, tmp_path):
    weights, copy = classifier[0] / loading.WEIGHTS, tmp_path / "copy.h5"
    digests.check_hdf5(weights)
    expected, size, rng, found = arrays_of(weights), weights.stat().st_size, random.Random(0), 0
    for _ in range(100):
        shutil.copyfile(weights, copy)
        flip(copy, rng.randrange(size), rng.randrange(8))
        try:
            digests.check_hdf5(copy)
        except InputError as error:
            found += 1
            assert str(error).startswith(f"{copy}: is damaged") and "\n" not in str(error)
        else:
            read = arrays_of(copy)
            assert read.keys() == expected.keys()
            assert all(np.array_equal(read[name], expected[name]) for name in expected)
    assert found > 60


def test_a_run_with_changed_weights_is_not_loaded(classifier, tmp_path):
    run = shutil.copytree(classifier[0], tmp_path / "run")
    whole = tfcxr.load_classifier(run).get_weights()
    with h5py.File(run / loading.WEIGHTS, "r+") as file:
        names: list[str] = []
        file.visititems(lambda n, item: names.append(n) if isinstance(item, h5py.Dataset) and item.ndim == 4 else None)
        file[names[0]][0, 0, 0, 0] += 1e-3
    said = r"best\.weights\.h5: is damaged: its numbers are not those that were written; put back a copy of it, or"
    for load in (tfcxr.load_classifier, tfcxr.load_encoder):
        with pytest.raises(InputError, match=said):
            load(run)
    with h5py.File(run / loading.WEIGHTS, "r+") as file:  # as written before there were digests
        del file.attrs["tfcxr_sha256"]
    changed = tfcxr.load_classifier(run).get_weights()
    assert sum(not np.array_equal(one, other) for one, other in zip(whole, changed, strict=True)) == 1


@pytest.mark.parametrize(
    "name", [loading.WEIGHTS, "config.json", "saved_model.pb", "variables/variables.data-00000-of-00001"]
)
def test_a_changed_file_of_a_classifier_s_export_is_found(classifier, tmp_path, name):
    folder = shutil.copytree(classifier[1], tmp_path / "export")
    assert name in json.loads((folder / digests.FILE).read_text())["sha256"]
    flip(folder / name, (folder / name).stat().st_size // 2)
    with pytest.raises(InputError, match=rf"{name}: is damaged, or was changed after the export; export the run again"):
        export_classifier.load_image_tensor(folder)
    if name in (loading.WEIGHTS, "config.json"):
        with pytest.raises(InputError, match=f"{name}: is damaged"):
            tfcxr.load_classifier(folder)
    if name == "saved_model.pb":  # without it the folder is loaded as a run is
        return
    (folder / name).unlink()
    with pytest.raises(InputError, match=rf"{name}: cannot be read"):
        export_classifier.load_image_tensor(folder)


def test_a_damaged_table_of_digests_is_named(classifier, tmp_path):
    folder = shutil.copytree(classifier[1], tmp_path / "export")
    for text, said in (('{"sha256": 3}', "is damaged"), ("[]", "is damaged"), ("{", "is not valid JSON")):
        (folder / digests.FILE).write_text(text)
        with pytest.raises(InputError, match=rf"digests\.json: {said}"):
            tfcxr.load_classifier(folder)


@pytest.mark.parametrize("name", [runs.EXPORTED_GENERATOR, gan_loading.WEIGHTS_FILE])
def test_a_changed_file_of_a_generator_s_export_is_found(generator, name):
    folder = generator
    flip(folder / name, (folder / name).stat().st_size // 2)
    with pytest.raises(InputError, match=f"{name}: is damaged, or was changed after the export"):
        tfcxr.load_generator(folder)


def test_a_damaged_generator_without_digests_is_refused_or_the_same(generator):
    folder = generator
    (folder / digests.FILE).unlink()
    weights = folder / gan_loading.WEIGHTS_FILE
    expected, content, rng, found = npz_files.read(weights), weights.read_bytes(), random.Random(1), 0
    for _ in range(100):
        weights.write_bytes(content)
        flip(weights, rng.randrange(len(content)), rng.randrange(8))
        try:
            read = npz_files.read(weights)
        except ValueError:
            found += 1
        else:
            renamed = read.keys() != expected.keys()  # which the network's variables would not fit
            assert renamed or all(np.array_equal(read[name], expected[name]) for name in expected)
    assert found > 60
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"the weights cannot be read \(is damaged .*export the run again"):
        tfcxr.load_generator(folder)
    description = json.loads((folder / runs.EXPORTED_GENERATOR).read_text())
    for damaged in ({"network": None}, {"network": {}}, {"labels": 3}, {"kimg": None, "name": None}):
        (folder / runs.EXPORTED_GENERATOR).write_text(json.dumps({**description, **damaged}))
        with pytest.raises(InputError):
            tfcxr.load_generator(folder)


def test_every_byte_of_a_runs_settings(tmp_path):
    """Whatever becomes of config.json, its settings are read as they were, or it is refused."""
    path = tmp_path / "config.json"
    with runs.RunFolder.open(tmp_path, kind="gan", config={"fmap_max": 8, "x": [0.1, "é"]}, records_digests={"a": "b"}):
        whole = path.read_bytes()
    right = runs.load_config(tmp_path)
    assert right["config"] == {"fmap_max": 8, "x": [0.1, "é"]}
    refused = 0
    for number, data in enumerate(trials.every_damage(whole, 0)):
        path.write_bytes(data)
        try:
            found = runs.load_config(tmp_path)
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert {name: found[name] for name in right} == right, number
    assert 2 * len(whole) > refused > 1.9 * len(whole)
    del right["records"]["a"]
    path.write_text(json.dumps({**right, "records": {"a": "c"}}))  # of a version without digests
    assert runs.load_config(tmp_path)["records"] == {"a": "c"}
