"""Guard rails: what a run that learns or bends a geometry should be told."""

from ddjax.matching.learned import BOUNDS

__all__ = ["warnings"]

_CLIPPED = 0.2
_VERTEX = 0.98
_RATIO = (0.01, 10.0)


def warnings(metrics: dict[str, float]) -> dict[str, str]:
    """What is wrong with some watched numbers, in words.

    Args:
      metrics: of a step, by name; those with a slash are looked at.

    Returns:
      A sentence for each name that has crossed its rail.
    """
    told = {}
    for name, value in metrics.items():
        of, _, what = name.partition("/")
        rule = _RULES.get(what if what in _RULES else of if what else "")
        sentence = rule(of, what, value) if rule else None
        if sentence:
            told[name] = sentence
    return told


def _clipped(of, what, value):
    if value > _CLIPPED:
        return (
            f"{value:.0%} of the {of} points are at the radius where they are clipped: "
            "their distance from the origin is lost. Lower scale, or the curvature."
        )


def _curvature(of, what, value):
    low, high = BOUNDS
    if not 1.01 * low < abs(value) < 0.99 * high:
        return (
            f"the {of} curvature {value:.3g} has reached a bound ({low} to {high}): "
            "nothing holds it. Freeze it, or raise curvature_weight."
        )


def _weight(of, what, value):
    if value > _VERTEX:
        return (
            f"the weight of the {what} factor is {value:.2f}: the others have "
            "collapsed. Fix the weights, or raise entropy."
        )


def _ratio(of, what, value):
    low, high = _RATIO
    if value > high or 0 < value < low:
        return (
            f"the gradient of transport is {value:.2g} times that of matching: one of "
            "the two does all the work. Change ot_weight."
        )


_RULES = {
    "clipped": _clipped,
    "curvature": _curvature,
    "weights": _weight,
    "gradient_ratio": _ratio,
}
