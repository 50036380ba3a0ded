"""OTM's loss against SinKD's iterations in PyTorch, POT, and what it must not see."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from scipy.spatial.distance import cdist

from ddjax import losses, ot

# Compiled whole: one by one, the steps of its loops take seconds.
OPTIONS = ("temperature", "epsilon", "iterations", "gradient", "on")
logit_transport = jax.jit(losses.logit_transport, static_argnames=OPTIONS)
sloped = jax.jit(jax.value_and_grad(losses.logit_transport), static_argnames=OPTIONS)


@pytest.fixture(scope="module")
def golden():
    """See make_logit_transport_fixtures.py."""
    path = pathlib.Path(__file__).parent / "fixtures" / "logit_transport.npz"
    with np.load(path) as arrays:
        return dict(arrays)


def value_and_slope(golden, **options):
    teacher = jnp.asarray(golden["teacher"])
    with jax.enable_x64(True):
        return sloped(jnp.asarray(golden["logits"], jnp.float64), teacher, **options)


class TestSinKD:
    @pytest.mark.parametrize(
        ("iterations", "tolerance"),
        [
            (50, 1e-5),  # the default: ours has half an iteration more
            (400, 1e-12),  # where neither moves any more
        ],
    )
    def test_value_and_unrolled_gradient(self, golden, iterations, tolerance):
        options = {} if iterations == 50 else {"iterations": iterations}
        value, slope = value_and_slope(golden, **options)
        wanted = golden[f"{iterations} gradient"]
        assert np.abs(wanted).max() > 0.01
        assert float(value) == pytest.approx(
            float(golden[f"{iterations} loss"]), abs=tolerance
        )
        np.testing.assert_allclose(slope, wanted, rtol=0, atol=tolerance)

    def test_the_envelope_has_the_value_and_another_gradient(self, golden):
        """Longer by a quarter on this batch, and not in the same direction."""
        value, slope = value_and_slope(golden, iterations=400, gradient="envelope")
        assert float(value) == pytest.approx(float(golden["400 loss"]), abs=1e-5)
        wanted = golden["400 gradient"].ravel()
        slope = np.asarray(slope).ravel()
        lengths = np.linalg.norm(wanted), np.linalg.norm(slope)
        assert lengths[0] / lengths[1] == pytest.approx(1.26, abs=0.02)
        assert wanted @ slope / np.prod(lengths) == pytest.approx(0.979, abs=0.01)

    def test_pot_has_the_value_and_the_exact_cost_is_less(self, golden):
        value, _ = value_and_slope(golden, iterations=400)
        assert float(value) == pytest.approx(float(golden["pot"]), abs=1e-10)
        assert golden["exact"] < float(value) < golden["exact"] + 0.1


def test_the_envelope_is_the_gradient_under_a_fixed_plan(golden):
    """dL/ds = sum_ij P_ij dC_ij/ds, by the signs of the differences."""
    teacher = np.float64(golden["teacher"])
    _, slope = value_and_slope(golden, gradient="envelope", iterations=50)
    p, q = (special.softmax(x / 2, axis=1) for x in (golden["logits"], teacher))
    mass = np.full(16, 1 / 16)
    with jax.enable_x64(True):
        cost = jnp.asarray(cdist(p, q, "cityblock").T)
        options = {"epsilon": 0.1, "threshold": 1e-4, "max_iterations": 50}
        plan = np.asarray(ot.sinkhorn(cost, mass, mass, **options).plan).T
    pull = (plan[..., None] * np.sign(p[:, None] - q[None])).sum(1)
    wanted = p * (pull - (p * pull).sum(1, keepdims=True)) / 2
    np.testing.assert_allclose(slope, wanted, atol=1e-12)


@pytest.fixture
def batch():
    random = np.random.default_rng(0)
    teacher = (4 * random.normal(size=(12, 5))).astype(np.float16)
    return jnp.asarray(random.normal(size=(12, 5)), jnp.float32), jnp.asarray(teacher)


@pytest.mark.parametrize("on", losses.TRANSPORTED)
class TestInvariance:
    def test_the_order_of_the_student_s_rows_is_not_seen(self, batch, on):
        logits, teacher = batch
        order = np.random.default_rng(1).permutation(12)
        value = logit_transport(logits, teacher, on=on)
        moved = logit_transport(logits[order], teacher, on=on)
        assert float(moved) == pytest.approx(float(value), rel=1e-5)
        squares = losses.soft_label_distance
        assert abs(squares(logits[order], teacher) - squares(logits, teacher)) > 0.1

    def test_twice_the_batch_is_no_larger(self, batch, on):
        twice = [jnp.concatenate([x, x]) for x in batch]
        value = logit_transport(*batch, on=on, iterations=300)
        assert float(logit_transport(*twice, on=on, iterations=300)) == (
            pytest.approx(float(value), rel=1e-4)
        )

    def test_half_of_the_precision_is_read(self, batch, on):
        """Teachers' logits are stored in float16."""
        logits, teacher = batch
        value = logit_transport(logits, teacher, on=on)
        wanted = logit_transport(logits, teacher.astype(jnp.float32), on=on)
        assert value.dtype == jnp.float32 and float(value) == float(wanted)


def test_well_separated_rows_are_matched_one_by_one():
    """The plan is I / N: what is left is the pointwise distance."""
    teacher = 30 * np.eye(6, dtype=np.float32)
    logits = teacher + np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)
    p, q = (special.softmax(x / 20, axis=1) for x in (logits, teacher))
    wanted = np.abs(p - q).sum(1).mean()
    assert wanted > 0.02
    value = logit_transport(logits, teacher, temperature=20.0, epsilon=0.03)
    assert float(value) == pytest.approx(wanted, rel=1e-3)


def test_images_without_weight_are_padding(batch):
    logits, teacher = batch
    weights = jnp.asarray([3.0] * 8 + [0.0] * 4)
    value = logit_transport(logits, teacher, weights=weights)
    wanted = logit_transport(logits[:8], teacher[:8])
    assert float(value) == pytest.approx(float(wanted), rel=1e-5)


def test_logits_are_counted_in_their_mean_distance(batch):
    """Scaled by ten, the loss is ten times as large: the entropy grows with it."""
    logits, teacher = (x.astype(jnp.float32) for x in batch)
    value = logit_transport(logits, teacher, on="logits")
    large = logit_transport(10 * logits, 10 * teacher, on="logits")
    assert float(large) == pytest.approx(10 * float(value), rel=1e-4)


def test_equal_batches_have_a_finite_slope_and_no_loss():
    """Where every prediction is far from the others."""
    teacher = 20 * jnp.eye(4)
    value, slope = sloped(teacher, teacher)
    assert float(value) < 1e-6 and np.abs(slope).max() < 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on": "labels"}, "unknown on 'labels'; known: probabilities, logits"),
        ({"gradient": "none"}, "unknown gradient 'none'; known: envelope"),
        ({"temperature": 0.0}, "temperature > 0; got 0.0"),
        ({"epsilon": 0.0}, "epsilon > 0; got 0.0"),
    ],
)
def test_bad_options_are_refused(batch, options, message):
    with pytest.raises(ValueError, match=message):
        logit_transport(*batch, **options)
