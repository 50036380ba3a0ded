"""Guided sampling of ImageNet-1K by DiT-XL/2, with its published weights.

Method:   OTG, LIA and OTM, https://arxiv.org/abs/2512.00308, as in
          configs/otg_digits.py, with the papers' networks, steps and scales.
Command:  python -m launch.prepare --name=imagenet2012, which says where the archives
          belong, and then
          python -m launch.evaluate --config=configs/otg_imagenet1k.py
          with two files beside it, which are not downloaded by ddjax:
          DiT-XL-2-256x256.pt, https://github.com/facebookresearch/DiT, whose code and
          weights are CC BY-NC 4.0, not for commercial use; and the autoencoder's
          diffusion_pytorch_model.safetensors of stabilityai/sd-vae-ft-mse, MIT.
Hardware: GPUs; --dry_run tells how long and how much memory.
Expected: the authors' ResNet-18 has 52.9 and 61.9 at IPC 10 and 50 after 300 epochs,
          with labels of several teachers. Not run here yet.
"""

from configs import common, default, otg_digits, wmdd_imagenette


def get_config(arg=None):
    """ImageNet-1K at 256 pixels."""
    config = default.base()
    wmdd_imagenette.imagenette(config)
    config.name = "otg_imagenet1k"
    config.data.name = "imagenet2012"
    config.data.size = 256
    config.data.workers = 8
    published(config)
    config.surrogates.model.depth = 6
    config.surrogates.flip = True
    otg_digits.ablation(config)
    # Three of four channels, as all published numbers of this line.
    config.methods.otg = common.sampling(channels=3)
    config.recover.ipc = (10, 50)
    config.recover.sets = 1
    config.student.models = {"resnet18": config.student.models.resnet18.to_dict()}
    config.teachers = {"mobilenet": {"model": {"name": "mobilenet_v2"}}}
    config.relabel.teachers = ("", "mobilenet")
    config.evaluate.labels = ("hard", "online", "online+lia")
    config.evaluate.quality = False
    return common.finish(config, arg)


def published(config):
    """DiT-XL/2 at 256 pixels, and Stable Diffusion's autoencoder."""
    config.generator.space = "latents"
    config.generator.model = {
        "width": 1152,
        "depth": 28,
        "heads": 16,
        "patch": 2,
        "learn_sigma": True,
        "dtype": "bfloat16",
        "remat": True,
        "scan": True,
    }
    config.generator.schedule = "linear"
    config.generator.autoencoder = {
        "widths": (128, 256, 512, 512),
        "blocks": 2,
        "channels": 4,
        "groups": 32,
        "scale": 0.18215,
        "remat": True,
    }
    config.generator.restore = "DiT-XL-2-256x256.pt"
    config.generator.restore_autoencoder = "diffusion_pytorch_model.safetensors"
