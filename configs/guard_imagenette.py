"""GUARD on ImageNette with ResNet-18: our reading of SRe2L from a robust teacher.

Method:   E. Xue, Y. Li, H. Liu, P. Wang, Y. Shen and H. Wang, "Towards Adversarially
          Robust Dataset Distillation by Curvature Regularization", AAAI 2025,
          https://arxiv.org/abs/2403.10045.
Command:  python -m launch.evaluate --config=configs/guard_imagenette.py
Hardware: one GPU; a step of a penalised teacher costs 3.3 plain ones, and AutoAttack
          on an image that withstands it as much as 9,700 forward passes.
Expected: not run here yet. Published at IPC 1 / 10 / 50, against SRe2L's in brackets:
          clean 37.5 / 57.9 / 80.9 % (28.0 / 42.4 / 80.2), under PGD-100 at 1/255
          16.2 / 23.9 / 41.4 % (12.1 / 4.8 / 12.3), and under an AutoAttack that may be
          the one of 10 iterations 15.8 / 19.7 / 42.5 % (12.1 / 5.0 / 12.9).

No setting that reproduces these numbers is published: the released command leaves the
weight of the penalty at 1e-4, where it is lost beside the cross entropy, and the field
it does set is not read. "released" has the released form with the largest weight that
did no harm elsewhere; "guard" the batch's statistics (ours), and a strength that is
chosen for each ipc on held-out training images. The rest is as released: 2000 steps of
recover, and BatchNorm statistics weighted by the default 0.01, where the command has 10.
"""

from configs import common, default, wmdd_imagenette


def get_config(arg=None):
    """ImageNette at 224 pixels."""
    config = default.base()
    wmdd_imagenette.imagenette(config)
    config.name = "guard_imagenette"
    config.recover.method = "sre2l+guard"
    config.recover.ipc = (1, 10, 50, 100)
    config.teachers.guard = {
        "curvature": {"h": 3.0, "weight": 0.3, "statistics": "batch"}
    }
    config.teachers.released = {"curvature": {"h": 3.0, "weight": 0.1}}
    # The ten steps and the radius that the students are attacked with first.
    config.teachers.adversarial = {"adversarial": {"eps": 1 / 255, "num_steps": 10}}
    config.methods.sre2l.update(num_steps=2000, bn_weight=0.01)
    config.methods.wmdd.num_steps = 2000
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
    config.evaluate.attacks = ("pgd100", "mim", "square", "autoattack")
    config.evaluate.attacks += ("cw", "cw_torchattacks")
    config.evaluate.radii = (1.0, 2.0, 4.0)
    config.evaluate.attack_batch = 100
    config.evaluate.strengths = (0.1, 0.3, 1.0)
    return common.finish(config, arg)
