"""What the configs share."""


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
    config.lock()
    return config


def for_all_methods(config, **values):
    """Gives every section of `config.methods` the same values."""
    for method in config.methods.values():
        method.update(values)


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
    config.squeeze.model = dict(small)
    config.student.model = dict(small)
    config.squeeze.epochs = 1
    config.squeeze.batch_size = 128
    config.recover.ipc = (2,)
    config.recover.sets = 1
    for_all_methods(config, num_steps=5, jitter=1)
    config.relabel.batch_size = 20
    config.student.epochs = 3
    config.evaluate.whole_epochs = 0
    config.evaluate.labels = ("soft",)
    config.evaluate.against = ("random",)
