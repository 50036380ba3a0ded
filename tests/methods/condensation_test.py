"""DM, DC and DSA against PyTorch, and what they have in common."""

import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddjax import losses, matching, methods, models, optimizers
from ddjax.data import batches, dsa
from ddjax.methods import base, dc, dm
from ddjax.models import weights
from ddjax.types import Batch, Context, DataInfo, Targets

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
INFO = DataInfo("three", ("a", "b", "c"), (16, 16, 3), MEAN, STD)
PLAIN = {"num_steps": 1, "augment": base.VIEW}


@pytest.fixture(scope="module")
def golden():
    """See make_condensation_fixtures.py; images [q, n, H, W, ch] as normalised ones."""
    path = pathlib.Path(__file__).parent / "fixtures" / "condensation.npz"
    with np.load(path) as arrays:
        found = dict(arrays)
    images = ("real", "synthetic", "dm_moved", "dc_moved", "dm_gradient", "dc_gradient")
    return found | {k: np.moveaxis(found[k], 2, -1).astype(np.float64) for k in images}


@pytest.fixture(scope="module")
def network():
    return models.create("convnet", INFO, width=6, depth=3, norm="instance")


@pytest.fixture(scope="module")
def variables(golden, network):
    """Torch's weights; in float64 where that is switched on."""
    like = jax.eval_shape(network.init, jax.random.key(0))
    tensors = {k[2:]: v for k, v in golden.items() if k.startswith("w/")}
    return weights.from_torch(tensors, like)


def pixels(images):
    return images * np.array(STD) + np.array(MEAN)


def frozen(network, variables):
    """The network with torch's weights, whatever the key."""
    return network._replace(init=lambda key: variables, in_loops=None)


def double(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), tree)


def problem(golden, dtype):
    real = jnp.asarray(pixels(golden["real"]), dtype)
    own = jnp.asarray(pixels(golden["synthetic"]), dtype)
    labels = np.repeat(np.arange(3, dtype=np.int32), own.shape[1])
    batch = Batch(real, jnp.full(real.shape[:2], 1 / real.shape[1], dtype))
    flat = own.reshape(-1, *own.shape[2:])
    targets = Targets(flat, labels, np.full(6, 0.5), classes=np.arange(3))
    return batch, targets


def slope(method, batch, targets):
    """Loss and image gradient of one step, in normalised pixels."""
    state = method.init(jax.random.key(0), Context(), targets)
    moved, metrics = method.step(jax.random.key(0), state, Context(), targets, batch)
    gradient = (state.images - moved.images) * jnp.array(STD)
    return metrics["loss"], gradient.reshape(3, -1, 16, 16, 3)


def operator(place, draw, side=16):
    """What `torch_reference.matching` makes of three numbers in [0, 1]."""
    most, square = side // 8, side // 2
    angle = np.deg2rad(15) * (2 * draw[0] - 1)
    params = dsa.Params(
        operator=place,
        brightness=draw[0] - 0.5,
        saturation=2 * draw[1],
        contrast=0.5 + draw[2],
        shift=np.floor(draw[:2] * (2 * most + 1)).astype(np.int32) - most,
        centre=np.floor(draw[:2] * (side + 1 - square % 2)).astype(np.int32),
        mirrored=draw[0] < 0.5,
        scale=(1 / 1.2 + draw[:2] * (1.2 - 1 / 1.2))[::-1],
        angle=angle,
    )
    each = jax.tree.map(lambda x: jnp.asarray(x)[None], params)
    return each._replace(operator=jnp.int32(place))


