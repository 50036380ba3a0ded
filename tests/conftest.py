"""Two fake devices, programs soon compiled, and fixtures small enough for two cores."""

import os

from launch import pages, xla

os.environ.update(pages.environment())  # of the processes that tests begin
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")  # before jax is imported
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Threads of XLA. A device that waits for another holds one; a device that computes
# waits for several: with as few as there are cores, two devices can wait for ever.
os.environ.setdefault("NPROC", "8")
# Compiling is most of what tests take, and their programs run once: with fewer
# optimisations it takes half as long. JAX_DISABLE_MOST_OPTIMIZATIONS=0 has them all.
few = os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") == "1"
if few and xla.knows("xla_cpu_use_fusion_emitters"):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
os.environ.update(xla.environment())  # as the processes that tests begin have it

import jax
import numpy as np
import pytest
from absl import flags

from ddjax import data, models
from ddjax.types import DataInfo
from launch import cache

collect_ignore_glob = ["**/make_*.py", "make_*.py"]  # they need PyTorch

flags.FLAGS.mark_as_parsed()
cache.enable()


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """Frees the programs of each file: each takes some fifteen memory maps.

    A process may have 65,530 (Linux's default); the compiler crashes at the next.
    """
    yield
    jax.clear_caches()


@pytest.fixture
def optimised():
    """Programs are compiled as everywhere else: only then do two agree bit by bit."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", few)


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(scope="session")
def tiny_info():
    """Three classes of 8x8 colour images."""
    return DataInfo(
        "tiny", ("a", "b", "c"), (8, 8, 3), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    )


@pytest.fixture(scope="session")
def tiny_data(tiny_info):
    """4, 5 and 6 images of three classes, one of them twice."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (15, 8, 8, 3), dtype=np.uint8)
    images[1] = images[0]
    labels = np.repeat([0, 1, 2], [4, 5, 6])
    return data.class_major(images, labels, tiny_info)


@pytest.fixture(scope="session")
def tiny_network(tiny_info):
    """A two-block ConvNet of width 4 with BatchNorm."""
    return models.create("convnet", tiny_info, width=4, depth=2)


@pytest.fixture(scope="session")
def tiny_variables(tiny_network):
    return tiny_network.init(jax.random.key(1))
