"""Forks programs that need not import anything: lives, for tests that end them early.

    python tests/launch/nursery.py ADDRESS

Each connection to the address has a process of its own, which does what it is told, one
after another:

    ("run", module, flags, log, hook)   forks launch.<module>, or the `toy` below;
                                        answers with its process id, and when that has
                                        ended with its exit code
    ("unshare",)                        from now on, mounts are seen here alone
    ("shell", command)                  answers with exit code and output

JAX must not have been used before a fork; `hook` names a function of this file that the
program calls first.
"""

import ctypes
import importlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from multiprocessing import connection

import jax

# What the programs import when they need it.
import matplotlib.figure  # noqa: F401
import numpy as np
import orbax.checkpoint  # noqa: F401
import ot  # noqa: F401
import PIL.Image  # noqa: F401
import sklearn.datasets  # noqa: F401

from ddjax import checkpoint
from ddjax.checkpoint import files  # noqa: F401
from launch import evaluate, page, program, progress  # noqa: F401

_NEW_MOUNTS, _NEW_USER = 0x20000, 0x10000000  # sched.h


def main(address: str) -> None:
    """Waits for connections, two hours at most."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.alarm(7200)
    with connection.Listener(address) as listener:
        print("ready", flush=True)
        while True:
            with listener.accept() as asked:
                if os.fork() == 0:
                    _serve(asked)
                    os._exit(0)


def _serve(asked) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    while True:
        try:
            kind, *arguments = asked.recv()
        except EOFError:
            return
        for answer in globals()[f"_{kind}"](*arguments):
            asked.send(answer)


def _run(module, flags, log, hook):
    process = os.fork()
    if process == 0:
        _live(module, flags, log, hook)
    yield process
    yield os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _live(module, flags, log, hook):
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = sys.orig_argv = [f"launch.{module}", *flags]
    code = 1
    try:
        if hook is not None:
            name, *rest = hook
            globals()[name](*rest)
        known = {"toy": toy}
        run = known.get(module) or importlib.import_module(f"launch.{module}").run
        program.main(run)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _unshare():
    kinds = _NEW_MOUNTS if os.geteuid() == 0 else _NEW_MOUNTS | _NEW_USER
    who = os.geteuid(), os.getegid()
    failed = ctypes.CDLL(None, use_errno=True).unshare(kinds)
    if not failed and kinds & _NEW_USER:
        for file, own in (
            ("uid_map", who[0]),
            ("setgroups", None),
            ("gid_map", who[1]),
        ):
            with open(f"/proc/self/{file}", "w") as map_file:
                map_file.write("deny" if own is None else f"0 {own} 1")
    yield not failed


def _shell(command):
    done = subprocess.run(command, shell=True, capture_output=True, text=True)  # noqa: PLW1510
    yield done.returncode, done.stdout + done.stderr


def toy(config, workdir) -> None:
    """A stage with all that stages write, and no arithmetic to wait for."""
    stage = checkpoint.Stage(workdir, "toy", "toy", {"epochs": config.squeeze.epochs})
    if stage.complete:
        return
    rows, parts = np.arange(4.0), []
    for number in range(2):
        if (part := stage.load_part(f"{number}")) is None:
            part = {"x": rows + number}
            stage.save_part(f"{number}", part)
        parts.append(part["x"])
    done, state = stage.restore({"x": rows}) or (0, {"x": rows})
    with (
        progress.bar("toy", 3, done) as bar,
        progress.Monitor(stage, bar, 3, done, save_every_s=0) as monitor,
    ):
        for step in range(done + 1, 4):
            state = {"x": state["x"] * 3 + step}
            monitor(step, state, {"loss": state["x"][:1]})
        monitor.finish(state)
    stage.finish({"parts": np.stack(parts), **state}, {"top1": 0.5})


# Hooks -------------------------------------------------------------------------------


def die_at(count: int) -> None:
    """Kills this process before the n-th call of what makes a file last, appear or go."""
    left = [count]

    def dying(function):
        def call(*arguments, **options):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    for name in ("replace", "rename", "fsync", "rmdir"):
        setattr(os, name, dying(getattr(os, name)))


def devices(count: int) -> None:
    """So many, simulated."""
    jax.config.update("jax_num_cpu_devices", count)


def threads(count: int) -> None:
    """One device, and so many students at a time."""
    devices(1)
    set_in("ddjax.parallel.devices", "threads", lambda: count)


def surround(variables: dict) -> None:
    """Sets variables of the environment, as a cluster does."""
    os.environ.update(variables)


def fail_in(module: str, name: str, message: str) -> None:
    """A function that refuses to work."""

    def fail(*arguments, **options):
        raise ValueError(message)

    setattr(importlib.import_module(module), name, fail)


def set_in(module: str, name: str, value) -> None:
    """Another number."""
    setattr(importlib.import_module(module), name, value)


def sleep_in(module: str, name: str, flag: str) -> None:
    """A function that says by a file that it was called, and never returns."""
    where = importlib.import_module(module)
    *path, name = name.split(".")
    for part in path:
        where = getattr(where, part)

    def sleep(*arguments, **options):
        pathlib.Path(flag).touch()
        while True:
            time.sleep(0.01)

    setattr(where, name, sleep)


if __name__ == "__main__":
    main(sys.argv[1])
