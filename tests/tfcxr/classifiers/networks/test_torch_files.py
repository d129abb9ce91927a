"""PyTorch's first format: what is read; a damaged or hostile file is refused, runs nothing and takes no memory."""

import os
import pickle
import tracemalloc

import numpy as np
import pytest

from tests import torch_files as writer
from tfcxr import pickles
from tfcxr.classifiers.networks import torch_files

Storage, Tensor = writer.Storage, writer.Tensor


def read(tmp_path, data):
    path = tmp_path / "some.pth"
    path.write_bytes(data)
    return torch_files.read(path)


def arrays():
    rng = np.random.default_rng(0)
    kernel = rng.random([3, 3, 2, 4], np.float32)  # as TensorFlow has it: in PyTorch's order of axes not contiguous
    return {
        "conv.weight": kernel.transpose(3, 2, 0, 1),
        "bn.weight": rng.random(5, np.float32),
        "double": rng.random([2, 3]),
        "count": np.array(7, np.int64),
        "ones": rng.random([1, 4, 1, 1], np.float32),
        "none": np.zeros([0, 3], np.float32),
    }


def test_arrays_of_each_type_and_order_of_axes(tmp_path):
    expected = arrays()
    found = read(tmp_path, writer.dump(expected))
    assert list(found) == list(expected)
    for name, array in found.items():
        assert array.dtype == expected[name].dtype and not array.flags.writeable
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_a_file_of_pytorch_itself(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra torch)")
    layers = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    state = layers.state_dict()
    state["0.weight"] = state["0.weight"].to(memory_format=torch.channels_last)
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    found = torch_files.read(tmp_path / "old.pth")
    assert set(found) == set(state)
    for name, tensor in state.items():
        np.testing.assert_array_equal(found[name], tensor.numpy(), err_msg=name)
    torch.save(state, tmp_path / "new.pth")
    with pytest.raises(pickles.Refused, match="newer format; save it with"):
        torch_files.read(tmp_path / "new.pth")


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self._reduced = function, arguments

    def __reduce__(self):
        return self._reduced


@pytest.mark.parametrize("place", ["magic", "protocol", "system", "state", "tensor", "shape", "keys"])
def test_names_outside_the_list_are_refused_wherever_they_stand(tmp_path, place):
    hostile = Calls(os.system, f"touch {tmp_path / 'touched'}")
    items = {"1": np.ones(2, np.float32)}
    if place == "tensor":
        data = writer.dump({"a": Tensor(hostile, 0, (2,), (1,))}, items)
    elif place == "shape":
        data = writer.dump({"a": Tensor(Storage("f4", "1", 2), 0, hostile, (1,))}, items)
    elif place == "state":
        data = writer.dump(hostile, items)
    else:
        data = writer.dump({"a": np.ones(2, np.float32)}, **{place: hostile})
    with pytest.raises(pickles.Refused, match=r"refers to posix\.system"):
        read(tmp_path, data)
    assert not (tmp_path / "touched").exists()


def test_storages_are_no_way_round_the_list(tmp_path):
    """Neither may a storage be of another class, nor may the functions of the format be called at will."""
    reference = b"\x80\x02(X\x07\x00\x00\x00storagec%s\nX\x01\x00\x00\x001X\x03\x00\x00\x00cpuK\x02NtQ."
    for hostile, words in (
        (reference % b"os\nsystem", r"refers to os\.system"),
        (reference % b"builtins\nbytes", "no whole storage"),
        (b"\x80\x02X\x03\x00\x00\x00cpuQ.", "no whole storage"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00)(tR.", "no complete pickle|no whole"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.", "no complete pickle"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor\n)R.", "refers to torch._utils._rebuild_tensor "),
        (b"\x80\x02ctorch\nload\n)R.", r"refers to torch\.load"),
        (b"\x80\x02ctorch.storage\n_load_from_bytes\n)R.", "_load_from_bytes"),
    ):  # fmt: skip
        first = b"".join(writer.pickled(part) for part in (writer.MAGIC, 1001, writer.SYSTEM))
        with pytest.raises(pickles.Refused, match=words):
            read(tmp_path, first + hostile)


def four(shape=(2, 2), strides=(2, 1), offset=0, size=4, key="1", rest=()):
    """A file whose tensor `a` says this of a storage of four numbers."""
    tensor = Tensor(Storage("f4", key, size, *rest), offset, shape, strides)
    return writer.dump({"a": tensor}, {"1": np.arange(4, dtype=np.float32)})


