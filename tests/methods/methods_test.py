"""A whole recover step against golden value B; what sets the methods apart."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddjax import losses, methods, models, optimizers
from ddjax.methods import base, cda, wmdd
from ddjax.types import Context, Moments, Targets

MEAN, STD = 0.5, 0.125  # pixels in [0, 1] are then the golden values in [-4, 4]


def _grid(*sizes):
    return np.meshgrid(*map(np.arange, sizes), indexing="ij")


def tiny_teacher(variables, images):
    """Golden B's network: 1x1 convolution, frozen BatchNorm, ReLU, mean, linear."""
    x = (images - MEAN) / STD
    pre = jnp.einsum("nhwi,oi->nhwo", x, variables["conv"])
    o = jnp.arange(3.0)
    normed = (pre - 0.1 * o) * jax.lax.rsqrt(0.5 + 0.1 * o + 1e-5)
    features = jax.nn.relu(normed * (1 + 0.1 * o) - 0.05 * o).mean((1, 2))
    logits = features @ variables["head"].T + jnp.array([0.05, -0.05])
    moments = Moments(pre.mean((1, 2)), pre.var((1, 2)))
    return logits, {"features": features, "moments": (moments,)}


TEACHER = models.Network(None, tiny_teacher, None)


@pytest.fixture(scope="module")
def golden():
    n, h, w, c = _grid(4, 3, 3, 2)
    x = np.sin(1.7 * n + 0.9 * c + 0.5 * h + 0.31 * w + 0.2)
    o, i = _grid(3, 2)
    k, j = _grid(2, 3)
    teacher = {"conv": 0.3 * np.sin(o + 2 * i + 1), "head": 0.2 * np.cos(k + j)}
    stats = Moments(0.05 * (k + 1) - 0.02 * j, 0.2 + 0.05 * j + 0.03 * k)
    i, j = _grid(4, 3)
    targets = Targets(
        images=x * STD + MEAN,
        labels=np.array([0, 0, 1, 1]),
        weights=np.full(4, 0.5),
        features=0.4 + 0.2 * np.sin(1 + j + 2 * i),
        class_stats=(stats,),
    )
    cast = functools.partial(jax.tree.map, lambda x: jnp.asarray(x, jnp.float32))
    targets = cast(targets)._replace(labels=targets.labels)
    return Context(teacher=cast(teacher)), targets


@pytest.fixture(scope="module")
def method():
    return wmdd.method(
        TEACHER,
        optimizers.pixel_adam(0.25, 2000, (STD, STD)),
        augment=lambda key, images, count: images,
        bn_weight=10.0,
        ce_weight=1.0,
    )


def test_loss_terms_are_golden(golden, method):
    context, targets = golden
    state = method.init(jax.random.key(0), context, targets)
    _, metrics = method.step(jax.random.key(0), state, context, targets, ())
    expected = {
        "cross_entropy": 0.688214678,
        "feature": 1.408061849,
        "batch_norm": 6.47896046,
        "loss": 8.575236987,
    }
    found = {name: float(value) for name, value in metrics.items()}
    assert found == pytest.approx(expected, rel=1e-4)


def test_three_steps_are_golden(golden, method):
    context, targets = golden
    state = method.init(jax.random.key(0), context, targets)
    step, values, rows = jax.jit(method.step), [], []
    for i in range(3):
        key = jax.random.key(i)
        state, metrics = step(key, state, context, targets, ())
        values.append(float(metrics["loss"]))
        rows.append((np.asarray(state.images)[0, 0, :, 0] - MEAN) / STD)
    np.testing.assert_allclose(values, [8.575236987, 7.504983057, 6.775291669], 1e-4)
    np.testing.assert_allclose(
        rows[0], [-0.05133065, 0.23817727, 0.48114586], atol=1e-4
    )
    np.testing.assert_allclose(
        rows[1], [-0.27973401, 0.01345239, 0.26132829], atol=1e-4
    )


def test_gradient_is_golden(golden):
    context, targets = golden

    def loss(images):  # the loss of `method`, from its parts
        logits, out = tiny_teacher(context.teacher, images)
        bn = losses.class_batch_norm(out["moments"], targets.class_stats)
        feature = losses.barycenter_distance(out["features"], targets.features)
        return losses.cross_entropy(logits, targets.labels) + feature + 10 * bn

    gradient = np.asarray(jax.grad(loss)(targets.images)) * STD
    assert np.linalg.norm(gradient) == pytest.approx(0.62716473, abs=1e-4)
    assert gradient.sum() == pytest.approx(0.46503321, abs=1e-4)
    first = [
        [0.11253276, 0.10263308, 0.09258906],
        [0.09643236, 0.08677613, 0.07848725],
        [0.08147942, 0.07443082, 0.05135246],
    ]
    np.testing.assert_allclose(gradient[0, :, :, 0], first, atol=1e-5)
    last = [0.01579715, 0.01557599, 0.01894284]
    np.testing.assert_allclose(gradient[3, 2, :, 1], last, atol=1e-5)


def test_matching_means_forgets_which_atom_is_whose(golden):
    """Two atoms of a class that change places move "atoms" but not "mean"."""
    context, targets = golden
    other = targets._replace(features=targets.features[jnp.array([1, 0, 2, 3])])
    for match in ("atoms", "mean"):
        made = wmdd.method(
            TEACHER,
            optimizers.pixel_adam(0.25, 2000, (STD, STD)),
            augment=lambda key, images, count: images,
            match=match,
        )
        terms = [
            made.step(
                jax.random.key(0),
                made.init(jax.random.key(0), context, goal),
                context,
                goal,
                (),
            )[1]["feature"]
            for goal in (targets, other)
        ]
        assert (abs(float(terms[0] - terms[1])) < 1e-6) == (match == "mean")


