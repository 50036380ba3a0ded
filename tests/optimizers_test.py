"""Optimisers against PyTorch's recurrences, written out in float64."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddjax import models, optimizers
from ddjax.types import DataInfo

NUM_STEPS = 5


def schedule(count):
    """A rate that changes from step to step."""
    return 0.1 / (1 + count)


def parameters():
    """One layer's worth of parameters, and their gradients at each step."""
    random = np.random.default_rng(0)
    shapes = {"kernel": (3, 2), "bias": (2,), "scale": (2,)}
    params = {"layer": {k: random.normal(size=s) for k, s in shapes.items()}}
    gradients = [
        {"layer": {k: random.normal(size=s) for k, s in shapes.items()}}
        for _ in range(NUM_STEPS)
    ]
    return params, gradients


def run(optimizer, params, gradients):
    """The parameters after each step, from optax and in float32."""
    params, gradients = jax.tree.map(
        lambda x: jnp.asarray(x, jnp.float32), (params, gradients)
    )
    state, path = optimizer.init(params), []
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        path.append(params)
    return path


def torch_sgd(params, gradients, rates, momentum, decay):
    """torch.optim.SGD: buf = momentum buf + (g + decay p); p -= lr buf."""
    buffer = jax.tree.map(np.zeros_like, params)
    for gradient, rate in zip(gradients, rates):
        gradient = jax.tree.map(lambda g, p: g + decay * p, gradient, params)
        buffer = jax.tree.map(lambda b, g: momentum * b + g, buffer, gradient)
        params = jax.tree.map(lambda p, b, rate=rate: p - rate * b, params, buffer)
        yield params


def torch_adamw(values, gradients, rates, decay, b1, b2):
    """torch.optim.AdamW on one tensor: p *= 1 - lr decay, then Adam's step."""
    first, second = np.zeros_like(values), np.zeros_like(values)
    for step, (gradient, rate) in enumerate(zip(gradients, rates), start=1):
        values = values * (1 - rate * decay)
        first = b1 * first + (1 - b1) * gradient
        second = b2 * second + (1 - b2) * gradient**2
        denominator = np.sqrt(second) / np.sqrt(1 - b2**step) + 1e-8
        values = values - rate / (1 - b1**step) * first / denominator
        yield values


class TestCosineByEpoch:
    def test_scalars(self):
        """P12: lr (1 + cos(pi e / E)) / 2 at the start, a quarter, half, the end."""
        rate = optimizers.cosine_by_epoch(0.025, epochs=8, steps_per_epoch=3)
        wanted = {0: 0.025, 6: 0.0213388348, 12: 0.0125, 18: 0.0036611652, 24: 0.0}
        for count, value in wanted.items():
            assert float(rate(count)) == pytest.approx(value, abs=1e-8)

    def test_is_constant_within_an_epoch(self):
        rate = optimizers.cosine_by_epoch(1.0, epochs=5, steps_per_epoch=4)
        rates = np.array([rate(count) for count in range(20)]).reshape(5, 4)
        np.testing.assert_array_equal(rates, rates[:, :1] * np.ones(4))
        wanted = 0.5 * (1 + np.cos(np.pi * np.arange(5) / 5))
        np.testing.assert_allclose(rates[:, 0], wanted, atol=1e-7)

    def test_does_not_rise_again_after_the_end(self):
        rate = optimizers.cosine_by_epoch(1.0, epochs=5, steps_per_epoch=4)
        np.testing.assert_allclose([rate(20), rate(33)], 0, atol=1e-7)

    def test_stretched_it_ends_half_way(self):
        rate = optimizers.cosine_by_epoch(1.0, 10, steps_per_epoch=1, stretch=2.0)
        rates = [float(rate(epoch)) for epoch in (0, 5, 10)]
        wanted = [1.0, 0.5 * (1 + np.cos(np.pi / 4)), 0.5]
        np.testing.assert_allclose(rates, wanted, atol=1e-7)


class TestCosineThenLinear:
    def test_is_the_cosine_and_then_edc_s_line(self):
        """Which begins at a sixth: lr (1 + cos(5 pi / 12)) / 2 (1 - e / E)."""
        made = [
            f(0.1, 12, steps_per_epoch=2, stretch=2.0)
            for f in (optimizers.cosine_by_epoch, optimizers.cosine_then_linear)
        ]
        cosine, rates = (np.array([float(f(i)) for i in range(26)]) for f in made)
        np.testing.assert_allclose(rates[:22], cosine[:22], rtol=1e-6)
        last = 0.05 * (1 + np.cos(5 * np.pi / 12))
        np.testing.assert_allclose(rates[22:24], last / 12, rtol=1e-5)
        np.testing.assert_allclose(rates[24:], 0, atol=1e-9)


