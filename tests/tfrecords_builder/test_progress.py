"""Progress off a terminal: plain lines with rate and time left."""

import re

from tfrecords_builder.progress import progress


def test_prints_lines_and_counts_from_where_an_earlier_run_stopped(capsys):
    with progress(100, "writing", interval=0.0, initial=40) as bar:
        bar.update(10)
        bar.update(50)
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"writing: 50/100 images \(.+/s, \d+ s left\)", lines[0])
    assert lines[-1].startswith("writing: 100/100 images (")
    assert "left" not in lines[-1]


def test_an_unknown_total(capsys):
    with progress(0, "reading", "rows") as bar:
        bar.update(3)
    assert re.fullmatch(r"reading: 3 rows \(.+/s\)\n", capsys.readouterr().err)
