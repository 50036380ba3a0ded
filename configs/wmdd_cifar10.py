"""WMDD on CIFAR-10 with ResNet-18 for small images: our reading.

Method:   H. Liu et al., "Dataset Distillation via the Wasserstein Metric", ICCV 2025,
          https://arxiv.org/abs/2311.18531. The paper has no CIFAR-10; teacher and crops
          follow SRe2L's CIFAR-100 recipe (no crop, roll of 4 pixels), the loss WMDD's.
Command:  python -m launch.evaluate --config=configs/wmdd_cifar10.py
Hardware: one GPU. ":cpu" is the same comparison with a small ConvNet-3: less than an
          hour on two CPU cores.
Expected: not published. ":cpu": the table in the README. The rest was not run yet.

CIFAR-10 is prepared once, by `python -m launch.prepare --name=cifar10`, or from your
own copy, see the README.
"""

from configs import common, default


def get_config(arg=None):
    """CIFAR-10 at 32 pixels."""
    config = default.base()
    cifar10(config)
    config.name = "wmdd_cifar10"
    return common.finish(config, arg, cpu=cpu)


def cifar10(config):
    """What all methods do alike on CIFAR-10."""
    config.data.name = "cifar10"
    resnet = {"name": "resnet18", "width": 64, "stem": "3x3"}

    config.squeeze.model = dict(resnet)
    config.squeeze.learning_rate = 0.1
    config.squeeze.weight_decay = 5e-4
    config.squeeze.batch_size = 128
    config.squeeze.epochs = 50  # short: long-trained teachers invert worse
    config.squeeze.crop_scale = (0.5, 1.0)
    config.squeeze.flip = True

    config.recover.start = "noise"
    config.recover.ipc = (1, 10, 50)
    common.for_all_methods(config, learning_rate=0.25, bn_weight=0.01)
    common.for_all_methods(config, crop_scale=(1.0, 1.0), flip=False, jitter=4)
    common.for_all_methods(config, num_steps=1000)
    config.methods.wmdd.num_steps = 2000
    config.methods.wmdd.bn_weight = 10.0

    config.recipes = common.recipe_changes()
    common.without_mosaics(config)
    config.recipes.wmdd.crop_scale = (0.5, 1.0)
    config.recipes.wmdd.epochs = 400
    config.student.models = {
        "resnet18": dict(resnet),
        "convnet": {
            "name": "convnet",
            "width": 128,
            "depth": 3,
            "norm": "instance",
            "initializer": "torch",
        },
        "vgg11": {"name": "vgg11"},
        "mobilenet_v2": {"name": "mobilenet_v2"},
        "vit_tiny": {"name": "vit_tiny"},
    }
    config.evaluate.models = ("resnet18",)
    config.evaluate.whole_epochs = 50


def cpu(config):
    """What two cores can do in an hour.

    A ConvNet-3 of width 32, a quarter of the field's, for teacher and student; fewer
    epochs, steps and images per class. No number was tuned on CIFAR-10.
    """
    convnet = dict(default.base().squeeze.model)
    config.squeeze.model = dict(convnet)
    config.squeeze.learning_rate = 0.05
    config.squeeze.epochs = 10
    config.recover.ipc = (1, 10)
    common.for_all_methods(config, num_steps=500)
    config.student.models.update(
        convnet=dict(convnet),
        resnet18={"name": "resnet18", "width": 16, "stem": "3x3"},
        vgg11={"name": "vgg11", "width": 16},
        mobilenet_v2={"name": "mobilenet_v2", "width": 0.25},
        vit_tiny={"name": "vit_tiny", "width": 48, "depth": 6},
    )
    config.evaluate.models = ("convnet",)
    config.recipes.wmdd.learning_rate = 5e-3
    config.recipes.wmdd.epochs = 300
    config.evaluate.against = (
        "random",
        "herding",
        "kmeans",
        "sre2l/noise",
        "wmdd/real",
    )
    config.evaluate.whole_epochs = 0  # the teacher is trained on all images