class TestAgainstTorch:
    def test_features(self, golden, network, variables):
        images = jnp.asarray(pixels(golden["real"][0]), jnp.float32)
        _, out = network.apply_batch(variables, images)
        np.testing.assert_allclose(out["features"], golden["features"], atol=1e-5)

    @pytest.mark.parametrize("name", ["dm", "dc"])
    def test_loss_and_image_gradient(self, name, golden, network, variables):
        with jax.enable_x64(True):
            batch, targets = problem(golden, jnp.float64)
            exact = frozen(network, double(variables))
            options = {"dm": {"dsa": ""}, "dc": {"outer": 1}}[name]
            options = (("real_batch", 8), *options.items())
            method = methods.create(
                name, exact, optax.sgd(1.0), **PLAIN, options=options
            )
            loss, gradient = slope(method, batch, targets)
            assert float(loss) == pytest.approx(float(golden[f"{name}_loss"]), rel=1e-8)
            apart = np.linalg.norm(gradient - golden[f"{name}_gradient"])
            assert apart < 1e-8 * np.linalg.norm(golden[f"{name}_gradient"])

    def test_float32_is_as_good(self, golden, network, variables):
        batch, targets = problem(golden, jnp.float32)
        method = methods.create(
            "dm",
            frozen(network, variables),
            optax.sgd(1.0),
            **PLAIN,
            options=(("dsa", ""), ("real_batch", 8)),
        )
        loss, gradient = slope(method, batch, targets)
        assert float(loss) == pytest.approx(float(golden["dm_loss"]), rel=1e-5)
        apart = np.linalg.norm(gradient - golden["dm_gradient"])
        assert apart < 1e-4 * np.linalg.norm(golden["dm_gradient"])

    @pytest.mark.parametrize("in_loops", [False, True], ids=["convolution", "matrix"])
    def test_dc_with_the_network_that_learns(
        self, in_loops, golden, network, variables
    ):
        """Three outer steps, two epochs of the network between them."""
        with jax.enable_x64(True):
            batch, targets = problem(golden, jnp.float64)
            chosen = network.in_loops if in_loops else network
            exact = frozen(chosen, double(variables))
            optimizer = optimizers.pixel_sgd(0.1, 0.5, STD)
            options = (("inner", 2), ("outer", 3), ("real_batch", 8))
            method = methods.create("dc", exact, optimizer, **PLAIN, options=options)
            state = method.init(jax.random.key(0), Context(), targets)
            step = jax.jit(method.step)
            for i in range(3):
                key = jax.random.key(i)
                state, _ = step(key, state, Context(), targets, batch)
            wanted = pixels(golden["dc_moved"]).reshape(state.images.shape)
            np.testing.assert_allclose(state.images, wanted, atol=1e-9)
            assert np.abs(wanted - targets.images).max() > 1e-3

    def test_dm_with_momentum(self, golden, network, variables):
        with jax.enable_x64(True):
            batch, targets = problem(golden, jnp.float64)
            method = methods.create(
                "dm",
                frozen(network, double(variables)),
                optimizers.pixel_sgd(1.0, 0.5, STD),
                **PLAIN,
                options=(("dsa", ""), ("real_batch", 8)),
            )
            state = method.init(jax.random.key(0), Context(), targets)
            step = jax.jit(method.step)
            for i in range(20):
                key = jax.random.key(i)
                state, _ = step(key, state, Context(), targets, batch)
            wanted = pixels(golden["dm_moved"]).reshape(state.images.shape)
            np.testing.assert_allclose(state.images, wanted, atol=1e-9)

    @pytest.mark.parametrize("place", range(6), ids=dsa.OPERATORS)
    def test_dsa_with_torchs_draw(self, place, golden, network, variables, monkeypatch):
        """The loss, and its slope towards real images, seen through one operator."""
        with jax.enable_x64(True):
            draw = operator(place, golden["draws"][place].astype(np.float64))
            monkeypatch.setattr(dsa, "sample", lambda *_, **__: draw)
            batch, targets = problem(golden, jnp.float64)
            method = methods.create(
                "dsa",
                frozen(network, double(variables)),
                optax.sgd(1.0),
                **PLAIN,
                options=(("outer", 1), ("real_batch", 8)),
            )
            loss, gradient = slope(method, batch, targets)
            found = loss, (gradient * golden["real"][:, :2]).sum()
            np.testing.assert_allclose(found, golden["dsa"][place], rtol=1e-7)

    def test_initialisation_has_torchs_distribution(self, golden):
        """Largest entry (the bound), deviation and mean of kernels and biases."""
        info = INFO._replace(classes=tuple("0123456789"), shape=(32, 32, 3))
        ours = models.create("convnet", info, width=128, norm="instance")
        tensors = weights.to_torch(ours.init(jax.random.key(0)))
        for name, (largest, deviation, mean) in (
            (k.removeprefix("init/"), v)
            for k, v in golden.items()
            if k.startswith("init/")
        ):
            drawn = np.asarray(tensors[name])
            few = 4 / np.sqrt(drawn.size)  # a few standard errors
            assert np.abs(drawn).max() == pytest.approx(largest, rel=few)
            assert drawn.std() == pytest.approx(deviation, rel=few)
            assert abs(drawn.mean() - mean) < few * deviation * 1.5


