"""Trains a pool of networks, for methods that match images through half-trained ones.

    python -m launch.pool --config=configs/dm_cifar10.py

Makes <workdir>/pool/member<i>-<hash>/ for each network of config.pool: its variables
before the training and after it. They are trained as the teacher is (config.squeeze)
but for the epochs, each from a seed of its own; a larger pool keeps those it has.
"""

import jax
import numpy as np

from ddjax import checkpoint, data, parallel, squeeze
from launch import inputs, meter, program, progress, teachers
from launch import squeeze as squeeze_stage


def run(config, workdir) -> tuple:
    """The pool of a config, as `types.Context` has it; trains what is missing.

    Hosts share the networks.

    Returns:
      (first, last): variables, [P, ...] each, on the host.

    Raises:
      ValueError: see `check`.
    """
    check(config)
    train, test = inputs.load_data(config)
    network = inputs.build_network(config.squeeze.model, train.info)
    stages = _stages(config, workdir, train)
    missing = [i for i, stage in enumerate(stages) if not stage.complete]
    own, recipe = parallel.share(missing), recipe_of(config)
    total = len(own) * squeeze.num_steps(recipe, len(train.labels))
    with parallel.alone(), progress.bar("pool", total) as bar:
        for i in own:
            _train(config, stages[i], i, network, recipe, (train, test), bar)
    parallel.gather("pool")
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    members = [_read(stage, shapes) for stage in stages]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *members)


def hashes(config, workdir) -> list[str]:
    """Of the networks of a config's pool, trained or not."""
    train, _ = inputs.load_data(config)
    return [stage.hash for stage in _stages(config, workdir, train)]


def check(config) -> None:
    """Refuses a pool that cannot be trained.

    Raises:
      ValueError: it has no networks or epochs, or its network comes from weights.
    """
    size, epochs = config.pool.size, config.pool.epochs
    if size < 1 or epochs < 1:
        raise ValueError(
            f"pool.size is {size} and pool.epochs {epochs}; both must be at least 1."
        )
    if config.squeeze.restore:
        raise ValueError(
            f"squeeze.restore is {config.squeeze.restore!r}, one finished network, and "
            "a pool has many on their way from start to end: leave it empty, and say "
            'in config.squeeze how to train them; or set networks to "random".'
        )


def recipe_of(config) -> squeeze.Recipe:
    """How the config trains its pool."""
    return squeeze_stage.recipe_of(config)._replace(epochs=config.pool.epochs)


def _stages(config, workdir, train) -> list[checkpoint.Stage]:
    """Where each network is kept; the size of the pool is in none of them."""
    made_from = {
        "version": 1,
        "config": {
            **squeeze_stage.identity(config),
            "epochs": config.pool.epochs,
        },
        "data": data.fingerprint(train),
        "pixels": (train.info.mean, train.info.std),
    }
    return [
        checkpoint.Stage(
            workdir, "pool", f"member{i}", {**made_from, "seed": (config.seed, i)}
        )
        for i in range(config.pool.size)
    ]


def _train(config, stage, member, network, recipe, splits, bar) -> None:
    """Makes one network; it is scored, for people to see whether it has learnt."""
    bar.set_description(f"pool: {stage.folder.name[:-13]}")
    key = program.key(config, "pool", member)
    with meter.watch() as cost:
        first, last = squeeze_stage.trained(
            config,
            stage,
            key,
            network,
            recipe,
            splits[0],
            bar,
            seed=int(jax.random.bits(key) >> 1),
        )
        record = teachers.describe(network, last, *splits)
    arrays = checkpoint.flatten({"first": first, "last": last})
    stage.finish(arrays, {**record, **cost.record()})


def _read(stage, shapes) -> tuple:
    found = checkpoint.unflatten(stage.load(), {"first": shapes, "last": shapes})
    return found["first"], found["last"]


if __name__ == "__main__":
    program.main(run)
