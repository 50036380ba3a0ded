"""WMDD on ImageNet-1K with ResNet-18, as its authors ran it.

Method:   H. Liu et al., "Dataset Distillation via the Wasserstein Metric", ICCV 2025,
          https://arxiv.org/abs/2311.18531 (the released code's recipe; weight 500 of
          the statistics and no cross entropy, as its authors' diary has it).
Command:  python -m launch.prepare --name=imagenet2012, which says where the archives
          belong, and then
          python -m launch.evaluate --config=configs/wmdd_imagenet1k.py
Hardware: several GPUs; --dry_run tells how long and how much memory.
Expected: teacher 63.1 %; students 38.2 at IPC 10 (the paper's). Not run here yet.

Published weights instead of a teacher of one's own (torchvision's reach 69.8 %):
          --config.squeeze.restore=resnet18-f37072fd.pth
          --config.squeeze.restore_classes=sorted
"""

from configs import common, default, wmdd_imagenette


def get_config(arg=None):
    """ImageNet-1K at 224 pixels."""
    config = default.base()
    wmdd_imagenette.imagenette(config)
    config.name = "wmdd_imagenet1k"
    config.data.name = "imagenet2012"
    config.data.workers = 8
    config.recover.method = "wmdd"
    config.recover.ipc = (10, 50, 100)
    config.recover.sets = 1
    config.methods.wmdd.bn_weight = 500.0
    config.methods.wmdd.ce_weight = 0.0
    # Stored, the labels of one set take 6, 30 and 60 GB.
    config.evaluate.labels = ("hard", "online")
    config.evaluate.quality = False  # each set would be held against 1.3 million images
    config.evaluate.whole_epochs = 0  # the teacher itself is trained on all images
    return common.finish(config, arg)
