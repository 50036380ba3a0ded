"""How much noise there is at each step of a diffusion: tables, on the host."""

import itertools
from typing import NamedTuple

import numpy as np

__all__ = ["Schedule", "cosine", "linear", "named", "respaced"]

_LARGEST_BETA = 0.999  # of the cosine schedule, whose last step would be 1


class Schedule(NamedTuple):
    """Tables over the S steps that are kept, numpy float64; index 0 is the least noisy.

        z_t = sqrt(alpha_bar) z_0 + sqrt(1 - alpha_bar) noise

    Attributes:
      timesteps: [S] int, what the network is told: the step of the schedule that it
        was trained with, ascending.
      alpha_bar: [S], share of the signal's variance, descending.
      alpha_bar_prev: [S], the same one step earlier; 1 at index 0.
      beta: [S], 1 - alpha_bar / alpha_bar_prev, the variance that a step adds.
    """

    timesteps: np.ndarray
    alpha_bar: np.ndarray
    alpha_bar_prev: np.ndarray
    beta: np.ndarray

    @property
    def num_steps(self) -> int:
        """S."""
        return len(self.timesteps)

    @property
    def posterior_variance(self) -> np.ndarray:
        """[S], beta (1 - alpha_bar_prev) / (1 - alpha_bar), of z_{t-1} given z_t, z_0."""
        return self.beta * (1 - self.alpha_bar_prev) / (1 - self.alpha_bar)

    @property
    def posterior_log_variance(self) -> np.ndarray:
        """[S], its logarithm; at index 0, where it is that of 0, the one of index 1."""
        variance = self.posterior_variance
        first = variance[1:2] if self.num_steps > 1 else self.beta
        return np.log(np.concatenate([first, variance[1:]]))

    @property
    def log_beta(self) -> np.ndarray:
        """[S], the upper end of a learned log variance."""
        return np.log(self.beta)

    @property
    def posterior_weights(self) -> tuple[np.ndarray, np.ndarray]:
        """[S] each, the shares of z_0 and of z_t in the mean of z_{t-1}."""
        rest = 1 - self.alpha_bar
        of_clean = np.sqrt(self.alpha_bar_prev) * self.beta / rest
        of_noisy = (1 - self.alpha_bar_prev) * np.sqrt(1 - self.beta) / rest
        return of_clean, of_noisy


def linear(num_steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> Schedule:
    """Betas that rise evenly, as those of DDPM and of DiT.

    Args:
      num_steps: T.
      first: beta of the step that adds the least noise.
      last: of the one that adds the most.

    Raises:
      ValueError: no steps, or betas outside (0, 1).

    Reference: J. Ho, A. Jain and P. Abbeel, "Denoising Diffusion Probabilistic Models",
      NeurIPS 2020, https://arxiv.org/abs/2006.11239, Section 4.

    Example:
      >>> from ddjax.diffusion import schedule
      >>> kept = schedule.respaced(schedule.linear(), "50")
      >>> int(kept.timesteps[30]), round(float(kept.alpha_bar[30]), 4)
      (612, 0.0221)
    """
    if not 0 < first <= last < 1:
        raise ValueError(
            f"betas from {first} to {last} must not descend and lie between 0 and 1."
        )
    _check(num_steps)
    return _of_betas(np.linspace(first, last, num_steps, dtype=np.float64))


def cosine(num_steps: int = 1000, last: float = 4e-5) -> Schedule:
    """Less noise in the first steps, for images of few pixels.

        alpha_bar(u) = cos(pi (u + 0.008) / (2 * 1.008))^2,   u = k t / T

    with k so that alpha_bar ends at `last`. By default that is where `linear` ends:
    as published (k = 1) it ends at 2e-9, where an error of the predicted noise is
    amplified 20,000 times, and predicted images have to be clipped, which latents
    cannot be.

    Args:
      num_steps: T.
      last: alpha_bar of the noisiest step; 0 for the published one.

    Raises:
      ValueError: no steps, or a `last` that is not one.

    Reference: A. Nichol and P. Dhariwal, "Improved Denoising Diffusion Probabilistic
      Models", ICML 2021, https://arxiv.org/abs/2102.09672, Equation 17; betas are 0.999
      at most, as there.
    """
    _check(num_steps)
    if not 0 <= last < 0.9:
        raise ValueError(f"alpha_bar {last} of the noisiest step must be in [0, 0.9).")
    end = np.arccos(np.sqrt(last)) * 2 / np.pi * 1.008 - 0.008
    share = np.arange(num_steps + 1, dtype=np.float64) / num_steps * end
    alpha_bar = np.cos((share + 0.008) / 1.008 * np.pi / 2) ** 2
    return _of_betas(np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], _LARGEST_BETA))


def named(name: str, num_steps: int) -> Schedule:
    """A schedule by its name.

    Args:
      name: "linear", with the betas of DDPM, or "cosine".
      num_steps: T.

    Raises:
      ValueError: another name, or no steps.
    """
    known = {"linear": linear, "cosine": cosine}
    if name not in known:
        raise ValueError(f"unknown schedule {name!r}; known: {', '.join(known)}.")
    return known[name](num_steps)


def respaced(schedule: Schedule, steps: str | int) -> Schedule:
    """A schedule of fewer steps, between the same ends of noise.

    The kept steps have the noise, and the network is told the timesteps, that they had;
    the betas between them grow.

    Args:
      schedule: of T steps.
      steps: "50" or 50 keeps 50 of them, from the first to the last as evenly as
        integers can be; "ddim50" keeps every k-th from the first on, for the k that
        leaves 50.

    Raises:
      ValueError: another word, more steps than there are, or no such k.

    Reference: the code of Nichol and Dhariwal (`space_timesteps`), whose lists of
      several counts ("10,20") are left out.
    """
    kept = np.array(_kept(schedule.num_steps, str(steps)))
    alpha_bar = schedule.alpha_bar[kept]
    before = np.concatenate([[1.0], alpha_bar[:-1]])
    return Schedule(schedule.timesteps[kept], alpha_bar, before, 1 - alpha_bar / before)


def _kept(total: int, steps: str) -> list[int]:
    """Indices of the steps that stay."""
    count = steps.removeprefix("ddim")
    if not count.isdecimal() or not 1 <= int(count) <= total:
        raise ValueError(
            f"unknown steps {steps!r} of a schedule that has {total}: say how many to "
            f'keep, 1 to {total}, such as "50", or "ddim50" for an integer stride.'
        )
    count = int(count)
    if steps.startswith("ddim"):
        for stride in range(1, total + 1):
            if len(range(0, total, stride)) == count:
                return list(range(0, total, stride))
        raise ValueError(
            f"no integer stride keeps {count} of {total} steps; leave out the word "
            '"ddim" to space them unevenly.'
        )
    stride = (total - 1) / (count - 1) if count > 1 else 1.0
    # Summed up, as the reference sums: where two integers are as near, this decides.
    places = itertools.accumulate([stride] * (count - 1), initial=0.0)
    return [round(place) for place in places]


def _of_betas(beta: np.ndarray) -> Schedule:
    alpha_bar = np.cumprod(1 - beta)
    before = np.concatenate([[1.0], alpha_bar[:-1]])
    return Schedule(np.arange(len(beta)), alpha_bar, before, beta)


def _check(num_steps: int) -> None:
    if num_steps < 1:
        raise ValueError(f"a schedule of {num_steps} steps; it needs 1 or more.")
