"""SE-ResNet of PyTorch: its names are mapped, and the imported network computes the same features."""

import builtins
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from tfcxr.classifiers import loading
from tfcxr.classifiers.networks import attention, backbones, models, se_resnet_weights
from tfrecords_builder.errors import InputError

# Written by `python -m tests.torch_networks`: arrays, images and features of a narrow SE-ResNet in PyTorch.
GOLDEN = pathlib.Path(__file__).parent / "golden" / "se_resnet.npz"
SIDES = (32, 37)


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN)


@pytest.fixture
def state(golden):
    return {name.removeprefix("state/"): golden[name] for name in golden.files if name.startswith("state/")}


def make_network(*, per_domain=True, reduction=16):
    base = backbones.residual_network("narrow", 8, ((8, 2), (12, 1)), torch_style=True)
    return attention.AttendedBackbone(base, per_domain=per_domain, reduction=reduction)


def assert_close(actual, expected):
    assert np.max(np.abs(actual - expected)) <= 1e-4 * np.max(np.abs(expected))


@pytest.mark.parametrize("per_domain", [False, True])
@pytest.mark.parametrize("side", SIDES)
def test_features_equal_pytorchs(golden, state, side, per_domain):
    network = make_network(per_domain=per_domain)
    se_resnet_weights.assign(network, state, "se.pth")
    for path in ("source", "target", "both"):
        assert_close(network(golden[f"images/{side}"], path=path).numpy(), golden[f"features/{side}"])


def test_a_file_of_pytorch_is_read(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra torch)")
    from tests import torch_networks

    original = torch_networks.make(seed=11)
    torch.save(original.state_dict(), tmp_path / "se.pth")
    network = make_network()
    se_resnet_weights.assign(network, se_resnet_weights.read(tmp_path / "se.pth"), tmp_path / "se.pth")
    for side in SIDES:
        images, features = torch_networks.run(original, side)
        assert_close(network(images).numpy(), features)


def test_the_golden_file_is_what_pytorch_gives(golden, state):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra torch)")
    from tests import torch_networks

    original = torch_networks.make(seed=0)
    original.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    for side in SIDES:
        images, features = torch_networks.run(original, side)
        np.testing.assert_array_equal(images, golden[f"images/{side}"])
        assert_close(features, golden[f"features/{side}"])


