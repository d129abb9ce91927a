"""The constant matrix that stands for resize and crop in ONNX; test_export_and_predict.py tests the whole file."""

import numpy as np
import pytest
import tensorflow as tf

from tfcxr.classifiers.networks import preprocessing
from tfcxr.serving import onnx_export


@pytest.mark.parametrize("framing", ["crop", "whole"])
@pytest.mark.parametrize(("resolution", "image_size"), [(64, 32), (16, 32), (37, 32)])
def test_framing_matrix_is_the_framing_of_evaluation(resolution, image_size, framing):
    matrix = onnx_export.framing_matrix(resolution, image_size, framing)
    assert matrix.shape == (image_size, resolution)
    image = np.random.default_rng(0).random((resolution, resolution), np.float32)
    framed = preprocessing.frame(tf.constant(image[None, ..., None]), image_size, framing)[0, ..., 0]
    np.testing.assert_allclose(matrix @ image @ matrix.T, framed, atol=1e-6)
