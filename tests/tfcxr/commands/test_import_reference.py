"""import-reference: recorded images from both kinds of file, generation, export, training on, and refusals."""

import io
import json
import pickle
import struct
import zipfile

import numpy as np
import pytest
import tensorflow as tf

import tfcxr
from flags import app
from tests import fakes
from tests.tfcxr.gan.reference import reference_pickles
from tfcxr import cli
from tfcxr.commands import export_model, generate, import_reference, train_gan
from tfcxr.gan.networks import build_networks
from tfcxr.gan.reference import variable_names
from tfrecords_builder.labels import LABELS

TOLERANCE = 1e-4
SIZES = {"resolution": 8, "fmap_base": 32, "fmap_max": 8}


def call(checkpoint, run, *arguments):
    argv = ["import-reference", f"--checkpoint={checkpoint}", f"--run_dir={run}", *arguments]
    return app.run(import_reference.main, import_reference.define_flags, argv)


def train(records, run, *arguments):
    common = [f"--records={records}", f"--run_dir={run}", "--batch_size=8", "--total_kimg=0.024", "--tick_kimg=0.024"]
    common += ["--loss=logistic_ns"]
    sizes = [f"--{name}={value}" for name, value in SIZES.items()]
    return app.run(train_gan.main, train_gan.define_flags, ["train-gan", *common, *sizes, *arguments])


