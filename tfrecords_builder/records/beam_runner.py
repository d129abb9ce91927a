"""Runs the shard jobs of a build as an Apache Beam pipeline; the only user of Beam.

The elements are the jobs, one per shard; each worker writes its shards and their parts with the same function as the
local runner, so the output is the same. Every worker must see the images and the output folder under the same paths.

https://beam.apache.org/documentation/
"""

import contextlib
import io
import logging
import shlex
from collections.abc import Iterator, Sequence

from tfrecords_builder.errors import InputError, RunError
from tfrecords_builder.records import writing

_RUNNING = " [while running"  # what Beam adds to a message


def run_with_beam(options: str) -> writing.Runner:
    """A runner that hands the jobs to Beam.

    Args:
        options: Beam's pipeline options, separated by blanks, such as
            `--runner=DirectRunner --direct_num_workers=2 --direct_running_mode=multi_processing`; empty: Beam's
            defaults, one process here.

    Raises:
        InputError: Beam is not installed, or does not know an option. The runner itself raises RunError if the
            pipeline fails.
    """
    with _quiet():
        try:
            import apache_beam as beam
            from apache_beam.options import pipeline_options
        except ImportError as error:
            raise InputError(
                f"--runner=beam: Apache Beam is not installed ({error}); pip install 'tfcxr[beam]'"
            ) from error
        usage = io.StringIO()
        try:
            words = shlex.split(options)
        except ValueError as error:
            raise InputError(f"--beam_options={options}: {error}") from error
        if words and not words[0].startswith("--"):  # Beam ignores it
            raise InputError(f"--beam_options={options}: {words[0]} is no option; options look like --name=value")
        try:
            with contextlib.redirect_stderr(usage):
                parsed = pipeline_options.PipelineOptions(words)
                known = set(parsed.get_all_options())
                given = set(parsed.get_all_options(drop_default=True, retain_unknown_options=True))
        except SystemExit as error:  # how its parser answers a bad value
            reason = usage.getvalue().strip().splitlines()[-1].partition("error: ")[2]
            raise InputError(f"--beam_options={options}: {reason}") from error
    if given - known:
        raise InputError(f"--beam_options={options}: Beam has no option --{sorted(given - known)[0]}")

    def run(jobs: Sequence[writing.ShardJob], total: int, initial: int) -> None:
        print(f"writing {total - initial} images in {len(jobs)} shards with Beam", flush=True)
        try:
            with _quiet(), beam.Pipeline(options=parsed) as pipeline:
                # Without the reshuffle Beam fuses the list and the work, and one worker gets all of it.
                _ = pipeline | beam.Create(list(jobs)) | beam.Reshuffle() | beam.Map(writing.write_shard)
        except Exception as error:
            raise _as_run_error(error) from error

    return run


def _as_run_error(error: Exception) -> RunError:
    """The line of Beam's report that names the fault: Beam wraps a worker's exception, with its traceback as text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(error, RunError):
        return RunError(lines[0].split(_RUNNING)[0])
    for line in lines:
        if "RunError: " in line:
            return RunError(line.split("RunError: ", 1)[1].split(_RUNNING)[0])
    return RunError(f"the Beam pipeline failed: {lines[-1]}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Beam's warnings and the tracebacks of its workers out of the terminal; the exception tells the fault."""
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
