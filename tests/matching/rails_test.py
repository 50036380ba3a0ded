"""What crosses a rail is told once, in a sentence; what does not is not."""

import pytest

from ddjax.matching import rails

SOUND = {
    "loss": 1e9,
    "matching": 1e9,
    "hyperbolic/clipped": 0.2,
    "spherical/clipped": 0.0,
    "hyperbolic/curvature": 1.0,
    "spherical/curvature": 0.11,
    "weights/euclidean": 0.97,
    "ot/gradient_ratio": 0.5,
    "pixels/outside": 1.0,
}


def test_a_sound_run_is_told_nothing():
    assert rails.warnings(SOUND) == {}
    assert rails.warnings({}) == {}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("hyperbolic/clipped", 0.21, "21% of the hyperbolic points are at the radius"),
        (
            "hyperbolic/curvature",
            10.0,
            "the hyperbolic curvature 10 has reached a bound",
        ),
        ("spherical/curvature", 0.1, "the spherical curvature 0.1 has reached a bound"),
        ("weights/euclidean", 0.99, "the weight of the euclidean factor is 0.99"),
        ("ot/gradient_ratio", 11.0, "transport is 11 times that of matching"),
        ("ot/gradient_ratio", 1e-3, "transport is 0.001 times that of matching"),
    ],
)
def test_what_crosses_its_rail(name, value, said):
    told = rails.warnings({**SOUND, name: value})
    assert list(told) == [name]
    assert said in told[name]
    assert told[name].endswith(".")  # and what to do


def test_transport_that_does_not_pull_is_no_warning():
    """Its weight is 0, or synthetic images are where they should be."""
    assert rails.warnings({"ot/gradient_ratio": 0.0}) == {}
