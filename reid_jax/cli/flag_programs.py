"""Common parts of the programs that take recipes: flags, help, and their start."""

import contextlib
import faulthandler
from collections.abc import Iterator, Sequence

from absl import flags, logging

from reid_jax.cli.leaf_help import wrapped
from reid_jax.runtime.messages import clear_errors, counted, open_standard_streams, say, shown

_HELP = ("-h", "-help", "--help", "-helpshort", "--helpshort", "-helpfull", "--helpfull")
# A flag of absl's, for messages of libraries.
_VERBOSITY = "verbosity"


def new_flags() -> flags.FlagValues:
    """Define the common flags: `--workdir`, `--traceback` and those for hosts."""
    values = flags.FlagValues()
    values[_VERBOSITY] = flags.FLAGS[_VERBOSITY]
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values, required=True)
    flags.DEFINE_bool("traceback", False, "Show where an error came from.", flag_values=values)
    return values


def define_host_flags(values: flags.FlagValues) -> None:
    """Define the flags of a program for several hosts, see `runtime.hosts.joined`."""
    flags.DEFINE_string(
        "coordinator",
        None,
        "HOST:PORT of the first of several hosts; auto on TPU pods and SLURM.",
        flag_values=values,
    )
    flags.DEFINE_integer("processes", None, "Number of hosts; not with auto.", flag_values=values)
    flags.DEFINE_integer(
        "process", None, "Index of this host, from 0; not with auto.", flag_values=values
    )
    flags.DEFINE_integer(
        "heartbeat",
        100,
        "Seconds after which a silent host counts as dead.",
        lower_bound=1,
        flag_values=values,
    )


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether one of the arguments is `--help`."""
    return any(argument in _HELP for argument in arguments)


def describe(values: flags.FlagValues) -> str:
    """Format the flags of a program for its help, without `--config`."""
    entries = []
    for name in values:
        flag = values[name]
        if name in (_VERBOSITY, flags.FLAGS[_VERBOSITY].short_name, "config"):
            continue
        choices = getattr(flag.parser, "enum_values", None)
        value = "" if flag.boolean else "=" + ("|".join(choices) if choices else "VALUE")
        text = flag.help.removeprefix(f"<{'|'.join(choices or ())}>: ")
        if flag.default not in (None, False):
            text += f" Default: {flag.default}."
        entries.append(f"  --{name}{value}\n{wrapped(text, 6)}")
    return "\n".join(entries)


def parse(values: flags.FlagValues, argv: Sequence[str]) -> None:
    """Parse the arguments, which begin with the program's name.

    Raises:
        ValueError: an argument is unknown, is not a flag, or has a value of another type.
    """
    try:
        rest = values(list(argv))
    except flags.Error as error:
        raise ValueError(str(error)) from error
    if len(rest) > 1:
        raise ValueError(f"unknown argument {rest[1]!r}: flags begin with --")


@contextlib.contextmanager
def started(values: flags.FlagValues, work: str) -> Iterator[None]:
    """A context for the work of a program: memory, caches, hosts, and clear errors.

    Args:
        values: the parsed flags, `config` among them.
        work: what the program is about to do, for the first line that it prints.
    """
    with clear_errors(values.traceback):
        open_standard_streams()
        _announce(values, work)
        from reid_jax.runtime import hosts
        from reid_jax.runtime.allocator import keep_freed_memory
        from reid_jax.runtime.compilation_cache import keep_compiled

        logging.use_absl_handler()
        # Standard error may be no file, or closed.
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            faulthandler.enable()
        keep_freed_memory()
        keep_compiled()
        joined = hosts.joined(
            values.coordinator,
            values.processes,
            values.process,
            heartbeat_timeout=values.heartbeat,
        )
        with joined, clear_errors(values.traceback):
            yield


def _announce(values: flags.FlagValues, work: str) -> None:
    """Print what is about to be read and where, before JAX is imported, which takes seconds."""
    # JAX determines with `auto` which host is the first, the only one to print.
    if values.process or values.coordinator == "auto":
        return
    # The recipe is checked later.
    data = values.config.get("data", {})
    libraries = "JAX and TensorFlow" if data.get("loader") == "tfdata" else "JAX"
    place = f" in {shown(data['root'])}" if data.get("root") else ""
    others = len(data.get("also") or ())
    also = f" and {counted(others, 'more dataset')}" if others else ""
    say(f"loading {libraries} to {work} on {data.get('layout')} data{place}{also}")
