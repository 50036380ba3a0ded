"""Names of arms for people."""

import pytest

from launch import titles


@pytest.mark.parametrize(
    "arm, wanted",
    [
        ("random", "random"),
        ("kcenter", "K-Center"),
        ("rded", "RDED patches"),
        ("whole data", "whole data"),
        ("wmdd/noise", "WMDD, from noise"),
        ("sre2l/real", "SRe2L, from real images"),
        ("published/sre2l-ipc10", "sre2l-ipc10"),
        ("/data/sets/real", "real"),
        ("mine", "mine"),
        ("sre2l+guard/noise", "SRe2L + GUARD, from noise"),
        ("cda+adversarial/real", "CDA + adversarial, from real images"),
        ("random+guard", "random + GUARD"),
        ("sets/sre2l+guard", "sre2l+guard"),
        ("theirs+guard", "theirs+guard"),
    ],
)
def test_arms_and_folders(arm, wanted):
    assert titles.title(arm) == wanted
