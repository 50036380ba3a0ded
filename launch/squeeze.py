"""Trains the teacher.

    python -m launch.squeeze --config=configs/default.py

Makes <workdir>/squeeze/teacher-<hash>/: the variables, with the train and test accuracy
and the names of the classes.
"""

import contextlib

import jax
from absl import logging

from ddjax import checkpoint, data, loop, losses, parallel, squeeze, training
from launch import inputs, meter, program, progress, teachers
from launch.teachers import Teacher


def run(config, workdir) -> Teacher:
    """The teacher of a config: loaded if it is there, trained if not."""
    train, test = inputs.load_data(config)
    network = inputs.build_network(config.squeeze.model, train.info)
    if config.squeeze.restore:
        return teachers.restore(config, workdir, network, train, test)
    made_from = {
        "version": 2,
        "config": identity(config),
        "seed": config.seed,
        "data": data.fingerprint(train),
        "pixels": (train.info.mean, train.info.std),
    }
    stage = checkpoint.Stage(workdir, "squeeze", "teacher", made_from)
    if not stage.complete:
        with meter.watch("squeeze") as cost:
            variables, record = _teach(config, stage, network, train, test)
        stage.finish(checkpoint.flatten(variables), {**record, **cost.record()})
        teachers.say(stage.record())
    return teachers.read(stage, network, train, test)


def recipe_of(config) -> squeeze.Recipe:
    """How the config trains its teacher."""
    options = config.squeeze.to_dict()
    options["curvature"] = losses.Curvature(**options["curvature"])
    options["adversarial"] = squeeze.Adversarial(**options["adversarial"])
    return squeeze.Recipe(**{k: options[k] for k in squeeze.Recipe._fields})


def identity(config) -> dict:
    """The section of the config, without what does not act: its teachers are the same."""
    section, recipe = config.squeeze.to_dict(), recipe_of(config)
    for name in ("curvature", "adversarial"):
        if not getattr(recipe, name).acts:
            del section[name]
    if recipe.schedule == "cosine":  # which it was before there was another
        del section["schedule"]
    return section


def _teach(config, stage, network, train, test):
    """The trained variables, and what they are worth."""
    recipe, key = recipe_of(config), program.key(config, "squeeze")
    total = squeeze.num_steps(recipe, len(train.labels))
    with progress.bar("squeeze", total) as bar:
        _, variables = trained(
            config, stage, key, network, recipe, train, bar, seed=config.seed
        )
    if not parallel.is_primary():
        return variables, {}
    return variables, teachers.describe(network, variables, train, test)


def trained(config, stage, key, network, recipe, train, bar, *, seed: int):
    """The first and the last variables of a training, from its newest state.

    Args:
      config: of the experiment.
      stage: `checkpoint.Stage`, which keeps the states and the losses.
      key: of the parameters and the batches; consumed.
      network: to train.
      recipe: squeeze.Recipe.
      train: real images.
      bar: see `progress.bar`; moved by as many steps as the training has.
      seed: of the order of images that stay on disk.
    """
    key_init, key_train = jax.random.split(key)
    count = len(train.labels)
    state, done = squeeze.init(key_init, network, recipe, count), 0
    first = jax.device_get(training.variables(state))
    if (found := stage.restore(state)) is not None:
        done, state = found
        bar.skip(done)
        logging.info("%s goes on from step %d.", stage.folder.parent.name, done)
    total = squeeze.num_steps(recipe, count)
    step, shared, read = source(seed, config, network, recipe, train, done, total)
    with (
        progress.Monitor(stage, bar, total, done, config.save_every_s) as monitor,
        read as batches,
    ):
        state = loop.run(
            step,
            state,
            shared,
            key_train,
            range(done, total),
            spread=parallel.sharded(min(recipe.batch_size, count)),
            feed=None if batches is None else lambda index: next(batches),
            observe=monitor,
        )
        last = jax.device_get(training.variables(state))
        monitor.finish(last)
    return first, last


def source(seed, config, network, recipe, train, done, total):
    """The step, the arrays it shares, and a context: of the batches, or of None."""
    count = len(train.labels)
    if not isinstance(train.images, data.Records):
        step = squeeze.make_step(network, recipe, count)
        return step, (train.images, train.labels), contextlib.nullcontext()
    whole = recipe.crop_scale == (1.0, 1.0)
    stream = data.Stream(
        train,
        seed,
        recipe.batch_size,
        size=train.info.shape[0],
        crop_scale=None if whole else recipe.crop_scale,
        host=(parallel.host_index(), parallel.host_count()),
    )
    batches = stream.read(range(done, total), workers=config.data.workers)
    step = squeeze.make_streamed_step(network, recipe, count)
    return step, (), contextlib.closing(batches)


if __name__ == "__main__":
    program.main(run)
