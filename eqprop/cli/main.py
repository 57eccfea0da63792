"""The command ``eqprop``: finds the subcommand, and turns what goes wrong into a line and a code.

Exit codes: 0, done; 1, failed; 2, what was typed cannot be done; 130 and 143, stopped by Ctrl-C or
by the system, as the shell has it.
"""

import errno
import importlib
import importlib.metadata
import io
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from typing import NamedTuple, final

from eqprop.errors import EqpropError, UsageError, suggest


@final
class Command(NamedTuple):
    """A subcommand: what follows ``eqprop`` on the line, and what it does."""

    usage: str
    about: str


COMMANDS: dict[str, Command] = {
    "list": Command("list", "recipes, with the published results"),
    "data": Command("data PATH [options]", "what would be trained on, of data of your own"),
    "train": Command("train RECIPE [options]", "train a network, from the beginning"),
    "resume": Command("resume RUN [--epochs E]", "go on with a training that was stopped"),
    "evaluate": Command("evaluate RUN", "loss and error of a run, and what it mistakes for what"),
    "predict": Command("predict RUN --data PATH", "what a trained network makes of other data"),
    "export": Command("export RUN FILE", "the weights of a trained network, for other programs"),
    "report": Command("report RUN ...", "one HTML page on runs: results, curves, what was learnt"),
    "verify": Command("verify RECIPE [options]", "compare a rule's updates with BPTT gradients"),
    "reproduce": Command("reproduce NAME ...", "tables and figures of the paper, within a time"),
    "sweep": Command("sweep RECIPE [options]", "train over values of fields, and compare"),
    "device": Command("device RECIPE --device NAME", "what a network would learn on a device"),
    "bench": Command("bench [RECIPE ...]", "seconds per epoch on this machine, next to NumPy's"),
}
"""Each is the function ``run(args)`` of the module ``eqprop.cli.<name>``."""


_INTERRUPTED = 128 + signal.SIGINT
_LEAST_COLUMNS = 40


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line, that of the process unless given, and returns its exit code."""
    if argv is None:
        argv = sys.argv[1:]
        _prepare_process()
    debug = "--debug" in argv
    try:
        return _run([arg for arg in argv if arg != "--debug"])
    except SystemExit as end:
        return int(end.code or 0)
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nobody is left to tell.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return 1
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            raise
        print(f"eqprop: {_explain(error)}", file=sys.stderr)
        return _code(error)


def _run(args: list[str]) -> int:
    if not args or args[0] in {"-h", "--help", "help"}:
        print(_help())
        return 0 if args else 2
    name, *rest = args
    if name == "--version":
        print(f"eqprop {importlib.metadata.version('eqprop')}")
        return 0
    if name not in COMMANDS:
        raise UsageError(f"unknown command {suggest(name, COMMANDS)} (see eqprop --help)")
    importlib.import_module(f"eqprop.cli.{name}").run(rest)
    return 0


def _help() -> str:
    width = max(len(command.usage) for command in COMMANDS.values())
    lines = [f"  eqprop {usage:{width}}  {about}" for usage, about in COMMANDS.values()]
    return "\n".join(
        [
            "Equilibrium Propagation: networks that learn by relaxing.",
            "",
            *lines,
            "",
            "Start with: eqprop train ep-1h --epochs 3",
            "--help after a command tells more; --debug, anywhere, shows where an error came from.",
        ]
    )


def _explain(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, EqpropError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "interrupted"
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        return f"{error.strerror}{where}{'; make room, and try again' if full else ''}"
    if not _has_device():
        wanted = os.environ.get("JAX_PLATFORMS")
        return f"JAX_PLATFORMS is {wanted!r}, and JAX finds no such device: correct or unset it"
    lines = str(error).splitlines()
    return (
        f"internal error, {type(error).__name__}: {lines[0] if lines else 'no message'} "
        "(--debug shows where; please report it)"
    )


def _has_device() -> bool:
    """Whether JAX, where it has been loaded, finds the devices that it was told to use."""
    if "jax" not in sys.modules or not os.environ.get("JAX_PLATFORMS"):
        return True
    try:
        return bool(sys.modules["jax"].devices())
    except Exception:  # of several kinds: JAX asserts, too
        return False


def _code(error: BaseException) -> int:
    if isinstance(error, EqpropError):
        return error.exit_code
    return _INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1


def _prepare_process() -> None:
    """What must not be done where Python is somebody else's: in a notebook, or a test."""
    import pooch

    # Closed (`>&-`), they are None, which not all that prints can bear.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # not every terminal has a plus-minus sign
    if os.environ.get("NO_COLOR"):  # https://no-color.org; tyro has a variable of its own
        os.environ.setdefault("PYTHON_TYRO_ANSI_CODES", "False")
    # Help needs some columns; in one it takes tyro for ever.
    if shutil.get_terminal_size().columns < _LEAST_COLUMNS:
        os.environ["COLUMNS"] = str(_LEAST_COLUMNS)
    # Figures go to files; what this names, right or wrong, is for windows.
    os.environ["MPLBACKEND"] = "agg"
    # JAX keeps what it compiles, so that the next start is quick; the user's own setting wins. By
    # variables, for JAX is not loaded yet, and may not be needed at all.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pooch.os_cache("eqprop") / "xla"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