class CosineVariantsTest(chex.TestCase):
    @chex.all_variants
    def test_count_may_be_traced(self):
        rate = optimizers.cosine_by_epoch(0.1, epochs=10, steps_per_epoch=7)
        np.testing.assert_allclose(
            self.variant(rate)(35), 0.05, atol=1e-7
        )  # half way, at epoch 5


class TestSgd:
    @pytest.mark.parametrize(("momentum", "decay"), [(0.9, 0.01), (0.0, 0.1), (0.5, 0)])
    def test_equals_torch_s(self, momentum, decay):
        params, gradients = parameters()
        rates = [schedule(step) for step in range(NUM_STEPS)]
        optimizer = optimizers.sgd(schedule, momentum=momentum, weight_decay=decay)
        path = run(optimizer, params, gradients)
        wanted = list(torch_sgd(params, gradients, rates, momentum, decay))
        assert len(path) == NUM_STEPS
        chex.assert_trees_all_close(path, wanted, rtol=1e-5, atol=1e-6)

    def test_restart_is_a_new_optimiser(self):
        """As DC's code drops the rate; torch's own path: recipes_test.py."""
        params, gradients = parameters()
        rate = optimizers.drop_once(0.1, 3)
        optimizer = optimizers.sgd(rate, momentum=0.9, weight_decay=0.01, restart=3)
        path = run(optimizer, params, gradients)
        before = list(torch_sgd(params, gradients[:3], [0.1] * 3, 0.9, 0.01))
        after = torch_sgd(before[-1], gradients[3:], [0.01] * 2, 0.9, 0.01)
        chex.assert_trees_all_close(path, [*before, *after], rtol=1e-5, atol=1e-6)


class TestAveraged:
    def test_average_is_the_closed_form_and_moves_nothing(self):
        params, gradients = parameters()
        inner = optimizers.sgd(schedule, momentum=0.9, weight_decay=0.01)
        optimizer = optimizers.averaged(inner, 0.8)
        path = run(optimizer, params, gradients)
        chex.assert_trees_all_equal(path, run(inner, params, gradients))
        state = optimizer.init(jax.tree.map(jnp.asarray, params))
        for before, gradient in zip([params, *path], gradients):
            before, gradient = jax.tree.map(jnp.float32, (before, gradient))
            _, state = optimizer.update(gradient, state, before)
        weights = 0.2 * 0.8 ** np.arange(NUM_STEPS)[::-1]
        wanted = jax.tree.map(
            lambda first, *steps: (
                0.8**NUM_STEPS * first
                + sum(w * step for w, step in zip(weights, steps))
            ),
            params,
            *path,
        )
        chex.assert_trees_all_close(state.params, wanted, rtol=1e-5, atol=1e-6)


class TestAdamW:
    @pytest.mark.parametrize(("b1", "b2"), [(0.9, 0.999), (0.5, 0.9)])
    def test_equals_torch_s_with_decay_on_kernels_only(self, b1, b2):
        params, gradients = parameters()
        rates = [schedule(step) for step in range(NUM_STEPS)]
        optimizer = optimizers.adamw(schedule, weight_decay=0.3, b1=b1, b2=b2)
        path = run(optimizer, params, gradients)
        for name, decay in (("kernel", 0.3), ("bias", 0.0), ("scale", 0.0)):
            got = [params["layer"][name] for params in path]
            wanted = torch_adamw(
                params["layer"][name],
                [gradient["layer"][name] for gradient in gradients],
                rates,
                decay,
                b1,
                b2,
            )
            np.testing.assert_allclose(got, list(wanted), rtol=1e-5, atol=1e-6)


