"""Surrogates: which epochs are kept, and what is kept when the program ends early."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from ddjax import checkpoint, losses, squeeze
from ddjax.diffusion.guidance import influence
from launch import inputs, progress, surrogates
from launch import squeeze as squeeze_stage


def config_with(**changes):
    config = default.get_config("quick")
    # At a cosine of 1 every epoch has turned, so all are kept.
    config.surrogates.update(**{"epochs": 3, "threshold": 1.0, "most": 9, **changes})
    return config


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The surrogates of four ages, and where they are."""
    workdir = tmp_path_factory.mktemp("surrogates")
    return surrogates.run(config_with(), workdir), workdir


def leaves(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def test_ages_are_stacked_and_differ(made):
    found, workdir = made
    assert found.epochs == (0, 1, 2, 3)
    shapes = jax.eval_shape(found.network.init, jax.random.key(0))
    assert jax.tree.structure(found.variables) == jax.tree.structure(shapes)
    for ages, alike in zip(leaves(found.variables), jax.tree.leaves(shapes)):
        assert ages.shape == (4, *alike.shape)
    kernel = found.variables["params"]["classifier"]["kernel"]
    assert all(np.any(kernel[i] != kernel[i + 1]) for i in range(3))
    (folder,) = (workdir / "surrogates").iterdir()
    assert folder.name.endswith(found.hash) and not (folder / "parts").exists()
    record = checkpoint.record(folder)
    assert record["epochs"] == [0, 1, 2, 3]
    assert record["accuracy"]["test"] > 0.3


def test_the_last_age_is_that_of_a_plain_training(made, tmp_path):
    """The same steps as those of a teacher with this recipe and key."""
    config = config_with()
    train, _ = inputs.load_data(config)
    network, recipe = made[0].network, surrogates.recipe_of(config)
    assert recipe.schedule == "constant" and recipe.weight_decay == 5e-4
    total = squeeze.num_steps(recipe, len(train.labels))
    first, last = squeeze_stage.trained(
        config,
        checkpoint.Stage(tmp_path, "surrogates", "plain", {}),
        surrogates.program.key(config, "surrogates"),
        network,
        recipe,
        train,
        progress.bar("plain", total),
        seed=0,
    )
    for ages, one, other in zip(*map(leaves, (made[0].variables, first, last))):
        np.testing.assert_array_equal(ages[0], one)
        np.testing.assert_array_equal(ages[3], other)


def test_epochs_are_kept_where_the_gradients_have_turned(made, tmp_path):
    """Those that the whole list of gradients gives, at a threshold between them."""
    found, config = made[0], config_with()
    train, _ = inputs.load_data(config)
    examples = surrogates.class_images(train, config.surrogates.images)
    assert examples.shape == (10, 20, 8, 8, 1)
    ages = [jax.tree.map(lambda x, e=e: x[e], found.variables) for e in range(4)]
    cosines = surrogates.turning(found.network, ages, examples)
    np.testing.assert_allclose(cosines[0, 1], by_hand(found, examples), atol=1e-5)
    for limit in ({"threshold": float(cosines[0, 1:].min() + 1) / 2}, {"most": 2}):
        limits = {"threshold": 1.0, "most": 9, **limit}
        expected, threshold = influence.chosen(cosines, **limits)
        assert 1 < len(expected) < 4
        fewer = surrogates.run(config_with(**limit), tmp_path)
        assert fewer.epochs == tuple(expected)
        for some, whole in zip(leaves(fewer.variables), leaves(found.variables)):
            np.testing.assert_array_equal(some, whole[expected])
        record = checkpoint.record(
            surrogates.stage_of(config_with(**limit), tmp_path, train).folder
        )
        assert record["threshold"] == pytest.approx(threshold)


@functools.partial(jax.jit, static_argnums=0)
def slope(apply_fn, variables, images, label):
    def loss(params):
        logits, _ = apply_fn({**variables, "params": params}, images / np.float32(255))
        return losses.cross_entropy(logits, jnp.full(len(images), label))

    return jax.grad(loss)(variables["params"])


def by_hand(found, examples):
    """The mean cosine between the class gradients of the first two ages."""
    cosines = []
    for label, images in enumerate(examples):
        flat = []
        for e in range(2):
            variables = jax.tree.map(lambda x, e=e: x[e], found.variables)

            gradient = slope(found.network.apply, variables, images, label)
            flat.append(np.concatenate([x.ravel() for x in leaves(gradient)]))
        cosines.append(flat[0] @ flat[1] / np.prod(np.linalg.norm(flat, axis=1)))
    return np.mean(cosines)


def test_they_are_not_trained_twice(made, monkeypatch):
    monkeypatch.setattr(surrogates, "_train", None)
    again = surrogates.run(config_with(), made[1])
    for one, other in zip(leaves(again.variables), leaves(made[0].variables)):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("step", [39, 46])
def test_a_training_that_was_interrupted_goes_on(made, tmp_path, monkeypatch, step):
    """After a step within an epoch, or an epoch's last: the same networks come out."""
    call = progress.Monitor.__call__
    train, _ = inputs.load_data(config_with())
    recipe = surrogates.recipe_of(config_with())
    assert squeeze.num_steps(recipe, len(train.labels)) == 3 * 23

    def ended(self, done, state, metrics):
        call(self, done, state, metrics)
        if done == step:
            self._save(state)
            raise KeyboardInterrupt

    monkeypatch.setattr(progress.Monitor, "__call__", ended)
    with pytest.raises(KeyboardInterrupt):
        surrogates.run(config_with(), tmp_path)
    monkeypatch.setattr(progress.Monitor, "__call__", call)
    found = surrogates.run(config_with(), tmp_path)
    assert found.epochs == (0, 1, 2, 3)
    for one, other in zip(leaves(found.variables), leaves(made[0].variables)):
        np.testing.assert_array_equal(one, other)


def test_a_lost_epoch_is_told(tmp_path, monkeypatch):
    def forget(stage, epoch, state):
        if epoch != 1:
            keep(stage, epoch, state)

    keep = surrogates._keep
    monkeypatch.setattr(surrogates, "_keep", forget)
    with pytest.raises(ValueError, match="the variables of epoch 1 in .* are lost"):
        surrogates.run(config_with(), tmp_path)


def test_the_schedule_of_teachers_is_known_only_where_it_acts():
    """Those of a cosine are what they were before there was another."""
    config = default.get_config("quick")
    assert "schedule" not in squeeze_stage.identity(config)
    config.squeeze.schedule = "constant"
    assert squeeze_stage.identity(config)["schedule"] == "constant"
    assert squeeze_stage.recipe_of(config).schedule == "constant"


def test_what_are_no_surrogates_is_refused():
    for changes in ({"epochs": 0}, {"most": 0}, {"threshold": 0.0}):
        with pytest.raises(ValueError, match="needs 1 or more of each"):
            surrogates.check(config_with(**changes))


def test_hosts_train_together(hosts, tmp_path):
    """Two of them make nearly the same surrogates as one: sums are in another order."""
    config = default.get_config("quick")
    hosts.start(tmp_path / "two", tmp_path / "log", module="surrogates")
    assert hosts.end() == [0, 0], (tmp_path / "log0").read_text()[-2000:]
    alone = surrogates.run(config, tmp_path / "one")
    together = surrogates.run(config, tmp_path / "two")  # which are there already
    assert together.epochs == alone.epochs
    for one, other in zip(leaves(alone.variables), leaves(together.variables)):
        np.testing.assert_allclose(one, other, atol=1e-4)
