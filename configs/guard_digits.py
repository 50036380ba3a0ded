"""GUARD on handwritten digits: SRe2L from a teacher whose loss is flatter.

Method:   E. Xue, Y. Li, H. Liu, P. Wang, Y. Shen and H. Wang, "Towards Adversarially
          Robust Dataset Distillation by Curvature Regularization", AAAI 2025,
          https://arxiv.org/abs/2403.10045, on the embedded digits.
Command:  python -m launch.evaluate --config=configs/guard_digits.py
Hardware: two CPU cores, a few minutes, compilation included.
Expected: not published; not run here yet.
"""

from configs import common, default


def get_config(arg=None):
    """The shapes of the default config."""
    config = default.base()
    config.name = "guard_digits"
    config.squeeze.curvature.update(form="loss_difference", weight=0.3, h=3.0)
    config.recover.method = "sre2l"
    config.recover.start = "noise"
    return common.finish(config, arg)