def test_a_damaged_file_of_pytorch_is_named(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra torch)")
    torch.save({"a": torch.zeros(1000)}, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:2000])
    torch.save({"path": pathlib.PurePosixPath("x")}, tmp_path / "code.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    for name in ("cut.pth", "code.pth", "list.pth"):
        with pytest.raises(InputError, match="is damaged, or no PyTorch file of named tensors") as caught:
            se_resnet_weights.read(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_without_pytorch_the_extra_is_named(tmp_path, monkeypatch):
    def no_torch(name, *arguments, **keywords):
        if name == "torch":
            raise ImportError(name)
        return original(name, *arguments, **keywords)

    original = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", no_torch)
    with pytest.raises(InputError, match=r"pip install 'tfcxr\[torch\]'"):
        se_resnet_weights.read(tmp_path / "se.pth")


def test_what_differs_is_named(state):
    first = {name: array for name, array in state.items() if name != "layer1.1.bn2.running_var"}
    with pytest.raises(InputError, match=r"is not of narrow: it lacks layer1.1.bn2.running_var"):
        se_resnet_weights.assign(make_network(), first, "se.pth")
    with pytest.raises(InputError, match=r"it has layer2.1.conv1.weight, which that lacks"):
        se_resnet_weights.assign(make_network(), {**state, "layer2.1.conv1.weight": np.zeros(3)}, "se.pth")
    with pytest.raises(InputError, match="conv2_block1_attention squeezes to 2 channels, not 4; give --reduction=16"):
        se_resnet_weights.assign(make_network(reduction=8), state, "se.pth")
    wide = {**state, "layer1.0.conv2.weight": np.zeros([9, 8, 3, 3], np.float32)}
    with pytest.raises(InputError, match=r"conv2_block1_2_conv has shapes \[\[3, 3, 8, 9\]\], not \[\[3, 3, 8, 8\]\]"):
        se_resnet_weights.assign(make_network(), wide, "se.pth")


@pytest.fixture
def small_se_backbone(monkeypatch):
    """A narrow SE network among the backbones, as se_resnet50."""
    make = lambda: backbones.residual_network("narrow", 8, ((8, 2), (12, 1)), torch_style=True)  # noqa: E731
    monkeypatch.setitem(backbones.MAKERS, "se_resnet50", make)


def make_classifier(**settings):
    config = models.ModelConfig(("a", "b"), "v1_0s", 32, 32, "se_resnet50", **settings)
    return models.Classifier(config, seed=settings.get("attention", 0) + 1)


def test_a_classifier_starts_from_the_file(small_se_backbone, golden, state, tmp_path, monkeypatch):
    """Without adaptation one attention serves both domains; DCAN takes it over into both of its paths."""
    (tmp_path / "se.pth").touch()
    monkeypatch.setattr(se_resnet_weights, "read", lambda path: state)
    plain, adapted = make_classifier(), make_classifier(attention=True)
    assert loading.initialise(plain, weights=str(tmp_path / "se.pth")) == ["backbone", "attention"]
    assert_close(plain.backbone(golden["images/32"]).numpy(), golden["features/32"])
    assert models.copy_weights(plain, adapted) == ["backbone", "attention", "head"]
    images = tf.random.stateless_uniform([4, 32, 32, 1], [0, 1])
    for path in ("source", "target", "both"):
        np.testing.assert_allclose(adapted.features(images, path), plain.features(images, path), rtol=1e-5)
    assert len(adapted.backbone.attentions[0].weights) == 6
    assert len(plain.backbone.attentions[0].weights) == 4


def test_weights_of_an_se_classifier_round_trip(small_se_backbone, state, tmp_path):
    plain, other = make_classifier(), make_classifier()
    se_resnet_weights.assign(plain.backbone, state, "se.pth")
    models.save_weights(plain, tmp_path / "best.weights.h5")
    models.load_weights(other, tmp_path / "best.weights.h5")
    for a, b in zip(plain.weights, other.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.name)


def test_what_does_not_go_together_is_named(small_se_backbone, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"put http\S+/se_resnet50-ce0d4300.pth at \S+/models/se_resnet50-ce0d4300.p"):
        loading.initialise(make_classifier(), weights="imagenet")
    (tmp_path / "se.pth").touch()
    (tmp_path / "other.h5").touch()
    tiny = models.Classifier(models.ModelConfig(("a", "b"), "v1_0s", 32, 32, "resnet_tiny"))
    with pytest.raises(InputError, match=r"is not of resnet_tiny: .pth files are of se_resnet50"):
        loading.initialise(tiny, weights=str(tmp_path / "se.pth"))
    with pytest.raises(InputError, match=r"is not of se_resnet50: .pth files are of se_resnet50"):
        loading.initialise(make_classifier(), weights=str(tmp_path / "other.h5"))
    with pytest.raises(InputError, match="--init_from: its --reduction is 8, not 16"):
        models.copy_weights(make_classifier(reduction=8), make_classifier())


def test_the_published_networks_shapes():
    """Numbers of SE-ResNet-50 (Hu et al. 2018, table 2): 28.1 M weights with ImageNet's head."""
    network = attention.AttendedBackbone(backbones.build("se_resnet50"), per_domain=False)
    trained = sum(int(np.prod(w.shape)) for w in network.trainable_weights)
    assert trained + 2048 * 1000 + 1000 == 28_088_024
    assert len(network.attentions) == 16
    assert network.base.output_shape == (None, 2048)
