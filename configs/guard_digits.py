"""GUARD on handwritten digits: SRe2L and WMDD from a teacher whose loss is flatter.

Method:   E. Xue, Y. Li, H. Liu, P. Wang, Y. Shen and H. Wang, "Towards Adversarially
          Robust Dataset Distillation by Curvature Regularization", AAAI 2025,
          https://arxiv.org/abs/2403.10045, on the embedded digits.
Command:  python -m launch.evaluate --config=configs/guard_digits.py
Hardware: two CPU cores, an hour, most of it for the attacks.
Expected: the table in the README.

Eight by eight pixels leave little to attack: radii are larger than elsewhere. The
penalty is the difference of losses with the batch's statistics (ours), its strength
chosen for each ipc on held-out training images.
"""

from configs import common, default


def get_config(arg=None):
    """The shapes of the default config."""
    config = default.base()
    config.name = "guard_digits"
    config.recover.method = "sre2l+guard"
    config.recover.start = "noise"
    config.teachers.guard = {
        "curvature": {"h": 1.0, "weight": 1.0, "statistics": "batch"}
    }
    # The released code's for small images: a stronger one ruins its teacher.
    config.teachers.released = {
        "curvature": {"form": "gradient_difference", "h": 1.0, "weight": 0.1}
    }
    config.teachers.adversarial = {"adversarial": {"eps": 16 / 255}}
    config.evaluate.against = (
        "random",
        "random+guard",
        "sre2l/noise",
        "sre2l+released/noise",
        "sre2l+adversarial/noise",
        "wmdd/noise",
        "wmdd+guard/noise",
    )
    config.evaluate.labels = ("stored",)
    config.evaluate.whole_epochs = 0
    config.evaluate.attacks = ("fgsm", "pgd100", "autoattack")
    config.evaluate.radii = (8.0, 16.0, 64.0)  # at the last nothing should be left
    config.evaluate.attack_images = 100
    config.evaluate.strengths = (0.1, 0.3, 1.0, 3.0)
    return common.finish(config, arg)
