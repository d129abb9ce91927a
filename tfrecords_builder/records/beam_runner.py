"""Runs the shard jobs of a build as an Apache Beam pipeline; the only user of Beam, and of Dask.

The elements are the jobs, one per shard; each worker writes its shards and their parts with the same function as the
local runner, so the output is the same. Every worker must see the images and the output folder under the same paths.

https://beam.apache.org/documentation/
"""

import asyncio
import contextlib
import io
import logging
import re
import shlex
import socket
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from tfrecords_builder import files
from tfrecords_builder.errors import InputError, Interrupted, RunError
from tfrecords_builder.records import writing

_RUNNING = " [while running"  # what Beam adds to a message
_DASK = "dask"
_SECONDS = 10.0  # that a scheduler or job server has to answer
# Of every run, and about nothing that a pipeline of ours does.
_IDLE_WARNINGS = (
    "apitools not found",
    "No semi_persistent_directory found",
    "Discarding unparseable args",
    "Sending large graph",
)
_OF_GRPC = re.compile(r'\bdetails = "(.+)"')  # in its errors, which are of many lines
_OF_A_WORKER = re.compile(r'\bmessage: "(.*?)(\\n|" )')  # in the record of a worker's log that Beam prints


def run_with_beam(options: str) -> writing.Runner:
    """A runner that hands the jobs to Beam.

    Args:
        options: Beam's pipeline options, separated by blanks, such as
            `--runner=DirectRunner --direct_num_workers=2 --direct_running_mode=multi_processing` or
            `--runner=DaskRunner --dask_client_address=tcp://host:8786`; empty: Beam's defaults, one process here.

    Raises:
        InputError: Beam or Dask is not installed, Beam does not know an option or the runner, or no Dask scheduler
            answers. The runner itself raises RunError if the pipeline fails.
    """
    with _warnings_as_lines():
        try:
            import apache_beam as beam
            from apache_beam.options import pipeline_options
            from apache_beam.runners import runner as runners
        except ImportError as error:
            raise InputError(
                f"--runner=beam: Apache Beam is not installed ({error}); pip install 'tfcxr[beam]'"
            ) from error
        if _DASK in options.lower():
            try:  # Beam knows this runner and its options only once it is imported
                from apache_beam.runners.dask import dask_runner
            except ImportError as error:
                raise InputError(
                    f"--beam_options={options}: Dask is not installed ({error}); pip install 'tfcxr[beam]'"
                ) from error
        parsed = _parse(options, pipeline_options.PipelineOptions)
        name = parsed.view_as(pipeline_options.StandardOptions).runner or "DirectRunner"
        on_dask = _DASK in name.lower()
        try:
            engine = dask_runner.DaskRunner() if on_dask else runners.create_runner(name)
        except (ImportError, ValueError) as error:
            raise InputError(f"--beam_options={options}: {error}") from error
        _check_job_server(options, parsed.view_as(pipeline_options.PortableOptions).job_endpoint)
        workers = parsed.view_as(pipeline_options.WorkerOptions)
        if "direct" in name.lower() and not workers.default_sdk_harness_log_level:
            workers.default_sdk_harness_log_level = "CRITICAL"  # what goes wrong there is told by the exception here
        if on_dask:
            dask = parsed.view_as(dask_runner.DaskOptions)
            if not dask.npartitions and not dask.partition_size:
                dask.partition_size = 1  # Beam's 128 would put most builds on one worker
            _check_scheduler(options, dask)

    def run(jobs: Sequence[writing.ShardJob], total: int, initial: int) -> None:
        print(f"writing {total - initial} images in {len(jobs)} shards with Beam", flush=True)
        with _warnings_as_lines(), contextlib.ExitStack() as stack:
            if on_dask and not dask.address and not dask.scheduler_file:
                dask.address = stack.enter_context(_start_dask()).scheduler_address
            pipeline = beam.Pipeline(runner=engine, options=parsed)
            stack.callback(_disconnect, pipeline)
            try:
                with pipeline:
                    # Without the reshuffle Beam fuses the list and the work, and one worker gets all of it.
                    _ = pipeline | beam.Create(list(jobs)) | beam.Reshuffle() | beam.Map(writing.write_shard)
            except Interrupted:
                raise
            except Exception as error:
                raise _as_run_error(error) from error

    return run


