"""What all commands share: flags, messages, and errors in one line."""

import logging as standard_logging
import sys
import traceback
from collections.abc import Callable, Iterable

import jax
from absl import app, flags, logging

from ddjax import parallel
from launch import stopping

_LEAST = {  # level of a message that is for people
    "/orbax/": standard_logging.CRITICAL,
    "/tensorflow_datasets/": standard_logging.ERROR,
}
_DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of an error.")


def main(
    run: Callable[..., None],
    names: Iterable[str],
    *,
    stopped: str,
    load: Callable[[], None] = lambda: None,
    positional: bool = False,
) -> None:
    """Runs `run()` as a program.

    An error that the user can mend is a ValueError and ends in one line; --debug shows
    where it came from. SIGTERM and Ctrl-C end in one line too, with the exit code that
    a shell gives them (143 and 130); a second one ends the program without a word.

    Args:
      run: what the program does.
      names: its flags, for --help to show them.
      stopped: said after a signal: what is left, and what to do.
      load: called when the flags are known; its errors are mistakes in them.
      positional: whether `run` is given what else is on the command line, word by
        word; else anything but flags is a mistake.
    """

    def program(arguments):
        _log_plainly()
        stopping.listen()
        try:
            run(*arguments[1:])
        except ValueError as error:
            if _DEBUG.value:
                traceback.print_exc()
            print(f"error: {error}", file=sys.stderr)
            parallel.fail(str(error))
            sys.exit(1)
        except stopping.Stopped as stop:
            reason, code = stop.asked
            print(f"\nstopped by {reason}. {stop.left or stopped}", file=sys.stderr)
            parallel.part()
            sys.exit(code)
        except Exception as error:
            traceback.print_exc()
            if isinstance(error, jax.errors.JaxRuntimeError):
                parallel.await_news()
            parallel.fail(f"{type(error).__name__}: {error}")
            raise

    for name in (*names, "debug"):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])
    app.run(program, flags_parser=lambda arguments: _parse(arguments, load, positional))


def main_with(definitions, run: Callable, *, stopped: str) -> None:
    """The same for a program whose flags are the arguments of its function.

    They are defined now and not on import, since two programs may have flags of the
    same name.

    Args:
      definitions: (absl's DEFINE function, name, its further arguments) of each flag.
      run: called with the flags' values by name.
      stopped: as in `main`.
    """
    found = {name: define(name, *more) for define, name, *more in definitions}

    def program():
        run(**{name: flag.value for name, flag in found.items()})

    main(program, found, stopped=stopped)


def _parse(arguments, load, positional):
    """Flags, with a mistake in them as a line instead of a traceback."""
    try:
        rest = flags.FLAGS(arguments)
        load()
    except (AttributeError, KeyError) as error:  # of ml_collections: no such field
        told = str(error).replace(r"\n", ". ").replace("\\", "").strip("'\"")
        sys.exit(f"error: the config has no such field: {told}")
    except (flags.Error, OSError, ValueError, TypeError) as error:
        # What a config file raises comes with its traceback; the last line counts.
        told = str(error).strip().splitlines()[-1].strip()
        sys.exit(f"error: {told.removeprefix('ValueError: ')}")
    if len(rest) > 1 and not positional:
        sys.exit(f"error: unknown argument {rest[1]!r}; see --help for the flags.")
    return rest


def _log_plainly() -> None:
    """Messages without the prefix that only developers read."""
    logging.use_absl_handler()
    logging.get_absl_handler().setFormatter(standard_logging.Formatter("%(message)s"))
    standard_logging.getLogger("jax").setLevel(standard_logging.WARNING)
    # Orbax and TFDS log through absl, as we do: only the file tells them apart.
    logging.get_absl_handler().addFilter(_is_for_people)


def _is_for_people(line) -> bool:
    """Not what orbax and TFDS tell their developers.

    Of errors TFDS is heard; orbax raises what it logs, and then it is said in one line.
    """
    return all(
        line.levelno >= least for part, least in _LEAST.items() if part in line.pathname
    )