def test_weights_of_the_atoms_enter_the_statistics(golden, method):
    context, targets = golden
    key = jax.random.key(0)
    heavy = targets._replace(weights=jnp.array([0.9, 0.1, 0.2, 0.8]))
    terms = []
    for goal in (targets, heavy):
        state = method.init(key, context, goal)
        terms.append(method.step(key, state, context, goal, ())[1])
    assert abs(float(terms[0]["batch_norm"] - terms[1]["batch_norm"])) > 1e-2
    assert float(terms[0]["feature"]) == pytest.approx(float(terms[1]["feature"]))


def test_cda_schedule_is_golden():
    found = [cda.lowest_scale(t, 2000) for t in (0, 500, 1000, 1500, 2000, 2500)]
    expected = [1, 0.865269, 0.54, 0.214731, 0.08, 0.08]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def _after_two_steps(network, variables, name, **options):
    """Images after the second and third step of a run of ten, from the same start."""
    method = methods.create(
        name,
        network,
        optax.adam(0.1),
        num_steps=10,
        augment=methods.base.CropFlipRoll((0.3, 1.0), True, 1),
        options=tuple(options.items()),
    )
    start = jax.random.uniform(jax.random.key(1), (3, 8, 8, 3))
    targets = Targets(start, jnp.arange(3), jnp.ones(3))
    context = Context(teacher=variables)
    state = method.init(jax.random.key(0), context, targets)._replace(
        count=jnp.int32(1)
    )
    step = jax.jit(method.step)
    for i in range(2):
        state, _ = step(jax.random.key(i), state, context, targets, ())
    return state.images


def test_cda_is_sre2l_with_another_view(tiny_network, tiny_variables):
    """Once the descent of its crops is over the two are the same, before it not."""
    after = functools.partial(_after_two_steps, tiny_network, tiny_variables)
    sre2l = after("sre2l")
    np.testing.assert_allclose(after("cda", milestone=1e-9), sre2l, atol=1e-5)
    assert float(jnp.abs(after("cda") - sre2l).max()) > 1e-3


def test_global_statistics_are_sre2l(tiny_network, tiny_variables):
    """WMDD's ablation "CE + BN", on any view, has the loss of SRe2L."""
    images = jax.random.uniform(jax.random.key(1), (3, 8, 8, 3))
    _, out = tiny_network.apply(tiny_variables, images)
    targets = Targets(images, jnp.arange(3), jnp.ones(3), out["features"])
    context, terms = Context(teacher=tiny_variables), []
    for name, options in (
        ("wmdd", {"per_class": False, "feature_weight": 0.0, "first_bn_weight": 10.0}),
        ("sre2l", {}),
    ):
        method = methods.create(
            name,
            tiny_network,
            optax.adam(0.1),
            num_steps=1,
            augment=methods.base.CropFlipRoll((0.5, 1.0), True, 1),
            options=tuple({"bn_weight": 2.0, **options}.items()),
        )
        state = method.init(jax.random.key(0), context, targets)
        terms.append(method.step(jax.random.key(0), state, context, targets, ())[1])
    assert float(terms[0]["loss"]) == pytest.approx(float(terms[1]["loss"]), rel=1e-5)
    assert float(terms[1]["batch_norm"]) > 0.1


def test_unknown_names_list_the_known_ones(tiny_network):
    options = {"num_steps": 1, "augment": methods.base.VIEW}
    sgd = optax.sgd(0.1)
    with pytest.raises(
        ValueError,
        match="unknown method 'mtt'; known: cda, dc, dm, dsa, geodm, otg, sre2l, wmdd",
    ):
        methods.create("mtt", tiny_network, sgd, **options)
    with pytest.raises(ValueError, match="no option 'bn_wieght'; known: .*bn_weight"):
        methods.create(
            "wmdd", tiny_network, sgd, **options, options=(("bn_wieght", 1.0),)
        )


class TestCurvature:
    def test_is_one_more_term_and_moves_the_images(self, tiny_network, tiny_variables):
        images = jnp.full((3, 8, 8, 3), 0.4)
        targets = Targets(images, jnp.array([0, 1, 2]), None, None, None)
        context = Context(teacher=tiny_variables)

        def plain(images, context, targets):
            return {"cross_entropy": images.sum()}

        loss = base.with_curvature(
            plain, tiny_network.apply, 2.0, "gradient_difference", 0.7
        )
        terms = loss(images, context, targets)
        wanted = losses.curvature(
            lambda x: tiny_network.apply(tiny_variables, x)[0],
            images,
            targets.labels,
            losses.Curvature("gradient_difference", 1.0, 0.7, units="pixels"),
        )
        assert float(terms["curvature"]) == pytest.approx(2 * float(wanted), rel=1e-5)
        slope = jax.grad(lambda x: loss(x, context, targets)["curvature"])(images)
        assert float(jnp.abs(slope).max()) > 0

    def test_without_a_weight_is_the_loss_itself(self):
        def plain(images, context, targets):
            return {}

        assert base.with_curvature(plain, None, 0.0, "loss_difference", 0.7) is plain

    @pytest.mark.parametrize("name", ["sre2l", "cda", "wmdd"])
    def test_every_method_has_it_as_an_option(self, name, tiny_network):
        options = (("curvature_form", "bent"), ("curvature_weight", 1.0))
        with pytest.raises(ValueError, match="unknown form of curvature 'bent'"):
            methods.create(
                name,
                tiny_network,
                optax.sgd(0.1),
                num_steps=3,
                augment=base.VIEW,
                options=options,
            )