def _parse(options: str, kind: Any) -> Any:
    """Beam's PipelineOptions, which is `kind`. Raises InputError for what Beam does not know, or ignores."""
    usage = io.StringIO()
    try:
        words = shlex.split(options)
    except ValueError as error:
        raise InputError(f"--beam_options={options}: {error}") from error
    if words and not words[0].startswith("--"):  # Beam ignores it
        raise InputError(f"--beam_options={options}: {words[0]} is no option; options look like --name=value")
    try:
        with contextlib.redirect_stderr(usage):
            parsed = kind(words)
            known = set(parsed.get_all_options())
            given = set(parsed.get_all_options(drop_default=True, retain_unknown_options=True))
    except SystemExit as error:  # how its parser answers a bad value
        reason = usage.getvalue().strip().splitlines()[-1].partition("error: ")[2]
        raise InputError(f"--beam_options={options}: {reason}") from error
    if given - known:
        raise InputError(f"--beam_options={options}: Beam has no option --{sorted(given - known)[0]}")
    return parsed


def _check_job_server(options: str, endpoint: str | None) -> None:
    """Raises InputError if no job server listens where the options say: Beam would wait for it, in silence."""
    if not endpoint or endpoint == "embed":  # which Beam starts
        return
    host, _, port = endpoint.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(
            f"--beam_options={options}: no job server answers at {endpoint} ({error}); start one and give its address "
            "as host:port, or embed for one that Beam starts here"
        ) from error


def _check_scheduler(options: str, dask: Any) -> None:
    """Raises InputError if no scheduler answers where Dask's options say; nothing if they leave it to us to start one.

    Dask itself would wait: for a file for ever, and for an address in each of its calls.
    """
    if not dask.address and not dask.scheduler_file:
        return
    remedy = "start one (`dask scheduler`) and give the address that it prints, such as tcp://host:8786"
    seconds = dask.timeout if isinstance(dask.timeout, int) else _SECONDS
    try:
        address = dask.address or files.read_json(dask.scheduler_file)["address"]
        workers = asyncio.run(asyncio.wait_for(_workers_of(address), seconds))
    except Exception as error:  # of sockets, addresses, files: of many kinds
        where = dask.address or dask.scheduler_file
        reason = (str(error).splitlines() or ["no answer"])[0]
        raise InputError(
            f"--beam_options={options}: no Dask scheduler answers at {where} ({reason}); {remedy}"
        ) from error
    if not workers:
        _print_warning("the Dask scheduler has no workers yet, and the build waits for them; start some: dask worker")


async def _workers_of(address: str) -> Any:
    """The workers of a Dask scheduler, by address; raises what Dask does if none answers."""
    import distributed

    # Not a Client, which complains for 20 seconds after it could not connect.
    arguments = distributed.Security().get_connection_args("client")
    async with distributed.rpc(address, connection_args=arguments) as scheduler:
        return (await scheduler.identity())["workers"]


def _start_dask() -> Any:
    """A Dask cluster of this machine, whose workers keep their tracebacks to themselves: the exception comes here."""
    import distributed

    return distributed.LocalCluster(silence_logs=logging.CRITICAL, dashboard_address=":0")


def _disconnect(pipeline: Any) -> None:
    """Tells Dask to drop what is left of a pipeline; Beam leaves the connection open."""
    client = getattr(getattr(pipeline, "result", None), "client", None)
    if client is not None:
        client.close()


def _as_run_error(error: Exception) -> RunError:
    """The line of Beam's report that names the fault: Beam wraps a worker's exception, with its traceback as text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(error, RunError):
        return RunError(lines[0].split(_RUNNING)[0])
    for line in lines:
        if "RunError: " in line:
            return RunError(line.split("RunError: ", 1)[1].split(_RUNNING)[0])
    details = _OF_GRPC.search(str(error))
    return RunError(f"the Beam pipeline failed: {details[1] if details else lines[-1]}")


class _Lines(logging.Handler):
    """Prints what Beam, Dask and gRPC warn of, each a line, each once; without what the pipeline's exception tells."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = logging.Formatter().format(record)
        if RunError.__name__ not in text and not _OF_GRPC.search(text):
            self.show(record.getMessage(), record.name.partition(".")[0])

    def show(self, message: str, source: str) -> None:
        of_worker = _OF_A_WORKER.search(message)
        lines = (of_worker[1] if of_worker else message).strip().splitlines() or [""]
        line = lines[-1] if lines[0].startswith("Traceback ") else lines[0]
        if line and line not in self._printed and not line.startswith(_IDLE_WARNINGS):
            self._printed.add(line)
            _print_warning(f"{source}: {line}")


def _print_warning(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Whatever is logged meanwhile is printed as `_Lines` does, and so are Python's warnings."""
    lines = _Lines()
    others = [logger for logger in logging.root.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    before = {
        logger: logger.handlers for logger in [logging.root, *others] if logger.handlers or logger is logging.root
    }
    shown = warnings.showwarning
    try:
        for logger in before:
            logger.handlers = [lines]
        warnings.showwarning = lambda message, kind, *_, **__: lines.show(
            str(message), kind.__module__.partition(".")[0]
        )
        yield
    finally:
        warnings.showwarning = shown
        for logger, handlers in before.items():
            logger.handlers = handlers
