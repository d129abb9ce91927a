import json
import pathlib
import zipfile

import h5py
import pytest
import tensorflow as tf

from tfcxr import foreign_models
from tfcxr.classifiers.networks import backbones, weight_files
from tfcxr.fidelity import feature_networks
from tfrecords_builder.errors import InputError

layers = tf.keras.layers
FORMATS = {"model.keras": "keras", "model.h5": "h5", "folder": "tf"}


def make(*middle):
    inside = [layers.Input([8, 8, 3]), layers.Conv2D(4, 3), *middle, layers.GlobalAveragePooling2D(), layers.Dense(2)]
    return tf.keras.Sequential(inside)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("name", FORMATS)
def test_layers_of_keras_pass_and_code_does_not(tmp_path, name):
    make(layers.BatchNormalization(), layers.ReLU(6.0)).save(tmp_path / name, save_format=FORMATS[name])
    foreign_models.check_keras(tmp_path / name, "--features")
    assert feature_networks.make_keras(tmp_path / name, 8)(tf.zeros([1, 8, 8, 1])).shape == (1, 4)

    (tmp_path / "code").mkdir()
    make(layers.Lambda(lambda x: x * 2)).save(tmp_path / "code" / name, save_format=FORMATS[name])
    with pytest.raises(InputError, match=r"--features=\S+: has (keras.layers.)?Lambda, which can run code"):
        feature_networks.make_keras(tmp_path / "code" / name, 8)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ({"module": "os", "class_name": "function", "config": "system"}, r"has os\.function"),
        ({"module": "builtins", "class_name": "function", "config": "eval"}, r"has builtins\.function"),
        ({"module": "subprocess", "class_name": "Popen", "config": {}}, r"has subprocess\.Popen"),
        ({"module": "keras.layers", "class_name": "TFSMLayer", "config": {}}, r"has keras\.layers\.TFSMLayer"),
        ({"class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}}, "has StringLookup"),
    ],
)
def test_what_a_description_may_not_name(tmp_path, layer, said):
    config = json.dumps({"class_name": "Sequential", "config": {"layers": [{"config": {"deep": [layer]}}]}})
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("config.json", config)
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file.attrs["model_config"] = config
    for name in ("model.keras", "model.h5"):
        with pytest.raises(InputError, match=said):
            feature_networks.make_keras(tmp_path / name, 8)


class Writer(tf.Module):
    """Writes a file when it is called, in a function behind two others."""

    def __init__(self, path: pathlib.Path):
        super().__init__()
        self.path = str(path)
        self.value = tf.Variable(1.0)

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32)])
    def __call__(self, x):
        return tf.cond(x > 0, lambda: self.write(x), lambda: x)

    @tf.function
    def write(self, x):
        tf.io.write_file(self.path, "written")
        return x + self.value


def test_a_saved_model_that_writes_files_is_not_loaded(tmp_path):
    canary, folder = tmp_path / "canary", tmp_path / "model"
    tf.saved_model.save(Writer(canary), str(folder))
    said = ": has the operation WriteFile, which can reach files or run code"
    with pytest.raises(InputError, match=f"--weights=.*{said}"):
        weight_files.load(backbones.build("resnet_tiny"), folder)
    with pytest.raises(InputError, match=f"--features=.*{said}"):
        feature_networks.make_keras(folder, 8)
    with pytest.raises(InputError, match=f"--model=.*{said}"):
        foreign_models.check_saved_model(folder, "--model")
    assert not canary.exists()


def test_functions_that_save_variables_may_and_nothing_else_may_call_them(tmp_path):
    module = tf.Module()
    module.value = tf.Variable(1.0)
    module.call = tf.function(lambda x: x * module.value, input_signature=[tf.TensorSpec([], tf.float32)])
    tf.saved_model.save(module, str(tmp_path), signatures=module.call)
    foreign_models.check_saved_model(tmp_path, "--model")

    file = tmp_path / "saved_model.pb"
    model = foreign_models.saved_model_pb2.SavedModel.FromString(file.read_bytes())
    graph = model.meta_graphs[0]
    saving = next(each for each in graph.graph_def.library.function if "traced_save" in each.signature.name)
    served = next(each for each in graph.graph_def.library.function if "lambda" in each.signature.name)
    served.node_def.add(op="StatefulPartitionedCall", name="x").attr["f"].func.name = saving.signature.name
    file.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"has the operation (SaveV2|ShardedFilename|MergeV2Checkpoints)"):
        foreign_models.check_saved_model(tmp_path, "--model")


def test_a_damaged_saved_model_is_named(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"\xff\xff\xff")
    with pytest.raises(InputError, match=r"--model=\S+: its saved_model.pb cannot be read"):
        foreign_models.check_saved_model(tmp_path, "--model")


@pytest.mark.parametrize("name", ["saved_model.pbtxt", "saved_model.cpb"])
def test_other_forms_of_a_saved_model_are_refused(tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(InputError, match=rf"--weights=\S+: has {name}, which is not looked through"):
        foreign_models.check_saved_model(tmp_path, "--weights")
