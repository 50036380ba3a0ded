"""GUARD on CIFAR-10: our reading of SRe2L from a robust ResNet-18 for small images.

Method:   E. Xue, Y. Li, H. Liu, P. Wang, Y. Shen and H. Wang, "Towards Adversarially
          Robust Dataset Distillation by Curvature Regularization", AAAI 2025,
          https://arxiv.org/abs/2403.10045. The penalty is the difference of gradients
          of its code for CIFAR, the rest as in configs/wmdd_cifar10.py.
Command:  python -m launch.evaluate --config=configs/guard_cifar10.py
Hardware: one GPU; a step of squeeze costs 5.4 plain ones. ":cpu" is the same with a
          small ConvNet-3, for two CPU cores.
Expected: not published in this setting; not run here yet.

The released weight is 100, on gradients that its batch of 128 divides by 128: 0.78 here,
where every image has its own. Its teacher is trained for 200 epochs; ours for 50.
"""

from configs import common, default, wmdd_cifar10


def get_config(arg=None):
    """CIFAR-10 at 32 pixels."""
    config = default.base()
    wmdd_cifar10.cifar10(config)
    config.name = "guard_cifar10"
    config.squeeze.curvature.update(form="gradient_difference", weight=0.78, h=3.0)
    config.recover.method = "sre2l"
    return common.finish(config, arg, cpu=wmdd_cifar10.cpu)
