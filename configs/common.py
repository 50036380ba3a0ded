"""What the configs share."""

from ml_collections import config_dict

from ddjax import recipes
from ddjax.data import dsa

WITHOUT_FLIP = "color_crop_cutout_scale_rotate"  # DSA of signs that have sides
_TYPES = {
    "batch_size": int,
    "crop_scale": tuple,
    "flip": bool,
    "mix": str,
    "patch_shuffle": int,
    "dsa": str,
    "epochs": int,
    "optimizer": str,
    "learning_rate": float,
    "weight_decay": float,
    "schedule": str,
    "stretch": float,
    "loss": str,
    "temperature": float,
    "ema": float,
    "hard_share": float,
    "ot_weight": float,
    "ot_temperature": float,
    "ot_epsilon": float,
    "ot_iterations": int,
    "ot_on": str,
    "ot_gradient": str,
}


def finish(config, arg, **variants):
    """Applies the argument behind the colon and locks the config.

    Args:
      config: complete.
      arg: None or "", "quick", or the name of a variant.
      **variants: functions that change the config.

    Raises:
      ValueError: another argument.
    """
    variants = {"quick": _quick, **variants}
    if arg and arg not in variants:
        known = ", ".join(variants)
        raise ValueError(f"unknown config argument {arg!r}; known: {known}.")
    if arg:
        config.name += f"_{arg}"
        variants[arg](config)
    for model in (
        config.squeeze.model,
        config.surrogates.model,
        *config.student.models.values(),
    ):
        if "dtype" not in model:
            model.dtype = "float32"
    config.lock()
    return config


def matching(**values):
    """Sections of the methods that match real images step by step, by the papers.

    Their networks are those of `squeeze.model`. The numbers are those of the code of
    DC, DSA and DM, https://github.com/VICO-UoE/DatasetCondensation, for CIFAR-10; DM's
    loop of 20,000 makes one step more. A step of DC and DSA is one of its outer steps:
    1,000 iterations of as many as there are for the ipc.

    Args:
      **values: for all sections, such as `dsa` where flips change what is seen.
    """
    pixels = {
        "optimizer": "sgd",  # constant rate
        "momentum": 0.5,
        "layout": "whole",
        "real_batch": 256,  # of each class
        "dsa": dsa.STRATEGY,
    }
    dm = {**pixels, "num_steps": 20_001, "learning_rate": ((1, 1.0), (100, 10.0))}
    condense = {
        **pixels,
        "num_steps": tuple((n, 1_000 * n) for n in (1, 10, 20, 30, 40, 50)),
        "learning_rate": 0.1,
    }
    dc = {k: v for k, v in condense.items() if k != "dsa"}
    sections = {"dm": dm, "dc": dc, "dsa": condense, "geodm": dict(dm)}
    for name, section in sections.items():
        section |= {k: v for k, v in values.items() if k != "dsa" or name != "dc"}
    return sections


def for_all_methods(config, **values):
    """Gives every section of `config.methods` the same values."""
    for method in config.methods.values():
        method.update(values)


def recipe_changes():
    """A section for every recipe of students; all fields are as the recipe has them.

    What a field means is said in `ddjax.student.Recipe` and `ddjax.relabel.Views`.
    """
    sections = config_dict.ConfigDict()
    for name in recipes.names():
        sections[name] = {
            field: config_dict.placeholder(kind) for field, kind in _TYPES.items()
        }
    return sections


def for_all_recipes(config, **values):
    """Gives every section of `config.recipes` the same values."""
    for recipe in config.recipes.values():
        recipe.update(values)


def without_mosaics(config):
    """What RDED's and EDC's recipes are for small images, which are not mosaics."""
    for name in ("rded", "rd3"):
        config.recipes[name].update(patch_shuffle=1, crop_scale=(1.0, 1.0))
    config.recipes.edc.patch_shuffle = 1


def sampling(**values):
    """The section of OTG: the paper's, with our numbers where it could not be read.

    Args:
      **values: in place of what is here.
    """
    return {
        "num_steps": 50,  # of one image
        "layout": "classes",
        "scale": 4.0,  # of classifier-free guidance
        "transport_weight": 0.02,
        "deviation_weight": 0.0,
        "influence_weight": 0.0,
        **values,
    }


def _quick(config):
    """Seconds on a CPU, on the embedded digits, with the same parts and path."""
    small = {
        "name": "convnet",
        "width": 8,
        "depth": 2,
        "norm": "batch",
        "initializer": "torch",
    }
    if config.squeeze.model.name == "resnet18":
        small = {"name": "resnet18", "width": 4, "stem": "3x3"}
    config.data.name = "digits"
    config.data.size = 0
    config.data.mean = ()
    config.data.std = ()
    for_all_recipes(config, flip=False)
    config.recipes.dm.dsa = WITHOUT_FLIP
    config.squeeze.model = dict(small)
    for name in config.evaluate.models:
        config.student.models[name] = dict(small)
    config.squeeze.epochs = 1
    config.pool = {"size": 2, "epochs": 1}
    config.surrogates.model.update(width=8, depth=2)
    config.surrogates.update(epochs=2, images=20)
    config.squeeze.batch_size = 128
    config.generator.space = "pixels"
    config.generator.model = {"width": 16, "depth": 1, "heads": 2, "patch": 4}
    config.generator.update(num_steps=12, batch_size=32)
    config.generator.update(restore="", restore_classes=0, restore_labels=())
    config.generator.picture = {"steps": "5", "scale": 1.5}
    config.recover.ipc = (2,)
    config.recover.sets = 1
    for section in config.methods.values():
        with section.ignore_type():  # pairs of some methods
            section.num_steps = 5
        if "jitter" in section:
            section.jitter = 1
        if "real_batch" in section:
            section.real_batch = 20
    for_all_recipes(config, batch_size=20, epochs=3)
    config.evaluate.whole_epochs = 0
    config.evaluate.labels = ("stored",)
    config.evaluate.against = ("random",)
    config.evaluate.strengths = ()
    if config.evaluate.attacks:
        config.evaluate.attacks = ("pgd10",)
        config.evaluate.attack_images = 20
