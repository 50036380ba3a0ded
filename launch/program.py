"""What all programs of an experiment share: its config, and the compile cache."""

import os
import pathlib
from collections.abc import Callable

import jax
from absl import flags
from ml_collections import config_flags

from launch import command, history, pod

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
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Print what the config takes (shapes, memory, time), and stop."
)
_TENSORBOARD = flags.DEFINE_bool(
    "tensorboard",
    False,
    "Write the losses for TensorBoard too, in each stage's folder.",
)
_PURPOSES = ("squeeze", "barycenter", "recover", "views", "student")


def key(config, purpose: str, seed: int = 0) -> jax.Array:
    """A key for one purpose and one distilled set; no two share any."""
    key = jax.random.fold_in(jax.random.key(config.seed), _PURPOSES.index(purpose))
    return jax.random.fold_in(key, seed)


def main(run: Callable, *, positional: bool = False) -> None:
    """Runs `run(config, workdir, *arguments)` as a program; see `command.main`.

    Ctrl-C leaves what is done on disk.
    """

    def program(*arguments):
        enable_compile_cache()
        if _TENSORBOARD.value:
            history.enable_tensorboard()
        if _DRY_RUN.value:
            from launch import plan  # which imports the programs

            return plan.show(_CONFIG.value, pod.told())
        pod.refuse()
        workdir = _WORKDIR.value or os.path.join("runs", _CONFIG.value.name)
        run(_CONFIG.value, workdir, *arguments)

    command.main(
        program,
        ("config", "workdir", "dry_run", *pod.FLAGS, "tensorboard"),
        stopped="The same command goes on from the last checkpoint.",
        load=lambda: _CONFIG.value.name,  # raises what loading the file has raised
        positional=positional,
    )


def enable_compile_cache() -> None:
    """Keeps compiled programs in ~/.cache/ddjax between runs, small ones too."""
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if folder is None:
        cache = os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))
        jax.config.update("jax_compilation_cache_dir", os.path.join(cache, "ddjax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