class TestGradientDistance:
    def test_is_of_outputs_and_of_kernels_alone(self):
        g = {"kernel": jnp.array([[1.0, 0.0], [0.0, 2.0]]), "bias": jnp.ones(2)}
        s = {"kernel": jnp.array([[3.0, 0.0], [0.0, -1.0]]), "bias": -jnp.ones(2)}
        assert float(losses.gradient_distance(g, s)) == pytest.approx(2, abs=1e-5)
        assert float(losses.gradient_distance(g, g)) == pytest.approx(0, abs=1e-5)

    def test_no_gradient_is_no_nan(self):
        zero, one = jnp.zeros((3, 2)), jnp.ones((3, 2))
        found = jax.grad(lambda s: losses.gradient_distance([one], [s]))(zero)
        assert np.isfinite(found).all()


class TestDC:
    def test_loops_are_the_references(self):
        assert [dc.loops(n) for n in (1, 9, 10, 20, 50)] == [
            (1, 1),
            (1, 1),
            (10, 50),
            (20, 25),
            (50, 10),
        ]

    def run(self, network, steps, **options):
        images = jnp.full((6, 16, 16, 3), 0.5)
        targets = Targets(
            images, np.repeat(np.arange(3), 2), np.full(6, 0.5), classes=np.arange(3)
        )
        batch = Batch(
            jax.random.uniform(jax.random.key(0), (3, 4, 16, 16, 3)),
            jnp.full((3, 4), 0.25),
        )
        method = methods.create(
            "dc",
            network,
            optax.sgd(0.1),
            **PLAIN,
            options=tuple({"real_batch": 4, **options}.items()),
        )
        state, seen = method.init(jax.random.key(0), Context(), targets), []
        step = jax.jit(method.step)
        for i in range(steps):
            key = jax.random.key(i)
            state, _ = step(key, state, Context(), targets, batch)
            seen.append(jax.tree.leaves(state.variables["params"])[0])
        return seen

    def test_a_network_learns_and_is_drawn_anew(self, network):
        first, second, last, new = self.run(network, 4, outer=3, inner=1)
        assert 0 < np.abs(first - second).max() < 0.1
        np.testing.assert_array_equal(second, last)  # nothing after the last step
        assert np.abs(new - last).max() > 0.1

    def test_an_epoch_is_what_pytorchs_loader_gives(self):
        """Full batches, and a last one of what is left."""
        masses = [dc._first_time(i, 10, 4).tolist() for i in range(4)]
        assert masses == [[1] * 4, [1] * 4, [1, 1, 0, 0], [1] * 4]

    def test_batches_of_a_network_that_learns(self, network):
        """Two batches of four images are two steps; each image is in one of them."""
        images = jax.random.uniform(jax.random.key(0), (6, 16, 16, 3))
        labels, key = jnp.repeat(jnp.arange(3), 2), jax.random.key(2)
        variables = network.init(jax.random.key(1))
        learnt = dc._learn(network, key, "", 1, 0.5, 4, variables, images, labels)
        order = batches.indices(jax.random.split(key)[0], 0, 6, 6)
        params = variables["params"]
        for rows in (order[:4], order[4:]):
            gradient = jax.grad(
                lambda params, rows=rows: losses.cross_entropy(
                    network.apply({**variables, "params": params}, images[rows])[0],
                    labels[rows],
                )
            )(params)
            params = jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient)
        chex.assert_trees_all_close(learnt["params"], params, atol=1e-5)

    def test_what_dsa_learns_from_is_augmented(self, network):
        images = jax.random.uniform(jax.random.key(0), (6, 16, 16, 3))
        labels = jnp.repeat(jnp.arange(3), 2)
        variables = network.init(jax.random.key(1))
        plain, seen = (
            dc._learn(
                network, jax.random.key(2), x, 1, 0.5, 6, variables, images, labels
            )
            for x in ("", "color")
        )
        first, second = (jax.tree.leaves(v["params"])[0] for v in (plain, seen))
        assert np.abs(first - second).max() > 1e-4

    def test_batch_norm_takes_its_statistics_from_real_images(self):
        network = models.create("convnet", INFO, width=4, depth=2)
        images = jax.random.uniform(jax.random.key(0), (3, 20, 16, 16, 3))
        variables = network.init(jax.random.key(1))
        settled = dc._settled(network, variables, Batch(images, None))
        again = network.apply_train(variables, images[:, :16].reshape(-1, 16, 16, 3))
        for got, wanted in zip(
            *map(jax.tree.leaves, (settled["batch_stats"], again[1]))
        ):
            np.testing.assert_array_equal(got, wanted)

    def test_guards_penalty_changes_the_goal(self, network):
        images = jax.random.uniform(jax.random.key(0), (4, 16, 16, 3))
        variables = network.init(jax.random.key(1))
        mass = jnp.full(4, 0.25)
        values = []
        for weight in (0.0, 2.0):
            bent = losses.Curvature("loss_difference", weight, 0.7, units="pixels")
            values.append(
                dc._real_loss(
                    network, bent, variables["params"], variables, images, 1, mass
                )
            )
        wanted = losses.curvature(
            lambda x: network.apply(variables, x)[0], images, jnp.ones(4, int), bent
        )
        assert float(values[1] - values[0]) == pytest.approx(
            2 * float(wanted), rel=1e-4
        )


