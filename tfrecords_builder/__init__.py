"""Label tables and images -> label versions -> TFRecords. Importing it prepares TensorFlow's environment."""

from tfrecords_builder import tensorflow_environment

tensorflow_environment.prepare()
