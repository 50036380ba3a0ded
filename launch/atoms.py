"""What stands for a class: the config's `stats.target`, as a function."""

import functools
from collections.abc import Callable

from ddjax import ot
from ddjax.matching.frame import Space, space_of

TARGETS = {
    "wasserstein": ot.barycenter,
    "sliced": ot.sliced_barycenter,
    "mmd": ot.mmd_atoms,
    "reference": ot.reference_barycenter,
    "product": ot.geodesic_barycenter,
}
SOLVERS = {"semidual": ot.SMOOTH, "lp": ot.lp, "sinkhorn": ot.sinkhorn}
_READS = {
    "wasserstein": ("weights", "init", "restarts", "solver", "iterations"),
    "sliced": ("projections", "iterations"),
    "mmd": (),
    "reference": (),
    "product": ("init", "restarts", "solver", "iterations"),
}


def options(section) -> dict:
    """What the atoms depend on: of the config's section, only what the target reads.

    Raises:
      ValueError: an unknown target, solver, init or kind of weights; a product that
        is no geometry, or weights of atoms that are not equal in one.
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
    if section.target == "product":
        if section.weights != "uniform":
            raise ValueError(
                f"stats.weights is {section.weights!r}; atoms of stats.target "
                "'product' have equal masses: set it to 'uniform'."
            )
        read["product"] = _numbers(section)
        space(section)
    return {"target": section.target, **read}


def recorded(section) -> dict:
    """The whole section, as recovered sets are made from it.

    A product counts only where it is the target: sets of other targets keep the names
    that they had before there was one.
    """
    found = section.to_dict()
    product = found.pop("product", None)
    return found | ({"product": product} if section.target == "product" else {})


def space(section) -> Space | None:
    """The product space that atoms are points of; None for the features' own."""
    if section.target != "product":
        return None
    return space_of(**_numbers(section))


def width(section, features: int) -> int:
    """Coordinates of an atom, for features of such a width."""
    where = space(section)
    return features if where is None else where.width(features)


def _numbers(section) -> dict:
    """The product's fields; a flag that is given one number makes no tuple of it."""
    return {
        name: tuple(value) if isinstance(value, (list, tuple)) else value
        for name, value in section.product.items()
    }


def find(section) -> Callable:
    """`(key, x [n, D], size, a=masses [n]) -> Barycenter`, as the config has it."""
    found = options(section)
    if "product" in found:
        where = space(section)
        found["product"], found["dims"] = where.product, where.dims
    return _find(**found)


@functools.lru_cache(maxsize=8)  # one object for one config, so that it compiles once
def _find(target, solver=None, epsilon=None, **arguments):
    if solver is not None:
        entropy = {} if epsilon is None else {"epsilon": epsilon, "unit": "mean"}
        arguments["solver"] = functools.partial(SOLVERS[solver], **entropy)
    return functools.partial(TARGETS[target], **arguments)
