"""The pickle reader: what it reads, and that a hostile file runs nothing and takes no memory."""

import builtins
import collections
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from tests.tfcxr.gan.reference import reference_pickles
from tfcxr import pickles

CLASSES = ("tfutil.Network",)


def load(data):
    return pickles.load(data, classes=CLASSES, mappings=("dnnlib.util.EasyDict",))


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments, state=None):
        self._reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self._reduced


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_arrays_and_numbers_of_every_protocol(protocol):
    value = {
        "list": [
            1,
            -(2**70),
            1.5,
            None,
            True,
            False,
            "text ü",
            b"",
            b"bytes\xff",
            (),
            (1,),
            (1, 2),
            (1, 2, 3),
            (1,) * 4,
        ],
        "ordered": collections.OrderedDict(a=1, b=[2]),
        "number": np.float64(0.25),
        3: {},
    }
    shared = np.arange(6, dtype=np.float32)
    arrays = [
        np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
        np.arange(4, dtype=">f4"),
        np.array(7.0, np.float16),
        np.zeros([0, 3], np.float32),
        np.array([True, False]),
        shared,
        shared,
    ]
    found = load(pickle.dumps({"value": value, "arrays": arrays, "kind": np.float32}, protocol=protocol))
    assert found["value"] == {**value, "ordered": {"a": 1, "b": [2]}}
    assert len(found["arrays"]) == len(arrays)
    for array, expected in zip(found["arrays"], arrays, strict=True):
        assert isinstance(array, pickles.Array)
        assert array.value.dtype == expected.dtype
        np.testing.assert_array_equal(array.value, expected)
    assert found["arrays"][-1] is found["arrays"][-2]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_network_becomes_an_inert_object_that_holds_its_state(protocol):
    data = reference_pickles.dump({"G": {"a/weight": np.ones([2, 2], np.float32)}, "D": {}}, protocol=protocol)
    generator, discriminator = load(data)
    assert (generator.name, generator.state["name"], discriminator.state["name"]) == ("tfutil.Network", "G", "D")
    assert generator.state["build_module_src"].startswith("raise SystemExit")
    assert "tfutil" not in sys.modules


