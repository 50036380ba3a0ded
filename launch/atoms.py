"""What stands for a class: the config's `stats.target`, as a function."""

import functools
from collections.abc import Callable

from ddjax import ot

TARGETS = {
    "wasserstein": ot.barycenter,
    "sliced": ot.sliced_barycenter,
    "mmd": ot.mmd_atoms,
    "reference": ot.reference_barycenter,
}
SOLVERS = {"semidual": ot.SMOOTH, "lp": ot.lp, "sinkhorn": ot.sinkhorn}
_READS = {
    "wasserstein": ("weights", "init", "restarts", "solver", "iterations"),
    "sliced": ("projections", "iterations"),
    "mmd": (),
    "reference": (),
}


def options(section) -> dict:
    """What the atoms depend on: of the config's section, only what the target reads.

    Raises:
      ValueError: an unknown target, solver, init or kind of weights.
    """
    known = {
        "target": TARGETS,
        "solver": SOLVERS,
        "init": ot.INITS,
        "weights": ot.WEIGHTS,
    }
    for name, values in known.items():
        if section[name] not in values:
            raise ValueError(
                f"unknown stats.{name} {section[name]!r}; known: {', '.join(values)}."
            )
    read = {name: section[name] for name in _READS[section.target]}
    if read.get("solver") == "sinkhorn":
        read["epsilon"] = section.epsilon
    return {"target": section.target, **read}


def find(section) -> Callable:
    """`(key, x [n, D], size, a=masses [n]) -> Barycenter`, as the config has it."""
    return _find(**options(section))


@functools.lru_cache(maxsize=8)  # one object for one config, so that it compiles once
def _find(target, solver=None, epsilon=None, **arguments):
    if solver is not None:
        entropy = {} if epsilon is None else {"epsilon": epsilon, "unit": "mean"}
        arguments["solver"] = functools.partial(SOLVERS[solver], **entropy)
    return functools.partial(TARGETS[target], **arguments)
