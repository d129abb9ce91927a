"""Whether a model file of somebody else's may be loaded: layers and operations that would run code or touch files.

A Keras file may hold Python code (`Lambda`) or name any function of any module; a SavedModel is a program of TensorFlow
operations, some of which read and write files. Networks of images need neither, so that what is not known to be
harmless is refused before TensorFlow sees it. That is a net with fine meshes, not a sandbox: an error in TensorFlow's
own operations is beyond it.
"""

import json
import os
import pathlib
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import h5py
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from tfrecords_builder.errors import InputError

_SAVED_MODEL, _KERAS_METADATA = "saved_model.pb", "keras_metadata.pb"
_OTHER_FORMS = ("saved_model.pbtxt", "saved_model.cpb")  # TensorFlow would read these as well
# Run code, read a vocabulary from a path, or load another SavedModel.
_UNSAFE_LAYERS = {
    *("Lambda", "__lambda__", "TFSMLayer", "HashedCrossing"),
    *("StringLookup", "IntegerLookup", "TextVectorization"),
}
_KERAS = re.compile(r"(tf_)?keras(\..*)?|builtins")
# Files, the console, the network, Python.
_UNSAFE_OPERATIONS = re.compile(r"File|^Save|^Load|Restore|Checkpoint|Print|Debug|Summary|Reader|Dataset|PyFunc|Rpc")


def check_keras(path: str | os.PathLike, flag: str) -> None:
    """Raises InputError if a Keras model (.keras, .h5 or SavedModel) holds more than Keras's own layers of images.

    A file that is none of these passes: it is for the reader to say so.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        check_saved_model(path, flag)
        metadata = path / _KERAS_METADATA
        if metadata.is_file():
            # Its messages are JSON texts, one for each layer; the names in them are what counts.
            for name in re.findall(rb'"class_name"\s*:\s*"([^"]*)"', metadata.read_bytes()):
                _check_layer({"class_name": name.decode("utf-8", "replace")}, path, flag)
        return
    for value in _read_config(path):
        _check_layer(value, path, flag)


def check_saved_model(path: str | os.PathLike, flag: str) -> None:
    """Raises InputError if a SavedModel has operations that read or write files, print, or call Python.

    The functions that save and restore its variables may, as long as nothing else calls them. A folder without a
    SavedModel passes: it is for the reader to say so.
    """
    file = pathlib.Path(path) / _SAVED_MODEL
    for other in _OTHER_FORMS:
        if (pathlib.Path(path) / other).exists():
            raise InputError(f"{flag}={path}: has {other}, which is not looked through; only {_SAVED_MODEL} is loaded")
    if not file.exists():
        return
    model = saved_model_pb2.SavedModel()
    try:
        model.ParseFromString(file.read_bytes())
    except (OSError, DecodeError) as error:
        raise InputError(f"{flag}={path}: its {_SAVED_MODEL} cannot be read; write the model again") from error
    for graph in model.meta_graphs:
        functions = {each.signature.name: each.node_def for each in graph.graph_def.library.function}
        savers = {
            name.partition(":")[0] for name in (graph.saver_def.save_tensor_name, graph.saver_def.restore_op_name)
        }
        waiting = list(graph.object_graph_def.concrete_functions)
        seen = set(waiting)
        blocks = [[node for node in graph.graph_def.node if node.name not in savers]]
        while blocks or waiting:
            block = blocks.pop() if blocks else functions.get(waiting.pop(), [])
            for node in block:
                if _UNSAFE_OPERATIONS.search(node.op):
                    raise InputError(
                        f"{flag}={path}: has the operation {node.op}, which can reach files or run code; networks of "
                        "images need none, so it is not loaded"
                    )
                called = [node.op, *_functions_of(node)]
                waiting += [name for name in called if name in functions and name not in seen]
                seen.update(called)


def _functions_of(node: Any) -> Iterator[str]:
    """Names of the functions that a node calls."""
    for value in node.attr.values():
        yield value.func.name
        yield from (each.name for each in value.list.func)


def _read_config(path: pathlib.Path) -> Iterator[Mapping[str, Any]]:
    """Each object of the description of a Keras model in a file."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                text: Any = archive.read("config.json")
        else:
            with h5py.File(path) as file:
                text = file.attrs.get("model_config", "{}")
        waiting = [json.loads(text)]
    except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile):
        return
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _check_layer(value: Mapping[str, Any], path: pathlib.Path, flag: str) -> None:
    name, module = value.get("class_name"), value.get("module")
    foreign = isinstance(module, str) and not _KERAS.fullmatch(module)
    function = name == "function" and not str(module).removeprefix("tf_").startswith("keras")
    if name in _UNSAFE_LAYERS or foreign or function:
        what = f"{module}.{name}" if module else str(name)
        raise InputError(
            f"{flag}={path}: has {ascii(what)[1:-1][:80]}, which can run code or read files; networks of images need "
            "Keras's own layers only, so it is not loaded"
        )
