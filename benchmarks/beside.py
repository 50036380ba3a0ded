"""What benchmarks beside PyTorch share: the other side, and what tells the machine."""

import json
import os
import pathlib
import platform
import subprocess

import jax

__all__ = ["Torch", "load", "machine", "only", "threads"]

_FOLDER = pathlib.Path(__file__).parent


class Torch:
    """The other side, a program of `torch_reference` that waits for its turn.

    Its memory comes in pages as large as ours (`launch.pages`), or as small as where
    nobody asks.
    """

    def __init__(self, python, program, folder, small_pages=False):
        environment = dict(os.environ)
        if small_pages:
            environment.pop("GLIBC_TUNABLES", None)
        self._process = subprocess.Popen(
            [python, str(_FOLDER / "torch_reference" / program), folder],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, word: str):
        """Its answer, when it is done."""
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"torch ended before it answered {word!r}; see above.")
        return json.loads(answer)

    def close(self):
        """Ends it."""
        self._process.stdin.close()
        self._process.wait()


def only(count: int | None) -> None:
    """Leaves both sides so many cores; before either begins: jax counts them."""
    if count:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def threads() -> int:
    """Cores that both sides may use."""
    return len(os.sched_getaffinity(0))


def load() -> list[float]:
    """How busy the machine is."""
    return [round(load, 1) for load in os.getloadavg()]


def machine() -> dict:
    """Where and with what a benchmark ran."""
    device = jax.devices()[0]
    commit = ["git", "-C", str(_FOLDER), "rev-parse", "--short", "HEAD"]
    found = subprocess.run(commit, check=False, capture_output=True, text=True)
    return {
        "device": f"{device.platform} {device.device_kind}",
        "threads": threads(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "commit": found.stdout.strip(),
        "load": load(),
    }
