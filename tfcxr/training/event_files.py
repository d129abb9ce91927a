"""TensorBoard's event files of a run that goes on: what was written of steps that will be done again leaves them."""

import os
import pathlib

import tensorflow as tf

from tfrecords_builder import files


def forget_after(folder: str | os.PathLike, step: int) -> None:
    """Takes the summaries of later steps out of the event files in a folder.

    TensorBoard would show such a step twice: it goes by SessionLog messages, which the writers of TensorFlow 2 do not
    write, and other readers know nothing of them. A record that a kill has cut short goes as well, and a file without
    a summary.

    Args:
        folder: of the files, not of folders in it.
        step: the last one that stays; -1: none.
    """
    for path in sorted(pathlib.Path(folder).glob("events.out.tfevents.*")):
        if path.is_file():
            _rewrite(path, step)


def _rewrite(path: pathlib.Path, step: int) -> None:
    kept, dropped = [], False
    try:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            if event.HasField("summary") and event.step > step:
                dropped = True
            else:
                kept.append((record, event.HasField("summary")))
    except tf.errors.DataLossError:
        dropped = True
    if not dropped:
        return
    if not any(is_summary for _, is_summary in kept):
        path.unlink()
        return
    with files.atomic_path(path) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
        for record, _ in kept:
            writer.write(record)
