"""Tables of noise against the published definitions, and which steps are kept."""

import numpy as np
import pytest

from ddjax.diffusion import schedule

# original step, alpha_bar, sqrt(1 - alpha_bar), 1 / sqrt(alpha_bar); by index of 50.
WINDOW = {
    45: (917, 0.0002, 0.9999, 71.1),
    40: (816, 0.0012, 0.9994, 29.4),
    35: (714, 0.0056, 0.9972, 13.3),
    30: (612, 0.0221, 0.9889, 6.7),
    25: (510, 0.0702, 0.9642, 3.8),
    20: (408, 0.1813, 0.9048, 2.35),
    10: (204, 0.6456, 0.5953, 1.24),
}


def written_out(betas, kept):
    """The tables of kept steps by loops over scalars, as the papers define them."""
    bars, product = [], 1.0
    for beta in betas:
        product *= 1 - beta
        bars.append(product)
    rows, before = [], 1.0
    for t in kept:
        bar = bars[t]
        beta = 1 - bar / before
        posterior = beta * (1 - before) / (1 - bar)
        rows.append(
            (
                t,
                bar,
                before,
                beta,
                posterior,
                before**0.5 * beta / (1 - bar),
                (1 - before) * (1 - beta) ** 0.5 / (1 - bar),
            )
        )
        before = bar
    return np.array(rows).T


def assert_written_out(found, betas, kept):
    wanted = written_out(betas, kept)
    made = (*found, found.posterior_variance, *found.posterior_weights)
    for one, other in zip(made, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)
    logs = np.log(np.append(wanted[4][1], wanted[4][1:]))
    np.testing.assert_allclose(found.posterior_log_variance, logs, rtol=1e-12)
    np.testing.assert_allclose(found.log_beta, np.log(wanted[3]), rtol=1e-12)


def linear_betas(count=1000):
    return [1e-4 + (0.02 - 1e-4) * i / (count - 1) for i in range(count)]


def test_linear_is_ddpms():
    assert_written_out(schedule.linear(), linear_betas(), range(1000))


def test_cosine_is_nichols():
    def bar(u):
        return np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2

    betas = [min(1 - bar((i + 1) / 100) / bar(i / 100), 0.999) for i in range(100)]
    assert betas[-1] == 0.999
    assert_written_out(schedule.cosine(100, last=0.0), betas, range(100))


def test_cosine_ends_where_linear_does_and_begins_as_nichols():
    found, linear = schedule.cosine(), schedule.linear()
    assert found.alpha_bar[-1] == pytest.approx(4e-5, rel=0.01)
    assert linear.alpha_bar[-1] == pytest.approx(4e-5, rel=0.02)
    published = schedule.cosine(last=0.0)
    np.testing.assert_allclose(
        found.alpha_bar[:500], published.alpha_bar[:500], atol=0.01
    )
    assert np.all(found.alpha_bar > linear.alpha_bar * 0.99)


@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        ("50", [round(i * 999 / 49) for i in range(50)]),
        (250, [round(i * 999 / 249) for i in range(250)]),
        ("ddim50", list(range(0, 1000, 20))),
        ("ddim25", list(range(0, 1000, 40))),
        ("1", [0]),
        (1000, list(range(1000))),
    ],
)
def test_respaced_keeps_the_steps_of_the_reference(steps, kept):
    found = schedule.respaced(schedule.linear(), steps)
    assert found.timesteps.tolist() == kept
    if len(kept) > 1:
        assert_written_out(found, linear_betas(), kept)


def test_the_guided_window_is_the_published_one():
    found = schedule.respaced(schedule.linear(), "50")
    for index, (step, bar, noise, inverse) in WINDOW.items():
        assert found.timesteps[index] == step
        assert found.alpha_bar[index] == pytest.approx(bar, abs=5.1e-5)
        assert (1 - found.alpha_bar[index]) ** 0.5 == pytest.approx(noise, abs=5.1e-5)
        assert found.alpha_bar[index] ** -0.5 == pytest.approx(inverse, rel=1.2e-2)


def test_respacing_twice_still_tells_the_network_the_original_steps():
    once = schedule.respaced(schedule.linear(), "ddim100")
    twice = schedule.respaced(once, "ddim10")
    assert twice.timesteps.tolist() == list(range(0, 1000, 100))
    np.testing.assert_allclose(twice.alpha_bar, once.alpha_bar[::10], rtol=1e-15)


def test_what_cannot_be_kept_is_refused():
    with pytest.raises(ValueError, match="unknown steps '2000'"):
        schedule.respaced(schedule.linear(), 2000)
    with pytest.raises(ValueError, match="unknown steps 'fast'"):
        schedule.respaced(schedule.linear(), "fast")
    with pytest.raises(ValueError, match="no integer stride keeps 999"):
        schedule.respaced(schedule.linear(), "ddim999")
    with pytest.raises(ValueError, match="must not descend"):
        schedule.linear(10, 0.1, 0.01)
    with pytest.raises(ValueError, match="noisiest step must be in"):
        schedule.cosine(10, last=1.0)
    with pytest.raises(ValueError, match="needs 1 or more"):
        schedule.cosine(0)
