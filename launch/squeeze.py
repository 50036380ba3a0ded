"""Trains the teacher.

    python -m launch.squeeze --config=configs/default.py

Makes <workdir>/squeeze/teacher-<hash>/: the variables, with the train and test accuracy
and the names of the classes.
"""

import contextlib
import time

import jax
from absl import logging

from ddjax import checkpoint, data, loop, squeeze, training
from launch import inputs, program, progress, teachers
from launch.teachers import Teacher


def run(config, workdir) -> Teacher:
    """The teacher of a config: loaded if it is there, trained if not."""
    train, test = inputs.load_data(config)
    network = inputs.build_network(config.squeeze.model, train.info)
    if config.squeeze.restore:
        return teachers.restore(config, workdir, network, train, test)
    made_from = {
        "version": 2,
        "config": config.squeeze.to_dict(),
        "seed": config.seed,
        "data": data.fingerprint(train),
        "pixels": (train.info.mean, train.info.std),
    }
    stage = checkpoint.Stage(workdir, "squeeze", "teacher", made_from)
    if not stage.complete:
        _train(config, stage, network, train, test)
    return teachers.read(stage, network, train, test)


def _train(config, stage, network, train, test):
    options = config.squeeze.to_dict()
    recipe = squeeze.Recipe(**{k: options[k] for k in squeeze.Recipe._fields})
    key_init, key_train = jax.random.split(program.key(config, "squeeze"))
    count = len(train.labels)
    state, done = squeeze.init(key_init, network, recipe, count), 0
    if (found := stage.restore(state)) is not None:
        done, state = found
        logging.info("squeeze goes on from step %d.", done)
    total = squeeze.num_steps(recipe, count)
    step, shared, source = _source(config, network, recipe, train, done)
    began = time.monotonic()
    with progress.bar("squeeze", total, done) as bar, source as feed:
        monitor = progress.Monitor(stage, bar, total, done, config.save_every_s)
        state = loop.run(
            step,
            state,
            shared,
            key_train,
            range(done, total),
            feed=feed,
            observe=monitor,
        )
        monitor.finish(training.variables(state))
    variables = training.variables(state)
    record = teachers.describe(network, variables, train, test)
    record["seconds"] = time.monotonic() - began
    stage.finish(checkpoint.flatten(variables), record)
    teachers.say(record)


def _source(config, network, recipe, train, first):
    """The step, the arrays it shares, and a context that gives the loop's feed."""
    count = len(train.labels)
    if not isinstance(train.images, data.Records):
        step = squeeze.make_step(network, recipe, count)
        return step, (train.images, train.labels), contextlib.nullcontext()
    stream = data.stream.feed(
        train,
        config.seed,
        recipe.batch_size,
        crop_scale=recipe.crop_scale,
        workers=config.data.workers,
        first=first,
    )
    return squeeze.make_streamed_step(network, recipe, count), (), stream


if __name__ == "__main__":
    program.main(run)
