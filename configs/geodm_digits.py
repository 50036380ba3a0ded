"""GeoDM and its family on handwritten digits: every geometry, alone and together.

Method:   our reading of GeoDM, https://arxiv.org/abs/2512.08317, beside DM, DSA and DC
          (https://arxiv.org/abs/2110.04181, 2102.08259, 2006.05929). The sweep is the one
          that GeoDM's reviewers asked for: each product of Euclidean (E), hyperbolic (H)
          and spherical (S) factors, with and without transport, fixed and learned
          curvatures, sizes of the factors, and ways to match.
Command:  python -m launch.evaluate --config=configs/geodm_digits.py
Hardware: two CPU cores, an hour or two.
Expected: the table in the README.
"""

import itertools

from configs import common, default

FACTORS = {"E": 0, "H": 1, "S": 2}
SPACES = ("E", "H", "S", "EH", "ES", "HS", "EHS")


def get_config(arg=None):
    """The sweep; "main" is DM, DSA, DC and GeoDM alone."""
    config = base()
    config.name = "geodm_digits"
    return common.finish(config, arg, main=main)


def base():
    """All but the name."""
    config = default.base()
    convnet = {
        "name": "convnet",
        "width": 32,
        "depth": 2,
        "norm": "instance",
        "initializer": "torch",
    }
    config.squeeze.model = dict(convnet)  # also of the networks that match
    config.recover.method = "geodm.EHS_OT"
    config.recover.start = "random"
    pixels = {"dsa": common.WITHOUT_FLIP, "real_batch": 64, "num_steps": 500}
    sections = common.matching(**pixels)
    for name in ("dm", "geodm"):
        # Chosen for DM on a held-out fifth of the training images, from 0.3 to 100.
        sections[name]["learning_rate"] = ((1, 0.3), (10, 10.0))
    config.methods.update(sections)
    config.changes = changes()
    config.student.models = {"convnet": dict(convnet)}
    config.recipes.dm.epochs = 300
    config.evaluate.recipes = ("dm",)
    config.evaluate.labels = ("hard",)
    config.evaluate.whole_epochs = 0
    config.evaluate.against = (
        "random",
        "herding",
        "dm/random",
        "dsa/random",
        "dc/noise",
        *(f"geodm.{name}/random" for name in changes()),
    )
    return config


def changes():
    """The settings of the sweep, by the names of their arms."""
    found = {
        f"{space}_{'OT' if moved else 'plain'}": {
            "weights": tuple((name in space) / len(space) for name in FACTORS),
            "ot_weight": float(moved),
        }
        for space, moved in itertools.product(SPACES, (False, True))
    }
    found |= {
        f"EHS_{policy}": {
            "policy": policy,
            "learn_weights": True,
            "pretrain_steps": 300,
        }
        for policy in ("min", "max", "supervised")
    }
    found |= {f"EHS_d{size}": {"dims": (size, size)} for size in (16, 512)}
    found |= {
        f"EHS_{match}": {"match": match, "ot_weight": 0.0}
        for match in ("centroid", "covariance", "energy", "characteristic")
    }
    return found


def main(config):
    """The methods as they are, without the sweep."""
    config.recover.method = "geodm"
    config.evaluate.against = (
        "random",
        "herding",
        "dm/random",
        "dsa/random",
        "dc/noise",
    )
