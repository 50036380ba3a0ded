"""What all programs of an experiment share: its config and how they begin and end."""

import contextlib
import os
import pathlib
from collections.abc import Callable

import jax
from absl import flags
from ml_collections import config_flags

from ddjax import parallel
from launch import cache, command, history, hosts, pod, profile

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
_PROFILE = flags.DEFINE_bool(
    "profile",
    False,
    "Write a trace of a few steps of each loop, in its stage's folder.",
)
_PURPOSES = ("squeeze", "barycenter", "recover", "views", "student", "attack", "pool")
_PURPOSES += ("generator", "autoencoder", "surrogates", "image")


def key(config, purpose: str, seed: int = 0) -> jax.Array:
    """A key for one purpose and one distilled set; no two share any."""
    key = jax.random.fold_in(jax.random.key(config.seed), _PURPOSES.index(purpose))
    return jax.random.fold_in(key, seed)


def main(
    run: Callable,
    *,
    positional: bool = False,
    alone: bool = True,
    enter: Callable = lambda config: None,
) -> None:
    """Runs `run(config, workdir, *arguments)` as a program; see `command.main`.

    A signal leaves what is done on disk.

    Args:
      run: what the program does.
      positional: whether `run` has further arguments.
      alone: whether no other program may run in the workdir meanwhile; one that only
        reads there is run by the first of many hosts.
      enter: called with the config, to enter what flags of the program's own say: all
        that reads it then sees the same.
    """

    def program(*arguments):
        hosts.join()
        cache.enable()
        if _TENSORBOARD.value:
            history.enable_tensorboard()
        if not _DRY_RUN.value:
            pod.refuse()
        hosts.check(_CONFIG.value)
        _run(run, arguments, alone)
        parallel.leave()

    def load():
        _ = _CONFIG.value.name  # raises what loading the file has raised
        enter(_CONFIG.value)

    command.main(
        program,
        (
            *("config", "workdir", "dry_run", "tensorboard", "profile"),
            *hosts.FLAGS,
            *pod.FLAGS,
        ),
        stopped="The same command goes on from the last checkpoint.",
        load=load,
        positional=positional,
    )


def _run(run, arguments, alone) -> None:
    workdir = _WORKDIR.value or os.path.join("runs", _CONFIG.value.name)
    if _DRY_RUN.value:
        from launch import plan  # which imports the programs

        hosts.by_the_first(plan.show, _CONFIG.value, pod.told())
    elif not alone:
        hosts.by_the_first(run, _CONFIG.value, workdir, *arguments)
    else:
        traced = profile.loops() if _PROFILE.value else contextlib.nullcontext()
        with hosts.hold(workdir), traced:
            run(_CONFIG.value, workdir, *arguments)
