"""Guided sampling of CIFAR-10 by a generator of our own, trained from scratch.

Method:   OTG, LIA and OTM, https://arxiv.org/abs/2512.00308, as in
          configs/otg_digits.py. The authors sampled CIFAR-100 in a way they do not
          tell; this generator has never seen another image.
Command:  python -m launch.evaluate --config=configs/otg_cifar10.py
Hardware: one GPU; the generator is 36 GFLOP an image and step, 5 million images.
Expected: not run yet.
"""

from configs import common, default, otg_digits, wmdd_cifar10


def get_config(arg=None):
    """CIFAR-10 at 32 pixels."""
    config = default.base()
    wmdd_cifar10.cifar10(config)
    config.name = "otg_cifar10"
    generator(config)
    otg_digits.ablation(config)
    # Above the published window: 32 pixels keep less at the same noise.
    config.methods.otg = common.sampling(scale=2.0, window=(2e-4, 0.1))
    config.recover.ipc = (1, 10, 50)
    return common.finish(config, arg)


def generator(config):
    """A DiT of 33 million parameters, in pixels."""
    config.generator.model = {
        "width": 384,
        "depth": 12,
        "heads": 6,
        "patch": 2,
        "dtype": "bfloat16",
        "scan": True,
    }
    config.generator.num_steps = 20_000
    config.generator.batch_size = 256
    config.generator.learning_rate = 3e-4
    config.generator.warmup = 1000
    config.generator.ema = 0.9995
    config.generator.flip = True
    config.surrogates.flip = True
    config.surrogates.model.depth = 3
