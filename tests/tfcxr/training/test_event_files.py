"""TensorBoard's files of a run that goes on: steps that will be done again are in them once."""

import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator

from tfcxr.training import event_files


def write(folder, steps, *, name="loss"):
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default():
        for step in steps:
            tf.summary.scalar(name, float(step), step=step)
            tf.summary.image("picture", tf.fill([1, 2, 2, 1], 0.5), step=step)
    writer.close()


def raw(folder):
    """(tag, step) of all summaries, by file."""
    found = []
    for path in sorted(folder.glob("events*")):
        events = tf.compat.v1.train.summary_iterator(str(path))
        found.append([(value.tag, event.step) for event in events for value in event.summary.value])
    return found


def shown(folder, tag="loss"):
    accumulator = event_accumulator.EventAccumulator(str(folder), {event_accumulator.TENSORS: 0})
    accumulator.Reload()
    # Files of one second are read by their names, of which that of a tenth stands before that of a ninth.
    return sorted(event.step for event in accumulator.Tensors(tag))


def test_later_steps_leave_the_files_and_earlier_ones_stay(tmp_path):
    write(tmp_path, [1, 2, 3])
    write(tmp_path, [4, 5])
    assert shown(tmp_path) == [1, 2, 3, 4, 5]
    first = sorted(tmp_path.glob("events*"))[0].stat()
    event_files.forget_after(tmp_path, 4)
    assert sorted(tmp_path.glob("events*"))[0].stat().st_ino == first.st_ino  # nothing to take out of it
    write(tmp_path, [5, 6])
    assert shown(tmp_path) == shown(tmp_path, "picture") == [1, 2, 3, 4, 5, 6]
    assert sorted(step for file in raw(tmp_path) for tag, step in file if tag == "loss") == [1, 2, 3, 4, 5, 6]
    event_files.forget_after(tmp_path, 2)
    assert raw(tmp_path) == [[("loss", 1), ("picture", 1), ("loss", 2), ("picture", 2)]]
    assert shown(tmp_path) == [1, 2]


def test_a_run_that_begins_anew_keeps_none(tmp_path):
    write(tmp_path, [0, 1])
    (tmp_path / "plugins").mkdir()
    event_files.forget_after(tmp_path, -1)
    assert [path.name for path in tmp_path.iterdir()] == ["plugins"]
    event_files.forget_after(tmp_path / "absent", -1)


@pytest.mark.parametrize("cut", [1, 30])
def test_a_record_that_a_kill_cut_short_goes(tmp_path, cut):
    write(tmp_path, [1, 2])
    (path,) = tmp_path.glob("events*")
    path.write_bytes(path.read_bytes()[:-cut])
    event_files.forget_after(tmp_path, 7)
    assert raw(tmp_path) == [[("loss", 1), ("picture", 1), ("loss", 2)]]