def network_arrays(model, seed):
    """Weights of their own, also for the biases, which start at zero."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.standard_normal(variable.shape).astype(np.float32)
        for name, variable in variable_names.reference_variables(model).items()
    }


def small(**settings):
    """{G, D, Gs} of an 8 px network with random weights, as arrays."""
    generator, discriminator = (
        build_networks.build_generator(**SIZES, **settings),
        build_networks.build_discriminator(**SIZES, **settings),
    )
    return {
        "G": network_arrays(generator, 1),
        "D": network_arrays(discriminator, 2),
        "Gs": network_arrays(generator, 3),
    }


def write_npz(path, found):
    np.savez(path, **{f"{name}/{key}": array for name, arrays in found.items() for key, array in arrays.items()})
    return path


def write_pickle(path, found, protocol=4, **static_kwargs):
    path.write_bytes(reference_pickles.dump(found, protocol=protocol, static_kwargs=static_kwargs))
    return path


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """The run of a small pickle, and its arrays."""
    root = tmp_path_factory.mktemp("imported")
    found = small()
    path = write_pickle(root / "network-final.pkl", found, num_channels=1, label_size=14, **SIZES)
    assert call(path, root / "run", "--kimg=12000") == 0
    return root / "run", found


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return fakes.make_records(tmp_path_factory.mktemp("import_records"), label_version="multilabel", per_class=4)


def golden_arrays(shared_dir):
    files = {name: dict(np.load(shared_dir / "golden" / f"gan_r16_fb1024_fm64_{name}.npz")) for name in "GD"}
    variables = {
        name: {key.removeprefix("var/"): array for key, array in arrays.items() if key.startswith("var/")}
        for name, arrays in files.items()
    }
    return files, {"G": variables["G"], "D": variables["D"], "Gs": variables["G"]}


@pytest.mark.parametrize("kind", ["npz", "pickle 2", "pickle 4"])
def test_recorded_images_and_scores(shared_dir, tmp_path, kind):
    files, variables = golden_arrays(shared_dir)
    if kind == "npz":
        path = write_npz(tmp_path / "networks.npz", variables)
    else:
        settings = {"resolution": 16, "fmap_base": 1024, "fmap_max": 64, "label_size": 14, "num_channels": 1}
        path = write_pickle(tmp_path / "network-final.pkl", variables, int(kind[-1]), **settings)
    assert call(path, tmp_path / "run") == 0
    labels, latents = files["G"]["labels"], files["G"]["latents"]
    recorded = files["G"]["fake_images"].transpose(0, 2, 3, 1)
    images = tfcxr.load_generator(tmp_path / "run")([latents, labels]).numpy()
    assert np.abs(images - recorded).max() <= TOLERANCE * np.abs(recorded).max()
    scores = tfcxr.load_discriminator(tmp_path / "run")([recorded, labels]).numpy()
    assert np.abs(scores - files["D"]["fake_scores"]).max() <= TOLERANCE * np.abs(files["D"]["fake_scores"]).max()
    # The npz says nothing of fmap_base; the smallest that makes this network is taken.
    network = json.loads((tmp_path / "run/config.json").read_text())["config"]
    assert (network["resolution"], network["fmap_max"]) == (16, 64)
    assert network["fmap_base"] == (512 if kind == "npz" else 1024)


def test_the_run_says_what_it_is(imported):
    run, found = imported
    result = json.loads((run / "result.json").read_text())
    assert (result["kimg"], result["steps"], result["networks"]) == (12000, 187500, ["D", "G", "Gs"])
    assert result["imported"]["file"] == "network-final.pkl"
    assert len(result["imported"]["sha256"]) == 64
    assert result["num_parameters"]["D"] == sum(array.size for array in found["D"].values())
    assert {"flags.txt", "config.json", "checkpoints"} <= {path.name for path in run.iterdir()}
    for name, variable in variable_names.reference_variables(tfcxr.load_generator(run)).items():
        np.testing.assert_array_equal(variable, found["Gs"][name])
    for name, variable in variable_names.reference_variables(tfcxr.load_discriminator(run)).items():
        np.testing.assert_array_equal(variable, found["D"][name])


def test_generates_and_exports(imported, tmp_path):
    run, _ = imported
    argv = [f"--run_dir={run}", "--label_version=v1_0s", "--per_class=2", f"--output_dir={tmp_path / 'set'}"]
    assert app.run(generate.main, generate.define_flags, ["generate", *argv]) == 0
    argv = ["export-model", f"--run_dir={run}", f"--output_dir={tmp_path / 'export'}"]
    assert app.run(export_model.main, export_model.define_flags, argv) == 0
    inputs = [np.random.default_rng(0).standard_normal([2, 8], np.float32), np.eye(14, dtype=np.float32)[:2]]
    np.testing.assert_array_equal(tfcxr.load_generator(tmp_path / "export")(inputs), tfcxr.load_generator(run)(inputs))


def checkpoint_value(run, name):
    return tf.train.load_checkpoint(str(run / "checkpoints")).get_tensor(f"{name}/.ATTRIBUTES/VARIABLE_VALUE")


def test_training_goes_on_from_it(imported, records, tmp_path, capsys):
    run, found = imported
    # A learning rate of almost nothing: after three steps the weights are those that were imported.
    assert train(records, tmp_path / "run", f"--warm_start={run}", "--learning_rate=1e-8") == 0
    assert "started from the weights of run at 12000.0 kimg" in capsys.readouterr().out
    assert checkpoint_value(tmp_path / "run", "step") == 3
    for part, name in (("generator", "G"), ("ema", "Gs"), ("discriminator", "D")):
        model = build_networks.build_discriminator(**SIZES) if name == "D" else build_networks.build_generator(**SIZES)
        tf.train.Checkpoint(**{part: model}).restore(
            tf.train.latest_checkpoint(str(tmp_path / "run/checkpoints"))
        ).expect_partial()
        for key, variable in variable_names.reference_variables(model).items():
            # The average moves a thousandth of the way to the generator in each step.
            expected = (
                found["Gs"][key] + 0.003 * (found["G"][key] - found["Gs"][key]) if name == "Gs" else found[name][key]
            )
            np.testing.assert_allclose(variable, expected, atol=3e-5, err_msg=f"{part} {key}")
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert (result["kimg"], result["warm_start"]["run"], result["warm_start"]["kimg"]) == (0.024, "run", 12000)
    config = json.loads((tmp_path / "run/config.json").read_text())["config"]
    assert config["warm_start"] == result["warm_start"]


@pytest.mark.large
def test_a_warm_started_run_resumes_and_ends_as_an_unbroken_one(imported, records, tmp_path):
    start = f"--warm_start={imported[0]}"
    assert train(records, tmp_path / "a", start, "--total_kimg=0.048") == 0
    assert train(records, tmp_path / "b", start) == 0
    assert train(records, tmp_path / "b", start, "--total_kimg=0.048") == 0
    reader = tf.train.load_checkpoint(str(tmp_path / "a/checkpoints"))
    # It trains: with a usual learning rate the weights move.
    name = "generator/layer_with_weights-0/weight"
    assert np.abs(checkpoint_value(tmp_path / "a", name) - checkpoint_value(imported[0], name)).max() > 1e-3
    names = [name for name in reader.get_variable_to_shape_map() if name.endswith("VARIABLE_VALUE")]
    names = [name for name in names if not name.startswith("history/")]  # holds speeds
    assert any("generator_optimizer" in name for name in names)
    for name in names:
        if "save_counter" not in name:
            key = name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE")
            np.testing.assert_array_equal(reader.get_tensor(name), checkpoint_value(tmp_path / "b", key), err_msg=name)


def test_what_training_cannot_start_from(imported, records, tmp_path, capsys):
    run, found = imported
    none = tmp_path / "no_discriminator"
    assert call(write_npz(tmp_path / "Gs.npz", {"Gs": found["Gs"]}), none) == 0
    assert "no discriminator" in capsys.readouterr().out
    assert call(tmp_path / "Gs.npz", none) == 2
    assert "this run is finished" in capsys.readouterr().err
    for arguments, expected in [
        ([f"--warm_start={run}", "--fmap_base=16"], "has feature maps (fmap_base, fmap_max) [8, 8, 8], not [8, 8, 4]"),
        ([f"--warm_start={run}", "--condition_labels=No Finding,Edema"], "has condition_labels all, not [0, 5]"),
        ([f"--warm_start={none}"], "holds no discriminator"),
        ([f"--warm_start={tmp_path}"], f"--warm_start={tmp_path}: is not a run folder"),
        ([f"--warm_start={tmp_path / 'nothing'}"], "no such folder"),
        ([f"--run_dir={run}"], "choose another --run_dir"),
        ([f"--warm_start={run}", f"--run_dir={run}"], "is --run_dir itself"),
        ([f"--warm_start={run}", f"--run_dir={run}", "--overwrite"], f"--run_dir={run}: holds --warm_start={run};"),
    ]:
        assert train(records, tmp_path / "new", *arguments) == 2, arguments
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        assert expected in message
    assert not (tmp_path / "new").exists()
    tfcxr.load_generator(none)
    with pytest.raises(ValueError, match="holds no discriminator; the file it was imported from had none"):
        tfcxr.load_discriminator(none)


def test_labels_of_another_order_and_number_find_their_places(tmp_path, capsys):
    # What a network of five labels in this order, with the columns as listed, makes of an image of pneumonia.
    names = ["Pneumothorax", "No Finding", "Pneumonia", "Edema", "Cardiomegaly"]
    found = small(condition_labels=tuple(range(5)))
    path = write_pickle(tmp_path / "network.pkl", found, label_size=5)
    assert call(path, tmp_path / "run") == 2
    assert "--condition_labels: the network has 5 labels, not 14" in capsys.readouterr().err
    assert call(path, tmp_path / "run", f"--condition_labels={','.join(names)}") == 0
    config = json.loads((tmp_path / "run/config.json").read_text())["config"]
    assert [LABELS[index] for index in config["condition_labels"]] == sorted(names, key=LABELS.index)
    theirs_g, theirs_d = (
        build_networks.build_generator(**SIZES, num_labels=5),
        build_networks.build_discriminator(**SIZES, num_labels=5),
    )
    variable_names.load_reference_variables(theirs_g, found["Gs"])
    variable_names.load_reference_variables(theirs_d, found["D"])
    latents = np.random.default_rng(5).standard_normal([5, 8], np.float32)
    theirs = np.eye(5, dtype=np.float32)
    theirs[0, 3] = 1
    ours = np.zeros([5, 14], np.float32)
    for column, name in enumerate(names):
        ours[:, LABELS.index(name)] = theirs[:, column]
    images = theirs_g([latents, theirs])
    np.testing.assert_allclose(tfcxr.load_generator(tmp_path / "run")([latents, ours]), images, atol=1e-4)
    scores = theirs_d([images[:4], theirs[:4]])
    np.testing.assert_allclose(
        tfcxr.load_discriminator(tmp_path / "run")([images[:4], ours[:4]]), scores, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(("g_arch", "d_arch"), [("resnet", "skip"), ("orig", "orig")])
def test_other_architectures_and_sizes_are_recognised(tmp_path, g_arch, d_arch):
    sizes = {"resolution": 32, "fmap_base": 52, "fmap_max": 13, "g_arch": g_arch, "d_arch": d_arch}
    models = {"Gs": build_networks.build_generator(**sizes), "D": build_networks.build_discriminator(**sizes)}
    found = {name: network_arrays(model, 1) for name, model in models.items()}
    found["Gs"]["lod"] = np.float32(0)
    assert call(write_npz(tmp_path / "networks.npz", found), tmp_path / "run") == 0
    config = json.loads((tmp_path / "run/config.json").read_text())["config"]
    assert {key: config[key] for key in sizes} == sizes
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["ignored_variables"] == ["Gs/lod"]
    assert result["kimg"] == 0


def changed(found, network, **arrays):
    return {**found, network: {**found[network], **{key.replace("__", "/"): value for key, value in arrays.items()}}}


def test_networks_that_do_not_fit_are_refused_by_the_names_of_their_variables(tmp_path, capsys):
    found = small()
    without = {name: dict(arrays) for name, arrays in found.items()}
    del without["Gs"]["8x8/ToRGB/bias"], without["D"]["Output/weight"]
    wrong = np.zeros([3], np.float32)
    cases = [
        (without, [], "D misses Output/weight; Gs misses 8x8/ToRGB/bias"),
        (changed(found, "Gs", **{"8x8__Conv0_up__bias": wrong}), [], "8x8/Conv0_up/bias [3] instead of [8]"),
        (changed(found, "G", dlatent_avg=wrong), [], "G has the unknown dlatent_avg"),
        (changed(found, "G", lod=np.float32(1.5)), [], "G has the unknown lod"),
        (changed(found, "D", **{"Output__bias": np.zeros(14, np.int32)}), [], "D has no floats: Output/bias int32"),
        (changed(found, "Gs", **{"4x4__Dense__bias": np.full(8, np.nan, np.float32)}), [], "Gs/4x4/Dense/bias holds"),
        ({"D": found["D"]}, [], "holds no generator"),
        ({"Gs": {"x": wrong}}, [], "has no variables 4x4/Dense/bias, 4x4/Dense/weight"),
        (found, ["--resolution=16"], "Gs misses 16x16/"),
        (found, ["--fmap_max=4"], "4x4/Conv/bias [8] instead of [4]"),
        (found, ["--fmap_max=100000", "--fmap_base=1000000"], "is too large; at most 1024 px and 2048"),
        (found, ["--condition_labels=Flu"], "condition_labels"),
        (found, ["--condition_labels=No Finding"], "--condition_labels: the network has 14 labels, not 1;"),
    ]
    for number, (arrays, arguments, expected) in enumerate(cases):
        path = write_npz(tmp_path / f"{number}.npz", arrays)
        assert call(path, tmp_path / "run", *arguments) == 2, expected
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        assert expected in message
        assert len(message) < 2500
    settings = [({"num_channels": 3}, "num_channels than 1"), ({"mbstd_group_size": 8}, "another mbstd_group_size")]
    settings += [({"resolution": 10**400, "fmap_max": 10**8, "fmap_base": 10**9}, "is too large")]
    for static_kwargs, expected in settings:
        assert call(write_pickle(tmp_path / "x.pkl", found, **static_kwargs), tmp_path / "run") == 2
        assert expected in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


class Hostile:
    def __reduce__(self):
        return eval, ("open('touched', 'w')",)


def test_files_that_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = small()
    with reference_pickles.network_class() as network:
        states = [reference_pickles.state(name, arrays) for name, arrays in found.items()]
        hostile = pickle.dumps((network({**states[0], "components": [Hostile()]}), *map(network, states[1:])), 4)
        empty = pickle.dumps((network({"version": 2, "name": "G"}),), 4)
        twice = pickle.dumps((network(states[0]), network(states[0])), 4)
    data = reference_pickles.dump(found)
    zipped = io.BytesIO()
    np.savez(zipped, **{"G/x": np.zeros(2)})
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)})
    lying = io.BytesIO()
    with zipfile.ZipFile(lying, "w") as archive:
        archive.writestr("G/x.npy", header.getvalue() + bytes(8))
    objects = io.BytesIO()
    np.savez(objects, **{"G/x": np.array([Hostile()], object)})
    bomb = bytearray(zipped.getvalue())
    # The size that the archive's directory declares: 4 GiB in four entries would be too much.
    place = bomb.rindex(b"PK\x01\x02") + 24
    bomb[place : place + 4] = struct.pack("<I", 2**32 - 2)
    cases = {
        "hostile.pkl": (hostile, "refers to builtins.eval (module 'builtins', name 'eval')"),
        "short.pkl": (data[: len(data) // 2], "is no complete pickle"),
        "empty.pkl": (b"", "is no complete pickle"),
        "seven.pkl": (b"\x80\x07" + data[2:], "protocol 7"),
        "list.pkl": (pickle.dumps([1, 2, 3]), "but not of the networks (G, D, Gs)"),
        "arrays.pkl": (pickle.dumps({"G": np.ones(2)}), "but not of the networks"),
        "nothing.pkl": (empty, "holds no list of (variable name, array)"),
        "twice.pkl": (twice, "2 objects that are not named"),
        "short.npz": (zipped.getvalue()[:-30], "not a zip file"),
        "objects.npz": (objects.getvalue(), "holds '|O', not numbers"),
        "lying.npz": (lying.getvalue(), "declares the shape (1000000000000,)"),
        "bomb.npz": (bytes(bomb), "--checkpoint="),
        "names.npz": (None, "holds 'latents'; every array must be named <G|D|Gs>/<variable>"),
    }
    for name, (content, expected) in cases.items():
        path = tmp_path / name
        path.write_bytes(content) if content is not None else np.savez(path, latents=np.zeros(2))
        assert call(path, tmp_path / "run") == 2, name
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        assert message.startswith(f"error: --checkpoint={path}: ")
        assert expected in message, name
    assert not (tmp_path / "touched").exists()
    assert not (tmp_path / "run").exists()


def test_flags_and_overwriting(tmp_path, capsys):
    path = write_npz(tmp_path / "networks.npz", small())
    argv = ["import-reference", f"--checkpoint={path}", f"--run_dir={tmp_path / 'run'}"]
    assert cli.main(argv) == 0
    assert "--fmap_base=32 --fmap_max=8" in capsys.readouterr().out
    assert cli.main(argv) == 2
    assert "this run is finished" in capsys.readouterr().err
    assert cli.main([*argv, "--overwrite", "--kimg=3.2"]) == 0
    assert json.loads((tmp_path / "run/result.json").read_text())["kimg"] == 3.2
    assert cli.main([argv[0], argv[2]]) == 2
    assert cli.main([argv[0], f"--checkpoint={tmp_path}", argv[2]]) == 2
    assert cli.main([*argv[:2], f"--run_dir={tmp_path}", "--overwrite"]) == 2
    assert "holds --checkpoint" in capsys.readouterr().err.splitlines()[-1]
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("mine")
    assert cli.main([*argv[:2], f"--run_dir={tmp_path / 'other'}", "--overwrite"]) == 2
    assert (tmp_path / "other/notes.txt").read_text() == "mine"


def test_a_prog_gan_with_its_labels_in_another_order_generates_scores_and_trains_on(tmp_path):
    found = small(arch="prog")
    for arrays in found.values():
        arrays["lod"] = np.zeros([], np.float32)
    path, run = tmp_path / "prog.pkl", tmp_path / "run"
    path.write_bytes(reference_pickles.dump(found))
    assert call(path, run, f"--condition_labels={','.join(reversed(LABELS))}") == 0
    config = json.loads((run / "config.json").read_text())["config"]
    assert (config["arch"], config["resolution"]) == ("prog", 8)
    # The networks as they were stored, whose labels are the other way round.
    stored = {
        "Gs": build_networks.build_generator(**SIZES, arch="prog"),
        "D": build_networks.build_discriminator(**SIZES, arch="prog"),
    }
    for name, model in stored.items():
        variable_names.load_reference_variables(model, found[name])
    latents = tf.random.stateless_normal([4, 8], [1, 2])
    labels = tf.constant(np.eye(14, dtype=np.float32)[[0, 3, 5, 13]])
    images = stored["Gs"]([latents, labels[:, ::-1]])
    np.testing.assert_allclose(tfcxr.load_generator(run)([latents, labels]), images, atol=1e-5)
    scores, logits = tfcxr.load_discriminator(run)(images)
    np.testing.assert_allclose(scores, stored["D"](images)[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(logits[:, ::-1], stored["D"](images)[1], rtol=1e-4, atol=1e-4)
    records = fakes.make_records(tmp_path / "records", label_version="multilabel", per_class=4)
    assert (
        train(records, tmp_path / "on", "--arch=prog", "--batch_size=64", "--batch_sizes=8:8", f"--warm_start={run}")
        == 0
    )
