"""Programs that start at once, to be killed or stopped, and a set on disk."""

import os
import pathlib
import socket
import subprocess
import sys
from multiprocessing import connection

import pytest
from PIL import Image

from ddjax import data
from ddjax.data import prepare

ROOT = pathlib.Path(__file__).parents[2]


class Lives:
    """Programs that are forked one after another; see nursery.py."""

    def __init__(self, address):
        self._asked = connection.Client(address)

    def start(
        self, workdir, log, changes=None, *, module="evaluate", hook=None, flags=()
    ):
        """Starts launch.<module> with the quick config, some fields of it changed.

        Returns:
          Its process id.
        """
        flags = ["--config=configs/default.py:quick", f"--workdir={workdir}", *flags]
        flags += [f"--config.{k}={v}" for k, v in (changes or {}).items()]
        self._asked.send(("run", module, flags, str(log), hook))
        return self._asked.recv()

    def end(self) -> int:
        """Waits for the end of what was started; its exit code."""
        return self._asked.recv()

    def ended(self) -> bool:
        """Whether what was started has ended by itself."""
        return self._asked.poll()

    def run(self, *arguments, **options) -> int:
        """Starts a program and waits for its end."""
        self.start(*arguments, **options)
        return self.end()

    def unshare(self) -> None:
        """From now on, what `shell` mounts is seen by these programs alone."""
        self._asked.send(("unshare",))
        if not self._asked.recv():
            pytest.skip("this system does not let us have mounts of our own")

    def shell(self, command: str) -> str:
        """What a command prints."""
        self._asked.send(("shell", command))
        code, output = self._asked.recv()
        assert code == 0, output
        return output


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Hosts:
    """Two hosts, of two devices each, that run one program."""

    def __init__(self, address):
        self._lives = Lives(address), Lives(address)

    def start(self, workdir, log, changes=None, **options) -> list[int]:
        """As that of `Lives`, on both; their process ids."""
        return self.start_each([{}, {}], workdir, log, changes, **options)

    def start_each(self, own, workdir, log, changes=None, **options) -> list[int]:
        """The same, with further options of each host; some may be `flags`."""
        joined = [f"--coordinator=127.0.0.1:{free_port()}", "--num_processes=2"]
        own = [
            {**each, "flags": [*joined, f"--process_id={i}", *each.get("flags", [])]}
            for i, each in enumerate(own)
        ]
        return self._start(own, workdir, log, changes, **options)

    def start_in(self, environments, workdir, log, changes=None) -> list[int]:
        """The same, with the variables of a cluster in the place of flags."""
        own = [
            {"flags": ["--distributed"], "hook": ("surround", x)} for x in environments
        ]
        return self._start(own, workdir, log, changes)

    def _start(self, own, workdir, log, changes, **options):
        processes = []
        for i, (life, each) in enumerate(zip(self._lives, own)):
            each = {**options, **each}
            each["flags"] = [*each["flags"], "--host_timeout_s=5"]
            processes.append(life.start(workdir, f"{log}{i}", changes, **each))
        return processes

    def end(self) -> list[int]:
        """Waits for both; their exit codes."""
        return [life.end() for life in self._lives]


@pytest.fixture(scope="session")
def _nursery(tmp_path_factory):
    """The address of a process that forks programs."""
    address = str(tmp_path_factory.mktemp("nursery") / "address")
    process = subprocess.Popen(
        [sys.executable, "tests/launch/nursery.py", address],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )
    with process:
        try:
            assert process.stdout.readline() == b"ready\n"
            yield address
        finally:
            process.kill()


@pytest.fixture
def lives(_nursery):
    return Lives(_nursery)


@pytest.fixture
def more_lives(_nursery):
    """Programs beside those of `lives`."""
    return Lives(_nursery)


@pytest.fixture(scope="module")
def hosts(_nursery):
    return Hosts(_nursery)


@pytest.fixture(scope="module")
def module_lives(_nursery):
    return Lives(_nursery)


@pytest.fixture(scope="session")
def kept(tmp_path_factory):
    """Where a set of 60 + 20 of the digits is kept, as a user would prepare it."""
    source, kept = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("kept")
    for split, per_class in (("train", 20), ("test", 5)):
        digits = data.load("digits", split)
        for k, rows in enumerate(data.class_slices(digits)[:3]):
            folder = source / split / "abc"[k]
            folder.mkdir(parents=True)
            for i, image in enumerate(digits.images[rows][:per_class]):
                grey = Image.fromarray(image[..., 0])
                grey.resize((8 + i % 3, 8)).save(folder / f"{i}.png")
    prepare.from_source(source, "mine", kept)
    return str(kept)
