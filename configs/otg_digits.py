"""Guided sampling of handwritten digits: every term, alone and together.

Method:   OTG, LIA and OTM, https://arxiv.org/abs/2512.00308, beside the guidance of IGD,
          https://openreview.net/forum?id=0whx8MhysK, on a generator of our own.
Command:  python -m launch.evaluate --config=configs/otg_digits.py
Hardware: two CPU cores, an hour.
Expected: the table in the README.
"""

from configs import common, default


def get_config(arg=None):
    """Real images, plain samples, and guided ones; "main" is OTG alone."""
    config = default.base()
    config.name = "otg_digits"
    ablation(config)
    # Strengths were chosen on a fifth of the training images, of two to six for each
    # term, and the window of two: 8x8 pixels keep little at the published one.
    config.methods.otg = common.sampling(
        scale=1.5, window=(2e-4, 0.8), first="capacity", transport_weight=0.1
    )
    config.changes = changes(deviation=1.0, influence=((1, 5.0), (10, 50.0)))
    config.teachers = {
        "resnet": {"model": {"name": "resnet18", "width": 16, "stem": "3x3"}},
        "mobilenet": {"model": {"name": "mobilenet_v2", "width": 0.25}},
    }
    # Who labels, where labels are "+lia": in the order of accuracy.
    config.relabel.teachers = ("", "resnet", "mobilenet")
    config.evaluate.labels = ("hard", "stored", "stored+lia")
    return common.finish(config, arg, main=main)


def ablation(config):
    """What is compared: every term, alone and together, and how students are trained."""
    config.recover.method = "otg"
    config.recover.start = "noise"
    config.changes = changes()
    # The two differ in the transport of logits alone; no image is a mosaic.
    config.evaluate.recipes = ("edc", "edc_otm")
    config.recipes.edc.patch_shuffle = 1
    config.evaluate.labels = ("hard", "stored")
    config.evaluate.whole_epochs = 0
    config.evaluate.against = (
        "random",
        "kmeans",
        *(f"otg.{name}/noise" for name in changes()),
    )


def changes(deviation=((1, 50.0), (50, 120.0)), influence=5.0):
    """The terms that act, by the names of arms; "otg" itself has transport alone.

    Args:
      deviation: gamma; IGD's for ImageNette.
      influence: k; IGD's.
    """
    off = {"transport_weight": 0.0}
    deviation = {"deviation_weight": deviation}
    influence = {"influence_weight": influence}
    return {
        "plain": dict(off),
        "D": off | deviation,
        "DW": dict(deviation),
        "I": off | influence,
        "DI": off | deviation | influence,  # IGD
        "DWI": deviation | influence,
    }


def main(config):
    """OTG beside real images and plain samples."""
    config.evaluate.against = ("random", "kmeans", "otg.plain/noise")
