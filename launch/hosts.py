"""One program on many hosts: its flags, how it begins, and how it ends."""

import contextlib
import json
import pathlib

import jax
from absl import flags, logging

from ddjax import checkpoint, parallel
from launch import lock, stopping

_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "This is one process of many, which JAX finds: Slurm, Open MPI, Kubernetes, TPUs.",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "ADDRESS:PORT of process 0, where JAX does not find it."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", 0, "With --coordinator: of all.")
_PROCESS_ID = flags.DEFINE_integer("process_id", -1, "With --coordinator: of this one.")
_SILENCE_S = flags.DEFINE_float(
    "host_timeout_s", 60.0, "A process that is silent for longer counts as dead."
)
FLAGS = ("distributed", "coordinator", "num_processes", "process_id", "host_timeout_s")


class _Stops(parallel.Stops):
    """Stops by signals, of this host or of another."""

    @property
    def code(self):
        return stopping.requested().code

    def asked(self):
        return stopping.requested() is not None

    def ask(self):
        if not self.asked():
            stopping.request("a signal to another host")
        return stopping.is_awaited()


def join() -> None:
    """Joins the other hosts, if the flags say that there are any.

    Raises:
      ValueError: the flags do not fit together, or the hosts do not come.
    """
    given = _NUM_PROCESSES.value > 0, _PROCESS_ID.value >= 0
    if any(given) != bool(_COORDINATOR.value) or not all(given) == any(given):
        raise ValueError(
            "--coordinator=ADDRESS:PORT, --num_processes and --process_id go together; "
            "with --distributed alone JAX finds all three."
        )
    if not (_DISTRIBUTED.value or _COORDINATOR.value):
        return
    parallel.connect(
        _COORDINATOR.value,
        _NUM_PROCESSES.value,
        _PROCESS_ID.value,
        silence_s=_SILENCE_S.value,
        stops=_Stops(),
    )
    # JAX has taken SIGTERM for itself. A host that leaves would be missed by the others
    # in a loop that it is about to enter; its watch ends it after the primary.
    stopping.listen(at_once=parallel.is_primary())
    if not parallel.is_primary():
        logging.set_verbosity(logging.WARNING)


def check(config) -> None:
    """Refuses hosts that would not do the same.

    Raises:
      ValueError: there are hosts that were not joined, or they have other configs.
    """
    if jax.process_count() > 1 and not jax.distributed.is_initialized():
        raise ValueError(
            f"these devices belong to {jax.process_count()} hosts: start the program "
            "with --distributed on each of them."
        )
    mine = checkpoint.fingerprint(config.to_json_best_effort())
    for i, other in enumerate(parallel.gather("config", mine)):
        if other != mine:
            raise ValueError(
                f"host {i} has another config than host {parallel.host_index()}: start "
                "the same command on all hosts."
            )


@contextlib.contextmanager
def hold(workdir):
    """Holds a workdir for all hosts; see `lock.hold`.

    Raises:
      ValueError: another program holds it, or the hosts have not the same one.
    """
    path = pathlib.Path(workdir) / lock.FILE
    with lock.hold(workdir) if parallel.is_primary() else contextlib.nullcontext():
        text = path.read_text() if parallel.is_primary() else ""
        told = parallel.agree("lock", text)
        if not checkpoint.seen(lambda: path.exists() and path.read_text() == told):
            raise ValueError(
                f"host {parallel.host_index()} does not see in {workdir} what host 0 "
                f"({json.loads(told)['host']}) has written there. All hosts must share "
                "one work folder: choose it with --workdir=PATH."
            )
        yield


def by_the_first(run, *arguments) -> None:
    """Runs what needs one host only."""
    if parallel.is_primary():
        with parallel.alone():
            run(*arguments)