class TestDecayed:
    """P15: FKD decays tensors with more than one axis whose name has "weight"."""

    @staticmethod
    def decayed_names(name, **options):
        info = DataInfo("toy", ("a", "b"), (32, 32, 3), (0.5,) * 3, (0.2,) * 3)
        network = models.create(name, info, width=2, **options)
        params = jax.eval_shape(network.init, jax.random.key(0))["params"]
        leaves = jax.tree_util.tree_leaves_with_path(optimizers.decayed(params))
        names = {
            jax.tree_util.keystr(path, simple=True, separator="/"): decide
            for path, decide in leaves
        }
        return names, {name for name, decide in names.items() if decide}

    def test_resnet18_decays_exactly_its_kernels(self):
        names, decayed = self.decayed_names("resnet18")
        wanted = {"conv1/kernel", "fc/kernel"}
        for block in itertools.product("1234", "01"):
            name = "layer{}.{}".format(*block)
            wanted |= {f"{name}/conv1/kernel", f"{name}/conv2/kernel"}
            if block in {("2", "0"), ("3", "0"), ("4", "0")}:
                wanted.add(f"{name}/downsample.0/kernel")
        assert decayed == wanted
        assert len(decayed) == 21 and len(names) == 62  # torch: 62 tensors, 21 of them

    def test_convnet_s_biases_and_norms_are_left_alone(self):
        _, decayed = self.decayed_names("convnet", depth=2, norm="instance")
        assert decayed == {
            "features.0/kernel",
            "features.4/kernel",
            "classifier/kernel",
        }

    def test_vectors_called_kernel_are_left_alone(self):
        params = {"a": {"kernel": jnp.zeros(3)}, "b": {"bias": jnp.zeros((3, 3))}}
        assert optimizers.decayed(params) == {
            "a": {"kernel": False},
            "b": {"bias": False},
        }


class TestPixelAdam:
    def test_equals_adam_on_normalised_pixels(self):
        """z = (x - mean) / std, so that dL/dz = std dL/dx; P10's Adam (0.5, 0.9)."""
        mean, std = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.3, 0.05])
        random = np.random.default_rng(0)
        images = random.uniform(size=(2, 4, 4, 3))
        gradients = [random.normal(size=images.shape) for _ in range(NUM_STEPS)]
        total = 8
        rates = 0.25 * 0.5 * (1 + np.cos(np.pi * np.arange(NUM_STEPS) / total))
        wanted = [
            z * std + mean
            for z in torch_adamw(
                (images - mean) / std,
                [gradient * std for gradient in gradients],
                rates,
                0.0,
                0.5,
                0.9,
            )
        ]
        optimizer = optimizers.pixel_adam(0.25, total, tuple(std.tolist()))
        got = run(optimizer, images, gradients)
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)

    def test_first_step_is_the_rate_times_std(self):
        """Adam's first step is the sign of the gradient, whatever its size."""
        optimizer = optimizers.pixel_adam(0.25, 10, (0.2, 0.4))
        gradient = np.array([[3.0, -1e-3]])
        (moved,) = run(optimizer, np.zeros((1, 2)), [gradient])
        np.testing.assert_allclose(moved, [[-0.25 * 0.2, 0.25 * 0.4]], rtol=1e-4)

    def test_rate_ends_at_zero(self):
        optimizer = optimizers.pixel_adam(0.25, 3, (1.0,))
        path = run(optimizer, np.zeros((1, 1)), [np.ones((1, 1))] * 5)
        assert path[2] != path[1]
        np.testing.assert_allclose(path[3:], path[2:4], atol=1e-8)

    def test_is_the_same_object_every_time(self):
        """What `jit` is closed over must not change, or it compiles again."""
        first = optimizers.pixel_adam(0.25, 10, (0.2,))
        assert optimizers.pixel_adam(0.25, 10, (0.2,)) is first
        assert optimizers.pixel_adam(0.25, 11, (0.2,)) is not first


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_pixel_sgd_is_sgd_on_normalised_pixels(momentum):
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    z = jnp.linspace(-1, 1, 12).reshape(2, 2, 1, 3)
    x = z * jnp.array(std) + jnp.array(mean)
    plain, ours = (
        optax.sgd(0.3, momentum or None),
        optimizers.pixel_sgd(0.3, momentum, std),
    )
    states = plain.init(z), ours.init(x)

    def loss(z):
        return jnp.sum(jnp.sin(z) ** 2)

    def of_pixels(x):
        return loss((x - jnp.array(mean)) / jnp.array(std))

    for _ in range(5):
        updates, first = plain.update(jax.grad(loss)(z), states[0])
        z = optax.apply_updates(z, updates)
        updates, second = ours.update(jax.grad(of_pixels)(x), states[1])
        x, states = optax.apply_updates(x, updates), (first, second)
    np.testing.assert_allclose(x, z * jnp.array(std) + jnp.array(mean), rtol=1e-5)
