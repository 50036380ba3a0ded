"""A step of training a robust teacher over a plain one; `benchmarks.attacks` runs it."""

import statistics
import time

import jax
import jax.numpy as jnp

from benchmarks import subjects
from ddjax import losses, parallel, squeeze

# Operations and memory over a plain step, of spec and docstrings: on a toy network.
EXPECTED = {
    "loss_difference": (3.3, 2.4),
    "gradient_difference": (5.4, 3.7),
    "gradient_difference_squared": (5.4, 3.7),
    "hessian_norm": (4.3, 2.7),
    "hessian_norm_squared": (4.3, 2.7),
    "gauss_newton": (3.2, 2.2),
    "gradient_norm": (3.0, None),
    "adversarial 1": (1.7, None),
    "adversarial 3": (3.0, None),
    "adversarial 10": (7.7, None),
}


def overhead(options):
    """A step of each way of training against a plain one, in turns."""
    train = subjects.digits("train")
    shared = train.images[: subjects.BATCH], train.labels[: subjects.BATCH]
    shared = jax.device_put(shared)
    for name in options.networks.split(";"):
        network = subjects.build(name, train.info)
        plain = _Trained(network, squeeze.Recipe(), shared)
        for form, recipe in _recipes().items():
            other = _Trained(network, recipe, shared)
            yield {
                "part": "overhead",
                "network": name,
                "form": form,
                "batch": subjects.BATCH,
                "seconds": _ratio(plain, other, options.steps),
                "operations": other.cost.flops / plain.cost.flops,
                "memory": other.cost.memory / plain.cost.memory,
                "compile_seconds": other.compile_seconds,
                "expected_operations": EXPECTED[form][0],
                "expected_memory": EXPECTED[form][1],
            }


def _recipes():
    plain = squeeze.Recipe()
    recipes = {
        form: plain._replace(curvature=losses.Curvature(form=form, weight=0.1))
        for form in losses.CURVATURES
    }
    for steps in (1, 3, 10):
        adversarial = squeeze.Adversarial(eps=8 / 255, num_steps=steps)
        recipes[f"adversarial {steps}"] = plain._replace(adversarial=adversarial)
    return recipes


class _Trained:
    """A network in training, step by step."""

    def __init__(self, network, recipe, shared):
        recipe = recipe._replace(batch_size=subjects.BATCH, crop_scale=(1.0, 1.0))
        step = squeeze.make_step(network, recipe, subjects.BATCH)
        self._program, self._shared = parallel.single.compile(step), shared
        self._key = jax.random.key(1)
        self._state = squeeze.init(jax.random.key(0), network, recipe, subjects.BATCH)
        self.cost = parallel.cost(self._program, *self._arguments())
        began = time.perf_counter()
        self.step()
        self.compile_seconds = time.perf_counter() - began
        self.step()

    def _arguments(self):
        return self._state, jnp.int32(0), self._shared, self._key

    def step(self) -> float:
        """Its seconds."""
        began = time.perf_counter()
        self._state, _ = jax.block_until_ready(self._program(*self._arguments()))
        return time.perf_counter() - began


def _ratio(plain, other, steps):
    """The median of the ratios of neighbours."""
    seconds = [(plain.step(), other.step()) for _ in range(steps)]
    return statistics.median(theirs / ours for ours, theirs in seconds)
