"""What is said of the devices of this host."""

import json
import subprocess
import sys

import jax
import pytest

from ddjax import parallel


class TestGroups:
    def test_one_by_one_on_a_cpu(self):
        assert parallel.is_cpu()
        assert parallel.groups(3) == [[0], [1], [2]]

    def test_all_together_on_an_accelerator(self, monkeypatch):
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        assert not parallel.is_cpu()
        assert parallel.groups(3) == [[0, 1, 2]]


def test_device_count_is_the_fake_one():
    assert parallel.device_count() == 2


_MEASURED = """
import ctypes, json, pathlib, time, jax, jax.numpy as jnp
from ddjax import models, parallel
from ddjax.types import DataInfo

def resident(field):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(x.split()[1]) * 1024 for x in lines if x.startswith(field))

info = DataInfo("noise", ("a", "b"), (32, 32, 3), (0.5,) * 3, (0.25,) * 3)
network = models.create("convnet", info, width=48, depth=3)
given = network.init(jax.random.key(0)), jnp.ones((100, 32, 32, 3))
step = jax.jit(jax.grad(lambda v, x: network.apply_train(v, x)[0].var()))
foretold, compiled = parallel.cost(step, *given), step.lower(*given).compile()
jax.block_until_ready(compiled(*given))
time.sleep(1)  # a result is there a little before the rest is given back
ctypes.CDLL(None).malloc_trim(0)
pathlib.Path("/proc/self/clear_refs").write_text("5")
before = resident("VmRSS")
jax.block_until_ready(compiled(*given))
measured = resident("VmHWM") - before + sum(x.nbytes for x in jax.tree.leaves(given))
print(json.dumps([foretold.flops, foretold.memory, measured]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are reset on Linux")
def test_memory_is_what_a_process_comes_to():
    """Within a fifth; and operations are those of the convolutions, and few more."""
    found = subprocess.run(
        [sys.executable, "-c", _MEASURED], check=True, capture_output=True, text=True
    )
    flops, foretold, measured = json.loads(found.stdout.splitlines()[-1])
    assert foretold > 50e6
    assert 0.8 < foretold / measured < 1.2
    # Of no pixel beyond the border.
    first, second, third = (
        100 * (3 * side - 2) ** 2 * inputs * 48
        for side, inputs in ((32, 3), (16, 48), (8, 48))
    )
    # Forward, and in the kernels, and in the inputs of all but the first layer.
    least = 2 * (2 * first + 3 * second + 3 * third)
    assert least < flops < 1.1 * least  # BatchNorm, ReLU and pooling count too