class TestDM:
    def test_batch_norm_sees_all_classes_at_once(self):
        network = models.create("convnet", INFO, width=4, depth=2)
        variables = network.init(jax.random.key(0))
        images = jax.random.uniform(jax.random.key(1), (3, 5, 16, 16, 3))
        got = matching.embed(network, variables, images)
        flat = images.reshape(-1, 16, 16, 3)
        _, out = network.apply_batch(variables, flat)
        np.testing.assert_allclose(
            got.reshape(15, -1), out["features"], atol=1e-5, rtol=1e-5
        )
        alone = matching.embed(network, variables, images[:1])
        assert np.abs(alone[0] - got[0]).max() > 1e-3

    def test_guards_term_is_the_steps_networks(self, network):
        images = jax.random.uniform(jax.random.key(0), (6, 16, 16, 3))
        variables = network.init(jax.random.key(1))
        labels = jnp.repeat(jnp.arange(3), 2)
        bent = losses.Curvature("gradient_norm", 0.5, units="pixels")
        given = (network, variables, images, labels)
        found = dm.with_curvature({"distance": 1.0}, *given, bent)
        wanted = losses.curvature(
            lambda x: network.apply(variables, x)[0], images, labels, bent
        )
        assert float(found["curvature"]) == pytest.approx(0.5 * float(wanted), rel=1e-5)
        none = bent._replace(weight=0.0)
        assert dm.with_curvature({"distance": 1.0}, *given, none) == {"distance": 1.0}

    def test_guards_term_is_part_of_the_loss(self, golden, network):
        batch, targets = problem(golden, jnp.float32)
        options = (("real_batch", 8), ("dsa", ""), ("curvature_weight", 2.0))
        method = methods.create("dm", network, optax.sgd(1), **PLAIN, options=options)
        state = method.init(jax.random.key(0), Context(), targets)
        given = (jax.random.key(0), state, Context(), targets, batch)
        _, terms = jax.jit(method.step)(*given)
        assert float(terms["curvature"]) > 0
        both = float(terms["distance"] + terms["curvature"])
        assert float(terms["loss"]) == pytest.approx(both, rel=1e-6)

    def test_uneven_classes_have_their_own_means(self):
        real = jnp.array([[[1.0], [3.0], [50.0]], [[2.0], [2.0], [2.0]]])
        mass = jnp.array([[0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3]])
        own = jnp.array([[[5.0]], [[2.0]]])
        assert float(losses.mean_matching(real, own, mass)) == pytest.approx(9.0)

    def test_words_and_numbers_are_checked(self, network):
        for options, message in (
            ((("networks", "fresh"),), "unknown networks 'fresh'; known: random, pool"),
            ((("dsa", "colour"),), "unknown DSA operator 'colour'"),
            ((("real_batch", 0),), "real_batch must be at least 1; got 0"),
            ((("curvature_weight", -1.0),), "curvature has weight -1.0"),
        ):
            with pytest.raises(ValueError, match=message):
                methods.create("dm", network, optax.sgd(1), **PLAIN, options=options)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_pixel_sgd_is_sgd_on_normalised_pixels(momentum):
    z = jnp.linspace(-1, 1, 12).reshape(2, 2, 1, 3)
    x = z * jnp.array(STD) + jnp.array(MEAN)
    plain, ours = (
        optax.sgd(0.3, momentum or None),
        optimizers.pixel_sgd(0.3, momentum, STD),
    )
    states = plain.init(z), ours.init(x)

    def loss(z):
        return jnp.sum(jnp.sin(z) ** 2)

    def of_pixels(x):
        return loss((x - jnp.array(MEAN)) / jnp.array(STD))

    for _ in range(5):
        updates, first = plain.update(jax.grad(loss)(z), states[0])
        z = optax.apply_updates(z, updates)
        updates, second = ours.update(jax.grad(of_pixels)(x), states[1])
        x, states = optax.apply_updates(x, updates), (first, second)
    np.testing.assert_allclose(x, z * jnp.array(STD) + jnp.array(MEAN), rtol=1e-5)
