"""Variants of transport guidance, and those that have a name."""

from typing import NamedTuple

from ddjax import ot

__all__ = ["COSTS", "ENTRIES", "FIRST", "GRADIENTS", "PRESETS", "Options"]

COSTS = ("l1", "sphere")
GRADIENTS = ("envelope", "unrolled")
FIRST = ("keep", "skip", "capacity")
ENTRIES = ("z0", "zt", "z0_detached")


class Options(NamedTuple):
    """What is transported, how, and where the current point comes from.

    Attributes:
      cost: "l1", the mean absolute difference of latents, or "sphere", the Euclidean
        distance of latents projected to the unit sphere.
      clusters: centroids that stand for the real latents; 0 for the latents themselves.
      epsilon: positive, strength of the entropy in `unit`.
      unit: "absolute" (that of the cost), or "mean" or "std" of the cost between the
        points so far and the real ones.
      gradient: "envelope" (of the entropic optimum, for a fixed plan) or "unrolled" (of
        <C, P>, through the iterations).
      iterations: at most, or with "unrolled" exactly as many.
      threshold: L1 error of the marginals at which "envelope" stops early.
      first: "keep", "skip" or "capacity": what becomes of the pull to the median, which
        the first image of a class feels.
      at: what the current point is, which the sampler reads: "zt", the noisy latent;
        "z0", its clean estimate, differentiated through the network; "z0_detached", the
        same with d z0 / d z_t taken as the identity.
    """

    cost: str = "l1"
    clusters: int = 0
    epsilon: float = 0.05
    unit: str = "std"
    gradient: str = "envelope"
    iterations: int = 200
    threshold: float = 1e-3
    first: str = "keep"
    at: str = "z0"

    def check(self) -> None:
        """ValueError for what cannot be."""
        known = {
            "cost": COSTS,
            "unit": ot.cost.UNITS,
            "gradient": GRADIENTS,
            "first": FIRST,
            "at": ENTRIES,
        }
        for name, words in known.items():
            if getattr(self, name) not in words:
                raise ValueError(
                    f"unknown {name} {getattr(self, name)!r} of transport guidance; "
                    f"known: {', '.join(words)}."
                )
        if self.epsilon <= 0 or self.iterations < 1 or self.clusters < 0:
            raise ValueError(
                f"transport guidance has epsilon {self.epsilon}, {self.iterations} "
                f"iterations and {self.clusters} clusters; it needs epsilon above 0, "
                "1 iteration or more, and 0 clusters (none) or more."
            )


_SPHERE = Options(
    cost="sphere", epsilon=0.1, unit="absolute", gradient="unrolled", at="zt"
)
# "paper": https://arxiv.org/abs/2512.00308, with our numbers where its note is silent.
# "dmgd": DMGD (CVPR 2026), whose numbers are all known.
# "sinkd": the iterations of SinKD, by the paper's first author, on latents.
PRESETS = {
    "paper": Options(),
    "dmgd": _SPHERE._replace(clusters=10, iterations=5),
    "sinkd": _SPHERE._replace(iterations=20),
}
