"""Students: the loss they are trained with, what they learn, and running many."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from ddjax import loop, losses, metrics, models, relabel, student, training
from ddjax.types import DistilledSet

PLAIN = relabel.Views(batch_size=8, crop_scale=(1.0, 1.0), flip=False, mix="none")
MIXED = relabel.Views(batch_size=8, crop_scale=(0.5, 1.0))


def recipe_of(views, epochs=4, learning_rate=1e-3):
    return student.Recipe(views, epochs=epochs, learning_rate=learning_rate)


def toy(per_class, seed):
    """Three patterns of 8x8 pixels under noise: uint8 images and labels."""
    patterns = np.random.default_rng(0).uniform(0.2, 0.8, (3, 8, 8, 3))
    noise = np.random.default_rng(seed).normal(0, 0.1, (3, per_class, 8, 8, 3))
    images = np.clip(patterns[:, None] + noise, 0, 1).reshape(-1, 8, 8, 3)
    return (images * 255).astype(np.uint8), np.repeat(np.arange(3), per_class)


@pytest.fixture(scope="module")
def distilled():
    """Four images a class, with unequal weights."""
    images, labels = toy(4, seed=1)
    weights = np.tile(np.float32([0.4, 0.3, 0.2, 0.1]), 3)
    return DistilledSet(images, labels.astype(np.int32), weights)


@pytest.fixture(scope="module")
def teacher(tiny_network):
    """Variables whose logits are far from uniform."""
    variables = tiny_network.init(jax.random.key(8))
    params = jax.tree.map(lambda x: 3 * x, variables["params"])
    return {**variables, "params": params}


@pytest.fixture
def key_views():
    return jax.random.key(5)


@pytest.fixture(scope="module")
def linear():
    """A network of one layer."""

    def init(key):
        kernel = jax.random.normal(key, (192, 3)) / 4
        return {"params": {"layer": {"kernel": kernel}}, "batch_stats": {}}

    def apply(variables, images):
        flat = images.reshape(len(images), -1) - 0.5
        return flat @ variables["params"]["layer"]["kernel"], {}

    return models.Network(init, apply, lambda v, x: (apply(v, x)[0], {}))


def first_step(network, recipe, distilled, key_views, labels, soft=(), **options):
    """The loss of step 2, as reported, from fresh parameters; and their logits."""
    step = student.make_step(network, recipe, len(distilled.labels), labels, **options)
    keys = jax.random.key(3)[None]
    state = student.initial_state(keys, network, recipe, len(distilled.labels))
    shared = jax.tree.map(jnp.asarray, (key_views, *distilled, soft))
    _, report = jax.jit(step)(state, 2, shared, ())
    seen = relabel.look(recipe.views, key_views, 2, jnp.asarray(distilled.images))
    logits, _ = jax.jit(network.apply_train)(training.variables(state), seen.images)
    return float(report["loss"]), seen, np.asarray(logits, np.float64)


class TestLoss:
    @pytest.mark.parametrize("views", [PLAIN, MIXED], ids=["plain", "mixed"])
    def test_hard_labels_count_by_area_and_weight(
        self, tiny_network, distilled, key_views, views
    ):
        loss, seen, logits = first_step(
            tiny_network, recipe_of(views), distilled, key_views, "hard"
        )
        log_q = special.log_softmax(logits, axis=1)
        rows = np.asarray(seen.rows)
        own, pasted = distilled.labels[rows], distilled.labels[rows[seen.partner]]
        each = -seen.share * log_q[np.arange(8), own]
        each -= (1 - seen.share) * log_q[np.arange(8), pasted]
        weights = distilled.weights[rows]
        wanted = (each * weights).sum() / weights.sum()
        assert views is PLAIN or 0 < float(seen.share) < 1
        assert loss == pytest.approx(float(wanted), rel=1e-4)

    def soft_loss(self, seen, logits, targets, distilled, temperature):
        log_p = special.log_softmax(np.float64(targets) / temperature, axis=1)
        log_q = special.log_softmax(logits / temperature, axis=1)
        each = (np.exp(log_p) * (log_p - log_q)).sum(1)
        weights = np.float64(distilled.weights[np.asarray(seen.rows)])
        return (each * weights / weights.mean()).mean()

    @pytest.mark.parametrize("temperature", [20.0, 2.0])
    def test_stored_soft_labels_of_the_step_are_the_targets(
        self, tiny_network, distilled, key_views, temperature
    ):
        recipe = recipe_of(MIXED)._replace(temperature=temperature)
        random = np.random.default_rng(0)
        soft = (10 * random.normal(size=(8, 8, 3))).astype(np.float16)
        loss, seen, logits = first_step(
            tiny_network, recipe, distilled, key_views, "stored", soft
        )
        wanted = self.soft_loss(seen, logits, soft[2], distilled, temperature)
        assert loss == pytest.approx(wanted, rel=1e-3)

    def test_labels_of_the_teacher_in_the_loop_are_those_stored(
        self, tiny_network, teacher, distilled, key_views
    ):
        recipe = recipe_of(MIXED)._replace(temperature=1.0)
        loss, seen, logits = first_step(
            tiny_network,
            recipe,
            distilled,
            key_views,
            "online",
            teacher,
            teacher_fn=tiny_network.apply,
        )
        stored = relabel.soft_labels(
            tiny_network.apply,
            teacher,
            MIXED,
            key_views,
            jnp.asarray(distilled.images),
            range(2, 3),
        )
        wanted = self.soft_loss(seen, logits, stored[0], distilled, 1.0)
        assert loss == pytest.approx(wanted, rel=1e-3)

    @pytest.mark.parametrize("views", [PLAIN, MIXED], ids=["plain", "mixed"])
    def test_single_labels_are_mixed_as_probabilities(
        self, tiny_network, distilled, key_views, views
    ):
        """At the temperature, by the shares of the area."""
        recipe = recipe_of(views)._replace(temperature=2.0)
        soft = 10 * np.random.default_rng(0).normal(size=(12, 3)).astype(np.float16)
        loss, seen, logits = first_step(
            tiny_network, recipe, distilled, key_views, "single", soft
        )
        p = special.softmax(np.float64(soft) / 2, axis=1)[np.asarray(seen.rows)]
        share = float(seen.share)
        targets = share * p + (1 - share) * p[np.asarray(seen.partner)]
        wanted = self.soft_loss(seen, logits, 2 * np.log(targets), distilled, 2.0)
        assert views is PLAIN or 0 < share < 1
        assert loss == pytest.approx(wanted, rel=1e-3)

    @pytest.mark.parametrize("labels", ["single", "stored"])
    def test_squares_with_the_image_s_own_class(
        self, tiny_network, distilled, key_views, labels
    ):
        """EDC's loss; with one label an image, logits are mixed."""
        recipe = recipe_of(MIXED)._replace(loss="mse_ce")
        shape = (12, 3) if labels == "single" else (8, 8, 3)
        soft = np.random.default_rng(0).normal(size=shape).astype(np.float16)
        loss, seen, logits = first_step(
            tiny_network, recipe, distilled, key_views, labels, soft
        )
        rows, partner, share = map(np.asarray, (seen.rows, seen.partner, seen.share))
        if labels == "single":
            own = np.float64(soft)[rows]
            targets = share * own + (1 - share) * own[partner]
        else:
            targets = np.float64(soft[2])
        log_q = special.log_softmax(logits, axis=1)
        each = ((logits - targets) ** 2).mean(1)
        each -= 0.025 * log_q[np.arange(8), distilled.labels[rows]]
        weights = distilled.weights[rows]
        assert loss == pytest.approx((each * weights).sum() / weights.sum(), rel=1e-3)

    @pytest.mark.parametrize(
        ("labels", "loss"),
        [("hard", "kl"), ("single", "kl"), ("stored", "mse_ce"), ("online", "kl")],
    )
    def test_transport_is_beside_every_loss_of_soft_labels(
        self, linear, distilled, key_views, labels, loss
    ):
        random, teacher = np.random.default_rng(0), linear.init(jax.random.key(8))
        soft = {
            "hard": (),
            "single": (5 * random.normal(size=(12, 3))).astype(np.float16),
            "stored": (5 * random.normal(size=(8, 8, 3))).astype(np.float16),
            "online": teacher,
        }[labels]
        recipe = recipe_of(PLAIN)._replace(loss=loss, ot_epsilon=0.2, ot_iterations=9)
        about = distilled, key_views, labels, soft
        options = {"teacher_fn": linear.apply} if labels == "online" else {}
        without, seen, logits = first_step(linear, recipe, *about, **options)
        recipe = recipe._replace(ot_weight=0.5)
        value, _, _ = first_step(linear, recipe, *about, **options)
        if labels == "hard":
            assert value == without
            return
        rows = np.asarray(seen.rows)
        targets = {"single": lambda: soft[rows], "stored": lambda: soft[2]}.get(
            labels, lambda: linear.apply(teacher, seen.images)[0]
        )()
        wanted = losses.logit_transport(
            jnp.asarray(logits, jnp.float32),
            jnp.asarray(targets),
            epsilon=0.2,
            iterations=9,
            weights=jnp.asarray(distilled.weights[rows]),
        )
        assert wanted > 0.05
        assert value - without == pytest.approx(0.5 * float(wanted), rel=5e-3)

    @pytest.mark.parametrize("labels", student.LABELS)
    def test_weights_change_the_loss_and_their_scale_does_not(
        self, tiny_network, teacher, distilled, key_views, labels
    ):
        random = np.random.default_rng(0)
        soft = {
            "hard": (),
            "single": 10 * random.normal(size=(12, 3)).astype(np.float16),
            "stored": 10 * random.normal(size=(8, 8, 3)).astype(np.float16),
            "online": teacher,
        }[labels]
        options = {"teacher_fn": tiny_network.apply} if labels == "online" else {}
        equal = distilled._replace(weights=np.ones(12, np.float32))
        scaled = distilled._replace(weights=distilled.weights * 7)
        recipe = recipe_of(PLAIN)._replace(temperature=2.0)
        found = [
            first_step(tiny_network, recipe, of, key_views, labels, soft, **options)[0]
            for of in (distilled, equal, scaled)
        ]
        assert abs(found[0] - found[1]) > 1e-3 * found[0]
        assert found[2] == pytest.approx(found[0], rel=1e-5)

    def test_unknown_labels_raise(self, tiny_network):
        with pytest.raises(ValueError, match="unknown labels 'softer'; known: hard"):
            student.make_step(tiny_network, recipe_of(PLAIN), 12, "softer")


