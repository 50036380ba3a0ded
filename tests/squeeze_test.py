"""Teachers: one step by hand, learning, and going on where it stopped."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from ddjax import loop, losses, metrics, squeeze, training
from ddjax.data import batches

PLAIN = squeeze.Recipe(
    learning_rate=0.05, batch_size=6, epochs=20, crop_scale=(1.0, 1.0), flip=False
)


def toy(per_class, seed):
    """Three patterns of 8x8 pixels under noise: uint8 images and labels."""
    patterns = np.random.default_rng(0).uniform(0.2, 0.8, (3, 8, 8, 3))
    noise = np.random.default_rng(seed).normal(0, 0.1, (3, per_class, 8, 8, 3))
    images = np.clip(patterns[:, None] + noise, 0, 1).reshape(-1, 8, 8, 3)
    return (images * 255).astype(np.uint8), np.repeat(np.arange(3), per_class)


@pytest.fixture(scope="module")
def shared():
    images, labels = toy(5, seed=1)
    return jnp.asarray(images), jnp.asarray(labels)


def train(network, recipe, shared, *, done=0, state=None, observe=None):
    count = len(shared[1])
    if state is None:
        state = squeeze.init(jax.random.key(3), network, recipe, count)
    step = squeeze.make_step(network, recipe, count)
    steps = range(done, squeeze.num_steps(recipe, count))
    return loop.run(step, state, shared, jax.random.key(4), steps, observe=observe)


class TestStep:
    def test_first_step_by_hand(self, tiny_network, shared):
        """Cross entropy of the batch; w -= lr (gradient + decay w)."""
        recipe = PLAIN._replace(weight_decay=0.1)
        images, labels = shared
        state = squeeze.init(jax.random.key(3), tiny_network, recipe, 15)
        key = jax.random.key(4)
        step = squeeze.make_step(tiny_network, recipe, 15)
        after, report = jax.jit(step)(state, 0, shared, key)

        rows = batches.indices(jax.random.split(key)[0], 0, 15, 6)
        batch = images[rows] / jnp.float32(255)

        def loss(params):
            variables = {"params": params, "batch_stats": state.batch_stats}
            logits, stats = tiny_network.apply_train(variables, batch)
            log_q = logits - jax.scipy.special.logsumexp(logits, 1, keepdims=True)
            return -log_q[jnp.arange(6), labels[rows]].mean(), (logits, stats)

        gradient, (logits, stats) = jax.jit(jax.grad(loss, has_aux=True))(state.params)
        wanted = jax.tree.map(
            lambda p, g: p - 0.05 * (g + 0.1 * p), state.params, gradient
        )
        chex.assert_trees_all_close(after.params, wanted, rtol=1e-4, atol=1e-5)
        chex.assert_trees_all_close(after.batch_stats, stats, rtol=1e-4, atol=1e-6)
        log_q = special.log_softmax(np.asarray(logits, np.float64), axis=1)
        exact = -log_q[np.arange(6), np.asarray(labels)[rows]].mean()
        assert float(report["loss"]) == pytest.approx(exact, rel=1e-5)

    def test_views_depend_on_step_and_key_only(self, tiny_network, shared):
        recipe = squeeze.Recipe(batch_size=6, epochs=2)
        state = squeeze.init(jax.random.key(3), tiny_network, recipe, 15)
        step = jax.jit(squeeze.make_step(tiny_network, recipe, 15))
        losses = {
            (index, seed): float(
                step(state, index, shared, jax.random.key(seed))[1]["loss"]
            )
            for index in (0, 1, 3)
            for seed in (4, 5)
        }
        assert len(set(losses.values())) == 6
        again = step(state, 1, shared, jax.random.key(4))[1]["loss"]
        assert float(again) == losses[1, 4]

    @pytest.mark.parametrize(
        ("change", "moves"),
        [({}, False), ({"crop_scale": (0.2, 0.6)}, True), ({"flip": True}, True)],
        ids=["none", "crop", "flip"],
    )
    def test_images_are_augmented_anew_at_every_step(
        self, tiny_network, shared, change, moves
    ):
        """One image, many times over: the order of the rows makes no difference."""
        same = tuple(jnp.repeat(array[:1], 15, axis=0) for array in shared)
        recipe = PLAIN._replace(batch_size=15, **change)
        state = squeeze.init(jax.random.key(3), tiny_network, recipe, 15)
        step = jax.jit(squeeze.make_step(tiny_network, recipe, 15))
        losses = [
            float(step(state, index, same, jax.random.key(4))[1]["loss"])
            for index in range(4)
        ]
        assert (np.ptp(losses) > 1e-3) == moves, losses

    def test_streamed_step_learns_from_its_batch_alike(self, tiny_network, shared):
        recipe = PLAIN._replace(batch_size=15)
        state = squeeze.init(jax.random.key(3), tiny_network, recipe, 15)
        key = jax.random.key(4)
        wanted, loss = jax.jit(squeeze.make_step(tiny_network, recipe, 15))(
            state, 0, shared, key
        )
        streamed = jax.jit(squeeze.make_streamed_step(tiny_network, recipe, 15))
        got, streamed_loss = streamed(state, 0, (), (key, shared))
        chex.assert_trees_all_close(got, wanted, rtol=1e-3, atol=1e-4)
        chex.assert_trees_all_close(streamed_loss, loss, rtol=1e-5)

    def test_streamed_images_are_flipped_anew_at_every_step(self, tiny_network, shared):
        recipe = PLAIN._replace(batch_size=15, flip=True)
        state = squeeze.init(jax.random.key(3), tiny_network, recipe, 15)
        step = jax.jit(squeeze.make_streamed_step(tiny_network, recipe, 15))
        losses = [
            float(step(state, i, (), (jax.random.key(4), shared))[1]["loss"])
            for i in (0, 1, 2, 0)
        ]
        assert len(set(losses)) == 3 and losses[0] == losses[3]

    def test_unknown_optimizer_raises(self, tiny_network):
        with pytest.raises(ValueError, match="unknown optimizer 'adam'; known: sgd"):
            squeeze.make_step(tiny_network, PLAIN._replace(optimizer="adam"), 15)
        with pytest.raises(ValueError, match="unknown optimizer 'adam'; known: sgd"):
            squeeze.make_streamed_step(
                tiny_network, PLAIN._replace(optimizer="adam"), 15
            )


class TestTraining:
    @pytest.mark.parametrize(
        ("optimizer", "learning_rate"), [("sgd", 0.05), ("adamw", 0.02)]
    )
    def test_teacher_learns(self, tiny_network, shared, optimizer, learning_rate):
        recipe = PLAIN._replace(optimizer=optimizer, learning_rate=learning_rate)
        losses = []
        state = train(
            tiny_network,
            recipe,
            shared,
            observe=lambda done, state, report: losses.append(
                float(report["loss"][-1])
            ),
        )
        images, labels = toy(40, seed=2)
        variables = training.variables(state)
        assert metrics.accuracy(tiny_network.apply, variables, images, labels) > 0.9
        assert len(losses) == squeeze.num_steps(recipe, 15) == 60
        assert np.mean(losses[-5:]) < 0.3 * np.mean(losses[:5])

    def test_resumed_training_is_the_same(self, tiny_network, shared):
        recipe, kept = squeeze.Recipe(batch_size=6, epochs=3), {}

        def observe(done, state, report):
            del report
            kept[done] = jax.tree.map(lambda x: np.array(x, copy=True), state)

        whole = train(tiny_network, recipe, shared, observe=observe)
        assert sorted(kept) == list(range(1, 10))
        resumed = train(tiny_network, recipe, shared, state=kept[4], done=4)
        chex.assert_trees_all_equal(resumed, whole)

    def test_learning_rate_ends_near_zero(self, tiny_network, shared):
        """In the last of E epochs it is lr (1 + cos(pi (E - 1) / E)) / 2."""
        kept = {}

        def observe(done, state, report):
            del report
            if done in (1, 2, 59, 60):
                kept[done] = np.array(state.params["classifier"]["kernel"], copy=True)

        train(tiny_network, PLAIN, shared, observe=observe)
        early = np.abs(kept[2] - kept[1]).max()
        late = np.abs(kept[60] - kept[59]).max()
        assert 0 < late < 0.02 * early

    def test_a_constant_rate_stays(self, tiny_network, shared):
        """The last step of the training is as long as the first."""
        recipe = PLAIN._replace(momentum=0.0, weight_decay=0.0, schedule="constant")
        state = squeeze.init(jax.random.key(3), tiny_network, recipe, 15)
        last = squeeze.num_steps(recipe, 15)
        counted = jax.tree.map(
            lambda x: x + last if x.dtype == jnp.int32 else x, state.opt_state
        )
        step = jax.jit(squeeze.make_step(tiny_network, recipe, 15))
        one, other = (
            step(state._replace(opt_state=s), 0, shared, jax.random.key(4))[0]
            for s in (state.opt_state, counted)
        )
        chex.assert_trees_all_equal(one.params, other.params)

    def test_unknown_schedule_raises(self, tiny_network):
        with pytest.raises(ValueError, match="'linear'; known: cosine, constant"):
            squeeze.make_step(tiny_network, PLAIN._replace(schedule="linear"), 15)


class TestRecipe:
    def test_num_steps(self):
        recipe = squeeze.Recipe(batch_size=32, epochs=50)
        assert squeeze.num_steps(recipe, 1437) == 50 * 45
        assert squeeze.num_steps(recipe, 10) == 50

    def test_defaults_are_wmdd_s(self):
        """pretrain/presets.py: SGD 0.025, momentum 0.9, decay 1e-4, batch 32, 50."""
        recipe = squeeze.Recipe()
        assert (recipe.optimizer, recipe.learning_rate) == ("sgd", 0.025)
        assert (recipe.momentum, recipe.weight_decay) == (0.9, 1e-4)
        assert (recipe.batch_size, recipe.epochs) == (32, 50)
        assert recipe.crop_scale == (0.08, 1.0) and recipe.flip

    def test_init_is_fresh(self, tiny_network):
        state = squeeze.init(jax.random.key(3), tiny_network, PLAIN, 15)
        fresh = tiny_network.init(jax.random.key(3))
        chex.assert_trees_all_equal(training.variables(state), fresh)


class TestRobustTeachers:
    def test_where_both_are_off_the_step_is_the_plain_one(self, tiny_network, shared):
        """The same program, to the letter: words that do not act change nothing."""
        off = PLAIN._replace(
            curvature=losses.Curvature("gauss_newton", h=1.0),
            adversarial=squeeze.Adversarial(num_steps=7),
        )
        state = squeeze.init(jax.random.key(3), tiny_network, PLAIN, 15)
        plain, same = (
            str(
                jax.make_jaxpr(squeeze.make_step(tiny_network, recipe, 15))(
                    state, 0, shared, jax.random.key(4)
                )
            )
            for recipe in (PLAIN, off)
        )
        assert plain == same

    @pytest.mark.parametrize("statistics", ["running", "batch"])
    def test_terms_by_hand(self, tiny_network, shared, statistics):
        options = losses.Curvature("gradient_norm", 0.5, statistics=statistics)
        recipe = PLAIN._replace(batch_size=15, curvature=options)
        state = squeeze.init(jax.random.key(3), tiny_network, recipe, 15)
        step = jax.jit(squeeze.make_streamed_step(tiny_network, recipe, 15))
        _, terms = step(state, 0, (), (jax.random.key(4), shared))
        images, labels = shared[0] / jnp.float32(255), shared[1]
        variables = training.variables(state)

        def loss(images):
            if statistics == "batch":
                logits = tiny_network.apply_train(variables, images)[0]
            else:
                logits = tiny_network.apply(variables, images)[0]
            return losses.cross_entropy(logits, labels)

        if statistics == "running":
            slopes = 15 * jax.grad(loss)(images) * jnp.array(tiny_network.std)
            wanted = 0.5 * jnp.sqrt(jnp.sum(slopes**2, (1, 2, 3))).mean()
            assert float(terms["curvature"]) == pytest.approx(float(wanted), rel=1e-4)
        total = terms["cross_entropy"] + terms["curvature"]
        assert float(terms["loss"]) == pytest.approx(float(total), rel=1e-6)
        logits = tiny_network.apply_train(variables, images)[0]
        wanted = losses.cross_entropy(logits, labels)
        assert float(terms["cross_entropy"]) == pytest.approx(float(wanted), rel=1e-4)

    def test_adversarial_images_are_near_and_hard(self, tiny_network, shared):
        images, labels = shared[0] / jnp.float32(255), shared[1]
        variables = tiny_network.init(jax.random.key(3))

        def logits_fn(images):
            return tiny_network.apply(variables, images)[0]

        options = squeeze.Adversarial(eps=0.1, num_steps=5)
        found = squeeze.adversarial_images(
            jax.random.key(0), logits_fn, images, labels, options
        )
        assert float(jnp.abs(found - images).max()) <= 0.1 + 1e-6
        assert float(found.min()) >= 0 and float(found.max()) <= 1
        harder, given = (
            float(losses.cross_entropy(logits_fn(x), labels)) for x in (found, images)
        )
        assert harder > given

    def test_penalty_flattens_and_attacks_harden(self, tiny_network, shared):
        """Both against a plain teacher of as many epochs, on images not seen."""
        images, labels = toy(40, seed=2)
        images, labels = images / np.float32(255), jnp.asarray(labels)
        flat = losses.Curvature(weight=1.0, h=2.0, statistics="batch")
        attack = squeeze.Adversarial(eps=0.2, num_steps=3)

        def judge(recipe):
            variables = training.variables(train(tiny_network, recipe, shared))

            def logits_fn(images):
                return tiny_network.apply(variables, images)[0]

            curved = losses.curvature(logits_fn, images, labels, flat, tiny_network.std)
            found = squeeze.adversarial_images(
                jax.random.key(0), logits_fn, images, labels, attack
            )
            return float(curved), float((logits_fn(found).argmax(1) == labels).mean())

        plain = judge(PLAIN)
        assert judge(PLAIN._replace(curvature=flat))[0] < 0.7 * plain[0]
        assert judge(PLAIN._replace(adversarial=attack))[1] > plain[1] + 0.05

    def test_refuses_what_cannot_be(self, tiny_network):
        with pytest.raises(ValueError, match="eps -0.1, num_steps 3 and step_size"):
            bad = PLAIN._replace(adversarial=squeeze.Adversarial(-0.1))
            squeeze.make_step(tiny_network, bad, 15)
        with pytest.raises(ValueError, match="unknown form of curvature 'bent'"):
            bad = PLAIN._replace(curvature=losses.Curvature("bent"))
            squeeze.make_step(tiny_network, bad, 15)
