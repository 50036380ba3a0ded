"""CDA on ImageNette with ResNet-18: SRe2L with crops that start large.

Method:   Z. Yin and Z. Shen, "Dataset Distillation via Curriculum Data Synthesis in
          Large Data Era", TMLR 2024, https://arxiv.org/abs/2311.18838 (its ImageNet-1K
          numbers).
Command:  python -m launch.evaluate --config=configs/cda_imagenette.py
Hardware: one GPU.
Expected: not published for ImageNette. Not run here yet.
"""

from configs import common, default, wmdd_imagenette


def get_config(arg=None):
    """ImageNette at 224 pixels."""
    config = default.base()
    wmdd_imagenette.imagenette(config)
    config.name = "cda_imagenette"
    config.recover.method = "cda"
    config.evaluate.against = ("random", "herding", "kmeans")
    return common.finish(config, arg)
