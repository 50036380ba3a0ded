"""DM, DC and DSA on CIFAR-10, as their authors' code has them.

Method:   B. Zhao and H. Bilen, "Dataset Condensation with Distribution Matching", WACV
          2023, https://arxiv.org/abs/2110.04181; "Dataset Condensation with Gradient
          Matching", ICLR 2021, https://arxiv.org/abs/2006.05929; "... Differentiable
          Siamese Augmentation", ICML 2021, https://arxiv.org/abs/2102.08259.
Command:  python -m launch.evaluate --config=configs/dm_cifar10.py
Hardware: one GPU. ":cpu" is the same comparison made small.
Expected: published with hard labels at IPC 1, 10, 50: DM 26.0, 48.9, 63.0; DSA 28.8,
          52.1, 60.6; DC 28.3, 44.9, 53.9 (DC without augmentation, recipe "dc").
          Not run yet; DM at one image per class, made small, is in the README beside
          GeoDM.
"""

from configs import common, default


def get_config(arg=None):
    """CIFAR-10 at 32 pixels, ConvNet-3 with InstanceNorm."""
    config = default.base()
    cifar10(config)
    config.name = "dm_cifar10"
    return common.finish(config, arg, cpu=cpu)


def cifar10(config):
    """What all methods that match real images do alike on CIFAR-10."""
    config.data.name = "cifar10"
    config.data.mean = (0.4914, 0.4822, 0.4465)
    config.data.std = (0.2023, 0.1994, 0.2010)
    convnet = {
        "name": "convnet",
        "width": 128,
        "depth": 3,
        "norm": "instance",
        "initializer": "torch",
    }
    config.squeeze.model = dict(convnet)  # also of the networks that match
    config.squeeze.learning_rate = 0.01
    config.squeeze.weight_decay = 5e-4
    config.squeeze.batch_size = 256
    config.squeeze.epochs = 60
    config.squeeze.crop_scale = (0.5, 1.0)
    config.squeeze.flip = True

    config.recover.method = "dm"
    config.recover.start = "random"
    config.recover.ipc = (1, 10, 50)
    config.recover.sets = 5
    config.methods.update(common.matching())

    config.recipes = common.recipe_changes()
    common.without_mosaics(config)
    config.student.models = {"convnet": dict(convnet)}
    config.evaluate.against = ("random", "herding", "kcenter", "dsa/random", "dc/noise")
    config.evaluate.labels = ("hard",)
    config.evaluate.recipes = ("dm", "dc")
    config.evaluate.students = 5
    config.evaluate.whole_epochs = 0


def cpu(config):
    """Narrower, shorter, fewer: an hour or two on two CPU cores."""
    for model in (config.squeeze.model, config.student.models.convnet):
        model.width = 32
    config.squeeze.epochs = 10
    config.recover.ipc = (1, 10)
    config.recover.sets = 3
    config.methods.dm.update(num_steps=1000, real_batch=64)
    for name in ("dc", "dsa"):
        config.methods[name].update(num_steps=((1, 500),), real_batch=64)
    config.recipes.dm.epochs = 300
    config.evaluate.recipes = ("dm",)
    config.evaluate.students = 1
