"""Guided sampling on handwritten digits: every term alone and together.

Method:   OTG, https://arxiv.org/abs/2512.00308, and IGD's guidance,
          https://openreview.net/forum?id=0whx8MhysK, on a generator of our own; labels by
          one teacher and by several (LIA), students with and without transport of
          logits (OTM).
Command:  python -m launch.evaluate --config=configs/otg_digits.py
Hardware: two CPU cores.
Expected: the table in the README.
"""

from configs import common, default


def get_config(arg=None):
    """Plain samples, each term alone, and all of them."""
    config = default.base()
    config.name = "otg_digits"
    config.recover.method = "otg"
    config.recover.start = "noise"
    config.changes = changes()
    config.evaluate.recipes = ("edc_otm",)
    config.evaluate.labels = ("hard", "stored")
    config.evaluate.against = (
        "random",
        "kmeans",
        *(f"otg.{name}/noise" for name in changes()),
    )
    return common.finish(config, arg)


def changes():
    """Which terms act, by the names of their arms; otg itself has G_W alone."""
    none = {"transport_weight": 0.0, "deviation_weight": 0.0, "influence_weight": 0.0}
    on = {
        "D": {"deviation_weight": 50.0},
        "W": {},
        "I": {"influence_weight": 5.0},
    }
    return {
        "plain": none,
    }
