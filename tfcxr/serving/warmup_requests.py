"""Warm-up requests of a SavedModel: TensorFlow Serving replays them before it answers, so that no caller waits for it.

Format: a TFRecord of PredictionLog protos, https://www.tensorflow.org/tfx/serving/saved_model_warmup. The protos are
those of the package tensorflow-serving-api, the extra `serving`; TensorFlow itself has none of them.
"""

import os
import pathlib
from collections.abc import Mapping

import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

FILE = "assets.extra/tf_serving_warmup_requests"
HOW_TO_GET_THEM = (
    "note: no warm-up requests were written, so TensorFlow Serving answers its first request slowly; for them, "
    "pip install 'tfcxr[serving]' and export again"
)


def write_requests(
    folder: str | os.PathLike, model: str, requests: Mapping[str, Mapping[str, tensor_pb2.TensorProto]]
) -> bool:
    """Writes one request for each signature, if the extra `serving` is installed.

    Args:
        folder: of the SavedModel.
        model: its name in the requests; the server goes by its own.
        requests: signature -> input -> value; see `tf.make_tensor_proto`.

    Returns:
        Whether they were written; if not, HOW_TO_GET_THEM is what a user should read.
    """
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError:
        return False
    path = pathlib.Path(folder) / FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.name, request.model_spec.signature_name = model, signature
            for name, value in inputs.items():
                request.inputs[name].CopyFrom(value)
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString(deterministic=True))
    return True