def test_tensors_have_each_number_of_their_storage_once(tmp_path):
    np.testing.assert_array_equal(read(tmp_path, four())["a"], [[0, 1], [2, 3]])
    np.testing.assert_array_equal(read(tmp_path, four(strides=(1, 2)))["a"], [[0, 2], [1, 3]])
    np.testing.assert_array_equal(read(tmp_path, four((4, 1), (1, 77)))["a"], [[0], [1], [2], [3]])
    huge = 10**13
    for data, words in [
        (four((2, 2), (1, 1)), "each item"),  # rows that overlap
        (four((2, 2), (0, 1)), "each item"),
        (four((huge, huge), (0, 0)), "no sizes"),
        (four((2**20, 2**20), (0, 0)), "each item"),
        (four((2, 2), (4, 1)), "each item"),  # beyond the end
        (four((3, 2), (2, 1)), "each item"),
        (four((2,), (1,)), "each item"),  # a part of it
        (four((2,), (1,), 2), "no whole storage"),
        (four((2, 2), (2, 1), -1), "no whole storage"),
        (four((2, 2), (-2, 1)), "no sizes"),
        (four((2, 2), (2,)), "no sizes"),
        (four((2, 2.0), (2, 1)), "no sizes"),
        (four((True, 4), (4, 1)), "no sizes"),
        (four((1,) * 33, (1,) * 33), "no sizes"),
        (four([4], (1,)), "no whole storage"),
        (four((huge,), (1,), size=huge), "no whole storage"),
        (four(size=-4), "no whole storage"),
        (four(rest=(("2", 0, 4),)), "no whole storage"),  # a view of another storage
        (four((10**200,), (1,)), "no sizes"),
    ]:
        with pytest.raises(pickles.Refused, match=words) as caught:
            read(tmp_path, data)
        assert str(caught.value).isprintable() and len(str(caught.value)) < 200


def test_storages_are_those_of_the_tensors(tmp_path):
    state = {"a": np.ones(3, np.float32), "b": np.ones([2, 2], np.float64)}
    shared = Storage("f4", "1", 4)
    twice = {"a": Tensor(shared, 0, (4,), (1,)), "b": Tensor(shared, 0, (2, 2), (2, 1))}
    other = {name: Tensor(Storage("f4", "1", size), 0, (size,), (1,)) for name, size in (("a", 4), ("b", 3))}
    for data, words in [
        (writer.dump(twice, {"1": np.ones(4, np.float32)}), "two tensors of one storage"),
        (writer.dump(other, {"1": np.ones(4, np.float32)}), "two tensors of one storage"),
        (writer.dump(state, keys=["1000"]), "other storages"),
        (writer.dump(state, keys=["1000", "1000"]), "other storages"),
        (writer.dump(state, keys=["999", "1000", "1001"]), "other storages"),
        (writer.dump(state, keys=[1000, 999]), "other storages"),
        (writer.dump(state, keys={"999": 1, "1000": 2}), "other storages"),
        (writer.dump(state, counts={"1000": 2}), "counts other items than the 3 of storage '1000'"),
        (writer.dump(state, counts={"999": 2**62}), "counts other items"),
        (writer.dump(state, counts={"999": -4}), "counts other items"),
        (writer.dump(state) + b"\0", "goes on after its last storage"),
        (writer.dump(state)[:-1], "its end is missing"),
        (writer.dump(state, magic=1), "PyTorch's first format"),
        (writer.dump(state, protocol=1002), "PyTorch's first format"),
        (writer.dump(state, system={"little_endian": False}), "little-endian"),
        (writer.dump(state, system=[]), "little-endian"),
        (writer.dump([1], {}), "something else than named tensors"),
        (writer.dump({"a": 1}, {}), "something else than named tensors"),
        (writer.dump({1: Tensor(shared, 0, (4,), (1,))}, {"1": np.ones(4, np.float32)}), "something else than named"),
        (b"PK\x03\x04", "newer format"),
        (b"", "no complete pickle"),
    ]:
        with pytest.raises(pickles.Refused, match=words) as caught:
            read(tmp_path, data)
        assert str(caught.value).isprintable() and len(str(caught.value)) < 200


def test_files_that_are_cut_off_or_changed(tmp_path):
    data = writer.dump(arrays())
    for size in range(0, len(data), 5):
        with pytest.raises(pickles.Refused):
            read(tmp_path, data[:size])
    rng = np.random.default_rng(0)
    tracemalloc.start()
    try:
        for _ in range(400):
            noisy = bytearray(data)
            for position in rng.integers(0, len(data) - 400, 3):
                noisy[position] = rng.integers(256)
            try:
                read(tmp_path, bytes(noisy))
            except pickles.Refused as error:
                assert str(error).isprintable() and len(str(error)) < 400
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


def test_a_file_is_read_as_a_whole_only_if_it_can_be_of_a_network(tmp_path, monkeypatch):
    data = writer.dump(arrays())
    monkeypatch.setattr(torch_files, "_MAX_BYTES", len(data) - 1)
    with pytest.raises(pickles.Refused, match="is larger than"):
        read(tmp_path, data)
    assert pickle.loads(writer.pickled(writer.MAGIC)) == writer.MAGIC
