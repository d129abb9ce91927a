"""Runs a binary: parses its flags, prints help, finds preset flagfiles, turns errors into one line and an exit code."""

import contextlib
import difflib
import errno
import io
import os
import pathlib
import re
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from absl import flags

from flags import common
from tfrecords_builder import errors, files
from tfrecords_builder.errors import InputError, Interrupted, RunError

PRESETS = pathlib.Path(__file__).parent / "presets"

# Presets that have a new name: the old one is still found.
_RENAMED_PRESETS = {"thesis/ours": "thesis/dcan_noreg"}
# Flags that help where memory is short.
_LESS_MEMORY = {
    "batch_size": "a smaller --batch_size",
    "passes": "more --passes",
    "batch_sizes": "smaller --batch_sizes (with --arch=prog)",
}

# Not part of a run's settings: a replay with --flagfile=flags.txt must not overwrite.
_NOT_REPLAYED = ("overwrite", "collect", "if_running")

_LONGEST_MESSAGE = 2000  # characters

# Flags of the folder that --overwrite empties.
_OUTPUTS = ("output_dir", "run_dir")


def run(
    main: Callable[[flags.FlagValues], int | None],
    define_flags: Callable[[flags.FlagValues], None],
    argv: Sequence[str] | None = None,
) -> int:
    """Runs a binary and returns its exit code.

    Args:
        main: gets the parsed flags; returns an exit code, or None for 0.
        define_flags: defines the binary's flags in the FlagValues that it is given.
        argv: program name and arguments; default sys.argv.

    Returns:
        0; 2 for a bad flag or input found before the work starts; 1 for a failure while running; 130 or 143 after a
        stop by SIGINT or SIGTERM.
    """
    argv = list(sys.argv if argv is None else argv)
    fv = None
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None where it is closed
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows ASCII only
    try:
        if any(a in ("--help", "-h", "-help", "--helpfull", "--helpshort") for a in argv[1:]):
            fv = flags.FlagValues()
            define_flags(fv)
            print(_help(main, fv, argv[0]), flush=True)
            return 0
        fv = parse(define_flags, argv)
        common.check_paths(fv)
        _refuse_sources(fv)
        with _sigterm_raises():
            return main(fv) or 0
    except (flags.Error, InputError) as error:
        return _fail(error, 2)
    except RunError as error:
        return _fail(error, 1)
    except Interrupted as error:
        return _fail(error, error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        _drop_output()  # its reader has gone (`| head`)
        return 1
    except Exception as error:
        message = _explain(error, fv)
        if message is None:
            raise
        try:
            sys.stdout.flush()
        except OSError:
            _drop_output()
        return _fail(message, 1)


def _drop_output() -> None:
    """What cannot be printed is dropped: Python would complain once more when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parse(define_flags: Callable[[flags.FlagValues], None], argv: Sequence[str]) -> flags.FlagValues:
    """Returns a binary's parsed flags, presets expanded; `argv` begins with the program's name.

    Raises InputError for an unknown flag, a bad value, or a preset that is not there.
    """
    fv = flags.FlagValues()
    define_flags(fv)
    rest = _parse(fv, [argv[0], *(_find_preset(a, b) for a, b in zip(argv[1:], argv[:-1], strict=True))])
    if len(rest) > 1:
        raise InputError(f"{rest[1]}: is not a flag (flags look like --name=value); see --help")
    return fv


def write_flags(fv: flags.FlagValues, folder: str | os.PathLike, name: str = "flags.txt") -> None:
    """Writes the resolved flags to `folder`/`name`; `--flagfile` replays them."""
    lines = [fv[flag].serialize() for flag in sorted(fv) if flag not in _NOT_REPLAYED]
    files.write_text(pathlib.Path(folder) / name, "".join(f"{line}\n" for line in lines if line))


def _refuse_sources(fv: flags.FlagValues) -> None:
    """Raises InputError if --overwrite would delete what another flag says is to be read."""
    if "overwrite" not in fv or not fv.overwrite:
        return
    paths = [flag for name in fv if isinstance(flag := fv[name], common.PathFlag) and flag.names_a_path]
    for output in (flag for flag in paths if flag.name in _OUTPUTS and not flag.reads):
        for source in (flag for flag in paths if flag.reads):
            files.refuse_source(
                str(output.value), str(source.value), flag=f"--{source.name}", output_flag=f"--{output.name}"
            )


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """SIGTERM becomes an exception, so that temporary files are removed; trainings answer it in their own way."""

    def stop(number: int, _: FrameType | None) -> None:
        raise Interrupted(number, "terminated")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _explain(error: Exception, fv: flags.FlagValues | None) -> str | None:
    """What the machine, or TensorFlow, could not do; None for an error of the program."""
    if errors.says_memory(error):
        helps = [text for name, text in _LESS_MEMORY.items() if fv is not None and name in fv]
        advice = f"give {' or '.join(helps)}, or " if helps else ""
        return f"the memory does not suffice ({errors.reason(error)}); {advice}end other programs that use the device"
    if errors.says_disk(error) or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
        return f"the disk is full ({errors.reason(error)}); free some space and give the same command again"
    if errors.is_of_tensorflow(error):
        return f"TensorFlow cannot go on: {errors.reason(error)} ({type(error).__name__})"
    return None


def _plain(error: flags.Error) -> str:
    """What absl says of flags, without the values of those that are not given."""
    return "; ".join(re.sub(r"^flag (--\S+=None: (?=--))?", "", line) for line in str(error).splitlines())


def _fail(message: object, code: int) -> int:
    text = " ".join(str(message).split())
    if len(text) > _LONGEST_MESSAGE:  # it tells a value, which may be of any length
        half = _LONGEST_MESSAGE // 2
        text = f"{text[:half]} [...] {text[-half:]}"
    print(f"error: {text}", file=sys.stderr, flush=True)
    return code


def _parse(fv: flags.FlagValues, argv: list[str]) -> list[str]:
    try:
        for argument in argv:
            argument.encode()
        return fv(argv)
    except flags.UnrecognizedFlagError as error:
        near = [name for name in sorted(fv) if error.flagname in name]
        near += difflib.get_close_matches(error.flagname, sorted(fv), n=2)
        advice = f"did you mean {' or '.join(f'--{name}' for name in dict.fromkeys(near))}?" if near else "see --help"
        raise InputError(f"--{error.flagname}: is not a flag of this command; {advice}") from error
    except flags.Error as error:
        if isinstance(error.__context__, OSError):  # of a flagfile that another one names
            raise _unreadable(error.__context__) from error
        raise InputError(_plain(error)) from error
    except UnicodeEncodeError as error:
        raise InputError(f"{error.object!a}: is not UTF-8 text; rename the file or folder") from error
    except UnicodeDecodeError as error:
        raise InputError("--flagfile: is not a text file of flags, one --name=value per line") from error
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: of a NUL in its name
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> InputError:
    name = f"={error.filename}" if isinstance(error, OSError) and error.filename else ""
    advice = "; presets are found by name on the command line only" if name else ""
    return InputError(f"--flagfile{name}: cannot be read ({getattr(error, 'strerror', None) or error}){advice}")


def _find_preset(argument: str, before: str) -> str:
    """Resolves a flagfile that is not here as a preset: `demo/train_gan` or `flags/presets/demo/train_gan.flags`."""
    if argument.startswith(("--flagfile=", "-flagfile=")):
        head, name = argument.split("=", 1)
        head += "="
    elif before in ("--flagfile", "-flagfile"):
        head, name = "", argument
    else:
        return argument
    if _is_there(name):
        files.check_regular(name, "--flagfile")
        return argument
    name = _RENAMED_PRESETS.get(name.removesuffix(".flags").removeprefix("flags/presets/"), name)
    for candidate in (PRESETS / name, PRESETS / f"{name}.flags", PRESETS.parent.parent / name):
        if candidate.is_file():
            return f"{head}{candidate}"
    near = difflib.get_close_matches(name, _preset_names(), n=3)
    advice = f"did you mean {' or '.join(near)}?" if near else "--help lists the presets"
    raise InputError(f"--flagfile={name}: no such file, and no preset of that name; {advice}")


def _is_there(name: str) -> bool:
    try:
        return pathlib.Path(name).exists()
    except (OSError, ValueError) as error:  # a name too long, a link to itself, a NUL byte
        raise InputError(f"--flagfile={name}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def _preset_names() -> list[str]:
    return sorted(str(path.relative_to(PRESETS).with_suffix("")) for path in PRESETS.rglob("*.flags"))


def _fits(preset: str, fv: flags.FlagValues) -> bool:
    """Whether a preset is of flags that a command has."""
    text = (PRESETS / f"{preset}.flags").read_text()
    names = re.findall(r"^--(?!flagfile)(\w+)", text, re.MULTILINE)
    return bool(names) and all(name in fv or name.removeprefix("no") in fv for name in names)


def _help(main: Callable, fv: flags.FlagValues, program: str) -> str:
    doc = textwrap.dedent(sys.modules[main.__module__].__doc__ or "").strip()
    name = pathlib.Path(program).stem
    lines = [doc, "", f"Usage: {name} --flag=value ...", "", "Flags:"]
    for key in sorted(fv):
        flag = fv[key]
        if key != flag.name:  # a short name
            continue
        default = "" if flag.default in (None, [], "") else f" [{flag.default_as_str}]".replace("'", "")
        # absl adds this to the help of flags that may be given more than once.
        text = " ".join((flag.help or "").split()).replace("; repeat this option to specify a list of values", "")
        entry = f"{text}{default}"
        lines += textwrap.wrap(f"--{key}  {entry}", 118, initial_indent="  ", subsequent_indent="      ")
    lines += ["", "  --flagfile  reads flags from a file or a preset; flags that stand after it win."]
    presets = ", ".join(preset for preset in _preset_names() if _fits(preset, fv))
    if presets:
        text = f"Presets for this command: {presets}"
        gap = " " * 6
        lines += textwrap.wrap(text, 118, initial_indent=gap, subsequent_indent=gap, break_on_hyphens=False)
    return "\n".join(lines)
