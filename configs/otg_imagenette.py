"""Guided sampling of ImageNette at 64 pixels by a generator trained from scratch.

Method:   OTG, LIA and OTM, https://arxiv.org/abs/2512.00308, as in
          configs/otg_digits.py. The authors sample 256 pixels from a network that was
          trained on all of ImageNet; this one has seen these 9,469 images alone, some
          150 times each, before it would remember them: see the distances to the
          nearest training images in the report.
Command:  python -m launch.evaluate --config=configs/otg_imagenette.py
Hardware: one GPU.
Expected: not run yet. With published networks: configs/otg_imagenet1k.py.
"""

from configs import common, default, otg_cifar10, otg_digits, wmdd_imagenette


def get_config(arg=None):
    """ImageNette at 64 pixels."""
    config = default.base()
    wmdd_imagenette.imagenette(config)
    config.name = "otg_imagenette"
    config.data.size = 64
    for model in (config.squeeze.model, config.student.models.resnet18):
        model.stem = "3x3"
    otg_cifar10.generator(config)
    config.generator.model.patch = 4
    config.generator.num_steps = 5_500  # 150 epochs
    config.surrogates.model.depth = 4
    otg_digits.ablation(config)
    config.methods.otg = common.sampling(scale=2.0, window=(2e-4, 0.05))
    config.recover.ipc = (1, 10, 50)
    config.student.models = {"resnet18": config.student.models.resnet18.to_dict()}
    return common.finish(config, arg)
