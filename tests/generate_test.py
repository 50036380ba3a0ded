"""Training of generators: what a denoiser that is a few numbers learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import diffusion, generate, loop, parallel
from ddjax.diffusion import Generator

PLAIN = generate.Recipe(
    num_steps=400, batch_size=6, learning_rate=0.02, ema=0.9, decay="cosine", flip=False
)
GREY = np.full((15, 2, 2, 1), 127, np.uint8), np.repeat(np.arange(3), 5)


def init(key):
    del key
    return {"denoiser": {"params": {"w": jnp.zeros(()), "b": jnp.zeros(4)}}}


def denoise(variables, z, t, labels):
    """A number times z, and one for each label; the last is the null label's."""
    del t
    params = variables["denoiser"]["params"]
    return params["w"] * z + params["b"][labels][:, None, None, None], None


# z is 0 for pixels of 127 / 255.
SMALL = Generator(init, denoise, lambda _, x: x - 127 / 255, None, (2, 2, 1), 3)


def train(recipe, generator=SMALL, spread=parallel.single, count=None):
    steps = range(recipe.num_steps if count is None else count)
    state = generate.init(jax.random.key(3), generator, recipe)
    step = generate.make_step(generator, recipe, 15)
    shared = (*GREY, {})
    return loop.run(step, state, shared, jax.random.key(4), steps, spread=spread)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_best_multiple_of_z_is_found(schedule):
    """Of z = s noise, s^2 = 1 - alpha_bar, that is E[s] / E[s^2], over all times."""
    generator = SMALL._replace(noise=(schedule, 1000))
    spread = np.sqrt(1 - generator.schedule.alpha_bar)
    found = generate.variables(train(PLAIN, generator))["denoiser"]["params"]
    assert float(found["w"]) == pytest.approx(
        spread.mean() / (spread**2).mean(), rel=0.05
    )
    np.testing.assert_allclose(found["b"], 0, atol=0.1)


def test_what_is_kept_is_the_average():
    recipe, kept = PLAIN._replace(num_steps=5), 0.0
    step = jax.jit(generate.make_step(SMALL, recipe, 15))
    state = generate.init(jax.random.key(3), SMALL, recipe)
    for index in range(5):
        state, _ = step(state, index, (*GREY, {}), jax.random.key(4))
        kept = 0.9 * kept + 0.1 * float(state.params["w"])
    found = generate.variables(state, {"params": 7})
    assert float(found["denoiser"]["params"]["w"]) == pytest.approx(kept, rel=1e-5)
    assert found["autoencoder"] == {"params": 7}
    assert kept != pytest.approx(float(state.params["w"]), rel=0.1)


def test_the_rate_rises_over_the_warmup_and_falls_to_nothing():
    """Adam's first step is as long as the rate; ten steps later it is all of it."""
    recipe = PLAIN._replace(warmup=10, num_steps=100)
    first = float(train(recipe, count=1).params["w"])
    assert first == pytest.approx(0.1 * 0.02, rel=1e-3)
    assert float(train(PLAIN, count=1).params["w"]) == pytest.approx(0.02, rel=1e-3)
    end = [float(train(recipe, count=n).params["w"]) for n in (99, 100)]
    assert 0 < abs(end[1] - end[0]) < 1e-5


def test_the_null_label_learns_from_what_was_dropped():
    none = train(PLAIN._replace(label_dropout=0.0), count=20)
    assert float(none.params["b"][3]) == 0
    some = train(PLAIN._replace(label_dropout=0.5), count=20)
    assert float(some.params["b"][3]) != 0


def test_devices_share_a_batch():
    alone = train(PLAIN, count=20).params
    shared = train(PLAIN, spread=parallel.sharded(6), count=20).params
    for name, value in alone.items():
        np.testing.assert_allclose(value, shared[name], rtol=1e-4, atol=1e-6)


def test_a_variance_is_learned_beside(tiny_info, tiny_data):
    options = {"width": 8, "depth": 1, "heads": 2, "patch": 4, "learn_sigma": True}
    generator = diffusion.create(tiny_info, model=options)
    step = jax.jit(generate.make_step(generator, PLAIN, 15))
    state = generate.init(jax.random.key(3), generator, PLAIN)
    shared = (tiny_data.images, tiny_data.labels, {})
    reports = []
    for index in range(3):
        state, report = step(state, index, shared, jax.random.key(4))
        reports.append(report)
    assert set(reports[0]) == {"loss", "noise", "bound"}
    assert all(np.isfinite(float(r["bound"])) for r in reports)
    # A fresh network's noise is 0.
    assert float(reports[0]["noise"]) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": 0}, "num_steps 0 and batch_size 6 must be at least 1"),
        ({"ema": 1.0}, "ema 1.0 and label_dropout 0.1"),
        ({"decay": "step"}, "unknown decay 'step'; known: constant, cosine"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        generate.make_step(SMALL, PLAIN._replace(**changes), 15)
