"""WMDD on ImageNet-21K with ResNet-18: for planning, and for whoever has a pod.

Method:   H. Liu et al., "Dataset Distillation via the Wasserstein Metric", ICCV 2025,
          https://arxiv.org/abs/2311.18531, which has no ImageNet-21K. Our reading:
          CDA's numbers where it has some (Z. Yin and Z. Shen, TMLR 2024,
          https://arxiv.org/abs/2311.18838: 2,000 steps of Adam with 0.05, a weight of
          0.25 of SRe2L's and CDA's statistics, IPC 20, no normalisation of pixels,
          a teacher of 80 epochs), and else WMDD's for ImageNet-1K.
Command:  python -m launch.evaluate --config=configs/wmdd_imagenet21k.py --dry_run \\
              --devices=8,256
          and, where the set is prepared as imagenet21k_p, without the last two.
Hardware: a pod; the dry run tells how long and how much memory.
Expected: not published for WMDD (CDA: 26.4 % at IPC 20, ResNet-18). Not run here yet.

The data is the winter 2021 release as T. Ridnik et al. processed it, at 224 pixels. So
is the teacher's training ("ImageNet-21K Pretraining for the Masses", 2021,
https://arxiv.org/abs/2104.10972), without its cutout, label smoothing, one-cycle
schedule and start from ImageNet-1K.
"""

from configs import common, default, wmdd_imagenette


def get_config(arg=None):
    """ImageNet-21K at 224 pixels."""
    config = default.base()
    wmdd_imagenette.imagenette(config)
    config.name = "wmdd_imagenet21k"
    config.data.name = "imagenet21k_p"
    config.data.workers = 8
    config.data.mean = (0.0, 0.0, 0.0)
    config.data.std = (1.0, 1.0, 1.0)
    config.squeeze.optimizer = "adamw"
    config.squeeze.learning_rate = 3e-4
    config.squeeze.batch_size = 1024
    config.squeeze.epochs = 80
    config.recover.method = "wmdd"
    config.recover.ipc = (20,)
    config.recover.sets = 1
    common.for_all_methods(config, num_steps=2000, learning_rate=0.05, bn_weight=0.25)
    config.methods.wmdd.bn_weight = 500.0  # as for ImageNet-1K
    config.methods.wmdd.ce_weight = 0.0
    # Stored, the labels of one set take 1.3 TB: an image has 300 views of 10,450
    # logits, 42 times its own bytes. "single" labels take 4.4 GB, online ones nothing.
    config.evaluate.labels = ("online",)
    config.evaluate.against = ("random", "cda/noise")
    config.evaluate.quality = False  # each set would be held against 11 million images
    config.evaluate.whole_epochs = 0  # the teacher itself is trained on all images
    return common.finish(config, arg)
