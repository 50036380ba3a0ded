"""What all programs share: flags, one-line errors, and the compile cache."""

import logging as standard_logging
import os
import pathlib
import sys
from collections.abc import Callable

import jax
from absl import app, flags, logging
from ml_collections import config_flags

_ROOT = pathlib.Path(__file__).parent.parent
_CONFIG = config_flags.DEFINE_config_file(
    "config",
    str(_ROOT / "configs" / "default.py"),
    "The experiment: a file of configs/, with ':quick' behind it for a short run.",
    lock_config=True,
)
_WORKDIR = flags.DEFINE_string(
    "workdir", "", "Where artifacts are kept; runs/<name of the config> by default."
)
_DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of an error.")
_PURPOSES = ("squeeze", "barycenter", "recover", "views", "student")


def key(config, purpose: str, seed: int = 0) -> jax.Array:
    """A key for one purpose and one distilled set; no two share any."""
    key = jax.random.fold_in(jax.random.key(config.seed), _PURPOSES.index(purpose))
    return jax.random.fold_in(key, seed)


def main(run: Callable) -> None:
    """Runs `run(config, workdir)` as a program.

    An error that the user can mend is a ValueError and ends in one line; --debug shows
    where it came from. Ctrl-C leaves what is done on disk.
    """

    def program(arguments):
        del arguments  # none are left: see _parse
        _log_plainly()
        enable_compile_cache()
        workdir = _WORKDIR.value or os.path.join("runs", _CONFIG.value.name)
        try:
            run(_CONFIG.value, workdir)
        except ValueError as error:
            if _DEBUG.value:
                raise
            sys.exit(f"error: {error}")
        except KeyboardInterrupt:
            sys.exit("\nstopped. The same command goes on from the last checkpoint.")

    for name in ("config", "workdir", "debug"):  # for --help to show them
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])
    app.run(program, flags_parser=_parse)


def _parse(arguments):
    """Flags, with a mistake in them as a line instead of a traceback."""
    try:
        rest = flags.FLAGS(arguments)
        _CONFIG.value.name  # noqa: B018  (raises what loading the file has raised)
    except (AttributeError, KeyError) as error:  # of ml_collections: no such field
        told = str(error).replace(r"\n", ". ").replace("\\", "").strip("'\"")
        sys.exit(f"error: the config has no such field: {told}")
    except (flags.Error, OSError, ValueError, TypeError) as error:
        # What a config file raises comes with its traceback; the last line counts.
        told = str(error).strip().splitlines()[-1].strip()
        sys.exit(f"error: {told.removeprefix('ValueError: ')}")
    if len(rest) > 1:
        sys.exit(f"error: unknown argument {rest[1]!r}; see --help for the flags.")
    return rest


def _log_plainly() -> None:
    """Messages without the prefix that only developers read."""
    logging.use_absl_handler()
    logging.get_absl_handler().setFormatter(standard_logging.Formatter("%(message)s"))
    standard_logging.getLogger("jax").setLevel(standard_logging.WARNING)
    # Orbax logs through absl, as we do: only the file tells them apart.
    logging.get_absl_handler().addFilter(
        lambda line: (
            line.levelno >= standard_logging.ERROR or "/orbax/" not in line.pathname
        )
    )


def enable_compile_cache() -> None:
    """Keeps compiled programs in ~/.cache/ddjax between runs, small ones too."""
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if folder is None:
        cache = os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))
        jax.config.update("jax_compilation_cache_dir", os.path.join(cache, "ddjax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
