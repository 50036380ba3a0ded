"""SRe2L on ImageNette with ResNet-18, under WMDD's squeeze and student recipes.

Method:   Z. Yin, E. Xing and Z. Shen, "Squeeze, Recover and Relabel", NeurIPS 2023,
          https://arxiv.org/abs/2306.13092 (its ImageNet-1K numbers).
Command:  python -m launch.evaluate --config=configs/sre2l_imagenette.py
Hardware: one GPU.
Expected: 20.6 / 54.2 / 80.4 at IPC 1 / 10 / 50, as WMDD's authors measured it in their
          recipe. Not run here yet.
"""

from configs import common, default, wmdd_imagenette


def get_config(arg=None):
    """ImageNette at 224 pixels."""
    config = default.base()
    wmdd_imagenette.imagenette(config)
    config.name = "sre2l_imagenette"
    config.recover.method = "sre2l"
    config.evaluate.against = ("random", "herding", "kmeans")
    return common.finish(config, arg)
