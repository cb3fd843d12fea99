"""`reid-jax`: the commands, and the modules that run them."""

import difflib
import importlib
import sys

import reid_jax
from reid_jax.runtime.messages import open_standard_streams, say, say_to_stderr

#: Each command with its description and its module in `reid_jax.cli`, whose `main` runs it.
COMMANDS = {
    "train": ("train a network by a recipe, or continue a run", "train"),
    "eval": ("evaluate a run, draw figures, write a report", "evaluate"),
    "search": ("find the gallery images that look most like a query", "search"),
    "export": ("write a trained network as StableHLO and ONNX", "export"),
    "pack": ("pack a run into one file to hand over", "pack"),
    "split": ("make train, query and gallery from photographs", "split"),
    "weights": ("convert ImageNet weights and the authors' checkpoints", "weights"),
    "reproduce": ("run the rows of a paper's table", "reproduce"),
}


def main(arguments: list[str] | None = None) -> None:
    """Run a command line.

    Args:
        arguments: those after the program's name; None means `sys.argv[1:]`.
    """
    open_standard_streams()
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help", "help"):
        say(_help())
    elif name == "--version":
        say(f"reid-jax {reid_jax.__version__}")
    elif name in COMMANDS:
        importlib.import_module(f"reid_jax.cli.{COMMANDS[name][1]}").main(rest)
    else:
        meant = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {meant[0]}?" if meant else f"commands: {', '.join(COMMANDS)}"
        say_to_stderr(f"reid-jax: there is no command {name!r}; {hint}")
        sys.exit(2)


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, (what, _) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: reid-jax COMMAND [arguments]",
            "",
            "Person re-identification in JAX.",
            "",
            "commands:",
            *lines,
            "",
            "reid-jax COMMAND --help explains a command, reid-jax --version prints the version.",
        ]
    )
