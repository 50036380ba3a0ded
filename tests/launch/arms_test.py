"""Arms and the sections that say how they recover."""

import pytest

from configs import default
from launch import arms


def test_an_arm_is_a_method_with_a_start_or_a_baseline():
    assert arms.split("wmdd/noise") == ("wmdd", "noise")
    assert arms.split("herding") == ("herding", "real")
    for wrong in ("wmdd", "herding/noise", "wmdd/zeros", "dm/noise"):
        with pytest.raises(
            ValueError, match=f"unknown arm {wrong!r}; known: .*cda/START"
        ):
            arms.split(wrong)


def test_a_section_that_is_missing_or_short_is_refused():
    config = default.get_config()
    with config.unlocked():
        del config.methods.cda
        del config.methods.wmdd.layout
        del config.methods.wmdd.jitter
    with pytest.raises(ValueError, match="no section methods.cda; it has sre2l, wmdd"):
        arms.section(config, "cda")
    with pytest.raises(ValueError, match="methods.wmdd lacks layout, jitter"):
        arms.section(config, "wmdd")