def train(network, recipe, distilled, key_views, seeds=(3,), labels="hard", **options):
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    return student.train(
        keys, network, recipe, distilled, key_views, labels=labels, **options
    )


def assert_same_student(got, wanted, tolerance=1e-4):
    """But for the biases before a BatchNorm: nothing depends on them (they are drawn
    and then moved by rounding errors, which Adam makes as large as gradients)."""
    for layer, values in wanted["params"].items():
        convolution = "kernel" in values and values["kernel"].ndim == 4
        names = ["kernel"] if convolution else list(values)
        for name in names:
            np.testing.assert_allclose(
                got["params"][layer][name], values[name], atol=tolerance
            )


class TestTrain:
    def test_learns_what_can_be_separated(self, tiny_network, distilled, key_views):
        images, labels = toy(40, seed=2)
        losses = []
        recipe = recipe_of(PLAIN, epochs=40, learning_rate=0.02)
        (variables,) = train(
            tiny_network,
            recipe,
            distilled,
            key_views,
            observe=lambda done, state, report: losses.append(
                float(report["loss"][-1])
            ),
        )
        score = metrics.accuracy(tiny_network.apply, variables, images, labels)
        assert score > 0.9
        assert len(losses) == student.num_steps(recipe, 12) == 80
        assert np.mean(losses[-5:]) < 0.3 * np.mean(losses[:5])
        fresh = tiny_network.init(jax.random.key(3))
        assert metrics.accuracy(tiny_network.apply, fresh, images, labels) < 0.8

    def test_learns_from_soft_labels_alone(self, tiny_network, distilled, key_views):
        """The hard labels are all wrong, and not read."""
        images, labels = toy(40, seed=2)
        recipe = recipe_of(PLAIN, epochs=40, learning_rate=0.02)
        key, pixels = key_views, jnp.asarray(distilled.images)
        rows = [relabel.look(PLAIN, key, s, pixels).rows for s in range(80)]
        soft = 60 * np.eye(3, dtype=np.float16)[distilled.labels[np.stack(rows)]]
        wrong = distilled._replace(labels=np.zeros(12, np.int32))
        (variables,) = train(
            tiny_network, recipe, wrong, key_views, labels="stored", soft=soft
        )
        assert metrics.accuracy(tiny_network.apply, variables, images, labels) > 0.9

    def test_students_side_by_side_equal_single_ones(
        self, tiny_network, distilled, key_views
    ):
        recipe = recipe_of(MIXED)
        together = train(tiny_network, recipe, distilled, key_views, seeds=(3, 4))
        assert len(together) == 2
        for got, seed in zip(together, (3, 4)):
            (wanted,) = train(tiny_network, recipe, distilled, key_views, seeds=(seed,))
            assert_same_student(got, wanted)
        kernels = [one["params"]["features.0"]["kernel"] for one in together]
        assert not np.allclose(*kernels, atol=0.01)

    def test_views_apart_change_nothing(self, tiny_network, distilled, key_views):
        """As a CPU has them, for a batch that its devices do not divide."""
        recipe = recipe_of(MIXED._replace(batch_size=5))
        (got,) = train(tiny_network, recipe, distilled, key_views)
        keys = jax.random.key(3)[None]
        state = loop.run(
            student.make_step(tiny_network, recipe, 12, "hard"),
            student.initial_state(keys, tiny_network, recipe, 12),
            (key_views, *distilled, ()),
            (),
            range(student.num_steps(recipe, 12)),
        )
        assert_same_student(got, student.variables(state), 1e-5)

    def test_teacher_in_the_loop_equals_stored_labels(
        self, tiny_network, teacher, distilled, key_views
    ):
        recipe = recipe_of(MIXED)
        steps = range(student.num_steps(recipe, 12))
        soft = relabel.soft_labels(
            tiny_network.apply,
            teacher,
            MIXED,
            key_views,
            jnp.asarray(distilled.images),
            steps,
        )
        (stored,) = train(
            tiny_network, recipe, distilled, key_views, labels="stored", soft=soft
        )
        (replayed,) = train(
            tiny_network,
            recipe,
            distilled,
            key_views,
            labels="online",
            soft=teacher,
            teacher_fn=tiny_network.apply,
        )
        assert_same_student(replayed, stored, 5e-4)

    @pytest.mark.parametrize("seeds", [(3,), (3, 4)])
    def test_resumed_training_is_the_same(
        self, tiny_network, distilled, key_views, seeds
    ):
        recipe, kept = recipe_of(MIXED), {}

        def observe(done, state, report):
            del report
            kept[done] = jax.tree.map(lambda x: np.array(x, copy=True), state)

        whole = train(
            tiny_network, recipe, distilled, key_views, seeds=seeds, observe=observe
        )
        assert sorted(kept) == list(range(1, 9))
        resumed = train(
            tiny_network,
            recipe,
            distilled,
            key_views,
            seeds=seeds,
            state=kept[5],
            done=5,
        )
        chex.assert_trees_all_equal(resumed, whole)

    def test_averaged_parameters_are_scored(self, tiny_network, distilled, key_views):
        """With the statistics of the last step, which do not depend on the average."""
        recipe, kept = recipe_of(MIXED), []

        def observe(done, state, report):
            del done, report
            kept.append(jax.tree.map(np.array, training.variables(state)))

        (averaged,) = train(
            tiny_network,
            recipe._replace(ema=0.9),
            distilled,
            key_views,
            observe=observe,
        )
        first = tiny_network.init(jax.random.key(3))["params"]
        wanted = jax.tree.map(np.asarray, first)
        for step in kept:
            wanted = jax.tree.map(
                lambda a, p: 0.9 * a + 0.1 * p, wanted, step["params"]
            )
        chex.assert_trees_all_close(averaged["params"], wanted, atol=1e-5)
        last = kept[-1]["batch_stats"]
        chex.assert_trees_all_equal(averaged["batch_stats"], last)
        (plain,) = train(tiny_network, recipe, distilled, key_views)
        assert_same_student(kept[-1], plain)

    def test_batch_statistics_are_updated(self, tiny_network, distilled, key_views):
        (variables,) = train(tiny_network, recipe_of(PLAIN), distilled, key_views)
        stats = variables["batch_stats"]["features.1"]
        assert not np.allclose(stats["mean"], 0) and not np.allclose(stats["var"], 1)

    def test_key_of_the_views_matters(self, tiny_network, distilled, key_views):
        one, other = (
            train(tiny_network, recipe_of(MIXED), distilled, key)[0]["params"]
            for key in (key_views, jax.random.key(6))
        )
        assert not np.allclose(
            one["classifier"]["kernel"], other["classifier"]["kernel"]
        )


def test_initial_parameters_are_the_network_s(tiny_network):
    keys = jax.random.split(jax.random.key(0), 2)
    stack = student.initial_state(keys, tiny_network, recipe_of(PLAIN), 12)
    for i, key in enumerate(keys):
        wanted = tiny_network.init(key)["params"]
        got = jax.tree.map(lambda x, i=i: x[i], stack.params)
        chex.assert_trees_all_close(got, wanted, atol=1e-6)