def test_the_oldest_form_of_an_object():
    with reference_pickles.network_class() as network:
        data = pickle.dumps(network({"name": "G"}), protocol=0)
    assert load(data).state == {"name": "G"}


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch {}",), "posix.system"),
        (subprocess.check_output, (["touch", "{}"],), "check_output"),
        (eval, ("__import__('pathlib').Path('{}').touch()",), "eval"),
        (exec, ("open('{}', 'w')",), "exec"),
        (getattr, (builtins, "eval"), "getattr"),
        (open, ("{}", "w"), "open"),
        (pathlib.Path, ("{}",), r"pathlib\.(_local\.)?Path"),  # _local: Python 3.13
        (np.load, ("{}",), "numpy.load"),
        (np.savetxt, ("{}", [1]), "numpy.savetxt"),
        (np.zeros, ((10**12,),), "numpy.zeros"),
        (np.core.multiarray.fromfile, ("{}",), "fromfile"),
        (np.testing._private.utils.runstring, ("open('{}', 'w')", {}), "runstring"),
        (pickle.loads, (pickle.dumps(1),), "loads"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_calls_are_refused_by_name_and_not_made(tmp_path, function, arguments, name, protocol, nested):
    if function is getattr:
        arguments = ("", "format")
    target = tmp_path / "touched"
    filled = tuple(
        [part.format(target) if isinstance(part, str) else part for part in argument]
        if isinstance(argument, list)
        else (argument.format(target) if isinstance(argument, str) else argument)
        for argument in arguments
    )
    hostile = Calls(function, *filled)
    if nested:
        with reference_pickles.network_class() as network:
            state = reference_pickles.state("G", {"a": np.ones(2)}, resolution=[{"x": (hostile,)}])
            data = pickle.dumps((network(state),), protocol=max(protocol, 2))
    else:
        data = pickle.dumps(hostile, protocol=protocol)
    with pytest.raises(pickles.Refused, match=rf"refers to .*{name}") as caught:
        load(data)
    assert "(module '" in str(caught.value)
    assert not target.exists()


def op(*parts):
    return b"".join(parts) + b"."


def test_names_of_numpy_that_are_not_data_are_refused():
    for module, name in [
        ("numpy", "ufunc"),
        ("numpy", "memmap"),
        ("numpy", "ndarray.tofile"),
        ("numpy.core.multiarray", "frombuffer"),
        ("numpy.core.multiarray", "_reconstruct.__globals__"),
        ("numpy.f2py.crackfortran", "myeval"),
        ("numpy", "float32.__class__"),
        ("tfutil", "Network.__init__"),
        ("tfutil", "run"),
        ("\x1b[2J", "x\ny"),
    ]:
        text = [struct.pack("<I", len(part)) + part.encode() for part in (module, name)]
        with pytest.raises(pickles.Refused, match="refers to") as caught:
            load(op(b"\x80\x04X", text[0], b"X", text[1], b"\x93"))
        assert str(caught.value).isprintable()


def test_known_names_in_unknown_ways_are_refused():
    network = b"ctfutil\nNetwork\n"
    for data, expected in [
        (op(network, b"(K\x01tR"), "calls tfutil.Network"),
        (op(network, b")\x81K\x01b"), "gives a instance a state"),
        (op(network, b"}b"), "gives tfutil.Network a state"),
        (op(b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00rottR"), "calls _codecs.encode"),
        (op(b"cnumpy\ndtype\n(X\x01\x00\x00\x00OtR"), "calls numpy.dtype"),
        (op(b"cnumpy\ndtype\n(X\x0c\x00\x00\x00f4,(1000,)f4tR"), "calls numpy.dtype"),
        (op(b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(K\x00tC\x01btR"), "_reconstruct"),
        (op(b"ccollections\nOrderedDict\n)\x81."), None),
        (op(b"cnumpy\nndarray\n(K\x05ttR"), None),
        (op(b"(itfutil\nNetwork\n"), "the instruction INST"),
        (op(b"(ios\nsystem\n"), "the instruction INST"),
        (op(b"Pabc\n"), "the instruction PERSID"),
        (op(b"\x82\x01"), "the instruction EXT1"),
        (op(b"\x97"), "the instruction NEXT_BUFFER"),
        (op(b"}K\x01K\x02s"), None),
        (op(b"})K\x02s"), "by keys that are no texts"),
        (op(b"]K\x01K\x02s"), "no dictionary"),
        (op(b"}K\x01a"), "no list"),
    ]:
        if expected is None:
            try:
                load(data)
            except pickles.Refused:
                continue
        else:
            with pytest.raises(pickles.Refused, match=expected):
                load(data)


def test_object_and_structured_arrays_are_refused():
    for array in (np.array([{}, None], object), np.zeros(2, [("a", "f4")]), np.array(["text"]), np.zeros(2, "M8[s]")):
        with pytest.raises(pickles.Refused):
            load(pickle.dumps(array, protocol=4))


def test_damaged_files():
    data = reference_pickles.dump({"G": {"a/weight": np.ones([20, 20], np.float32)}})
    for size in range(0, len(data), 7):
        with pytest.raises(pickles.Refused):
            load(data[:size])
    for bad, expected in [
        (b"", "no complete pickle"),
        (b"\x89PNG\r\n\x1a\n", "instruction PERSID"),
        (b"\x80\xff" + data[2:], "protocol 255; 0 to 5"),
        (b"\x80\x06" + data[2:], "protocol 6"),
        (b".", "no complete pickle"),
        (b"h\x05.", "no complete pickle"),
        (b"tR.", "no complete pickle"),
    ]:
        with pytest.raises(pickles.Refused, match=expected):
            load(bad)
    rng = np.random.default_rng(0)
    for _ in range(300):
        noisy = bytearray(data)
        for position in rng.integers(0, 300, 3):
            noisy[position] = rng.integers(256)
        try:
            load(bytes(noisy))
        except pickles.Refused as error:
            assert len(str(error)) < 400


def test_declared_sizes_take_no_memory():
    reconstruct = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR"
    kind = b"cnumpy\ndtype\n(X\x02\x00\x00\x00f4\x89\x88tR"
    huge = b"\x8a\x06" + (10**13).to_bytes(6, "little")
    text = b"X" + struct.pack("<I", 10**5) + b"a" * 10**5 + b"q\x05"
    encode = b"c_codecs\nencode\n(h\x05X\x06\x00\x00\x00latin1tR"
    files = [
        (op(reconstruct, b"(K\x01(", huge, b"t", kind, b"\x89C\x04abcdtb"), "declares the shape"),
        (op(reconstruct, b"(K\x01(K\xffK\xffM\xff\xffM\xff\xfft", kind, b"\x89C\x04abcdtb"), "declares the shape"),
        (op(b"\x96" + struct.pack("<Q", 10**13)), "no complete pickle"),
        (op(b"\x8e" + struct.pack("<Q", 10**13)), "no complete pickle"),
        (op(b"\x95" + struct.pack("<Q", 10**13)), None),
        (op(b"Nr\xff\xff\xff\xff"), None),
        (op(text, b"(", encode * 500, b"l"), "expands to more"),
    ]
    tracemalloc.start()
    try:
        for data, expected in files:
            try:
                load(data)
            except pickles.Refused as error:
                assert expected is None or expected in str(error), str(error)
            else:
                assert expected is None
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


def test_tuples_within_tuples_without_end_are_read_and_never_spelled_out():
    deep = b")" + b"2\x86" * 90  # doubles ninety times, by reference
    assert len(load(op(deep))) == 2
    reconstruct = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR"
    kind = b"cnumpy\ndtype\n(X\x02\x00\x00\x00f4\x89\x88tR"
    by_memo = b")" + b"q\x00h\x00h\x00\x86" * 90  # the same with the memo, as keys of each kind of dictionary
    for data in (op(b"}(", by_memo, b"Nu"), op(b"(", by_memo, b"Nd"), op(b"}", by_memo, b"Ns")):
        with pytest.raises(pickles.Refused, match="by keys that are no texts"):
            load(data)
    for data in (op(b"(", by_memo, b"\x91"), op(b"\x8f(", by_memo, b"\x90")):
        with pytest.raises(pickles.Refused, match=r"holds the instruction (FROZENSET|EMPTY_SET)"):
            load(data)
    for data in (op(b"}", deep, b"Ns"), op(reconstruct, b"(K\x01", deep, kind, b"\x89C\x04abcdtb")):
        with pytest.raises(pickles.Refused):
            load(data)
