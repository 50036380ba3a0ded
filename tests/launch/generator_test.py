"""A generator's stage: what it makes, what it keeps when it ends early, what it refuses."""

import dataclasses

import jax
import numpy as np
import pytest

from configs import default
from ddjax import data, diffusion, generate
from ddjax.models import dit
from launch import generator, inputs, progress

LATENTS = {"widths": (4, 8), "blocks": 1, "channels": 2, "groups": 2, "scale": 0.2}


def config_with(**changes):
    config = default.get_config("quick")
    config.generator.update(**changes)
    return config


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A generator in pixels, and where it is."""
    workdir = tmp_path_factory.mktemp("generator")
    return generator.run(config_with(), workdir), workdir


@pytest.fixture(scope="module")
def latent(tmp_path_factory):
    """One in the latents of an autoencoder of its own."""
    workdir = tmp_path_factory.mktemp("latent")
    config = config_with(space="latents", autoencoder=LATENTS)
    config.generator.model.patch = 2
    config.generator.autoencoder_training.update(num_steps=5, batch_size=16)
    return generator.run(config, workdir), workdir


def leaves(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def test_what_is_made_is_a_generator(made):
    found, workdir = made
    shapes = jax.eval_shape(found.generator.init, jax.random.key(0))
    assert jax.tree.structure(found.variables) == jax.tree.structure(shapes)
    assert found.generator.schedule.num_steps == 1000
    assert found.record["parameters"] == sum(x.size for x in leaves(found.variables))
    assert 0 < found.record["loss"] < 2
    assert found.record["seconds"] > 0
    (folder,) = (workdir / "generator").iterdir()
    names = {path.name for path in folder.iterdir()}
    assert {"artifact.npz", "samples.png", "curves.png"} <= names
    assert folder.name.endswith(found.hash)


def test_it_is_made_once(made, monkeypatch):
    found, workdir = made
    monkeypatch.setattr(generate, "make_step", None)
    config = config_with(picture={"steps": "7", "scale": 3.0})  # of a picture only
    again = generator.run(config, workdir)
    assert again.hash == found.hash
    assert again.generator is found.generator
    for one, other in zip(leaves(found.variables), leaves(again.variables)):
        np.testing.assert_array_equal(one, other)


def test_one_that_was_interrupted_goes_on(made, tmp_path, monkeypatch):
    """From the state of step 5: the same generator comes out."""
    call, seen = progress.Monitor.__call__, []

    def ended(self, done, state, metrics):
        call(self, done, state, metrics)
        seen.append(done)
        if done == 5:
            self._save(state)
            raise KeyboardInterrupt

    monkeypatch.setattr(progress.Monitor, "__call__", ended)
    with pytest.raises(KeyboardInterrupt):
        generator.run(config_with(), tmp_path)
    monkeypatch.setattr(progress.Monitor, "__call__", call)
    assert seen[-1] == 5
    found = generator.run(config_with(), tmp_path)
    for one, other in zip(leaves(found.variables), leaves(made[0].variables)):
        np.testing.assert_array_equal(one, other)


def test_the_space_of_an_autoencoder_is_made_first(latent):
    found, workdir = latent
    names = sorted(path.name[:-13] for path in (workdir / "generator").iterdir())
    assert names == ["autoencoder", "denoiser"]
    assert found.generator.latent_shape == (4, 4, 2)
    config = config_with()
    train, _ = inputs.load_data(config)
    z = jax.jit(found.generator.encode)(found.variables, train.images / 255.0)
    assert float(z.std()) == pytest.approx(1.0, rel=0.05)
    labels = np.array([0, 9])
    kept = diffusion.schedule.respaced(found.generator.schedule, "3")
    z = diffusion.sample(
        jax.random.key(0), found.generator, found.variables, labels, schedule=kept
    )
    assert z.shape == (2, 4, 4, 2)


def test_published_weights_stand_for_a_training(made, tmp_path, monkeypatch):
    """Of 12 classes, of which ours are ten in another order."""
    known = made[0].variables["denoiser"]
    table = known["params"]["y_embedder.embedding_table"]["embedding"]
    larger = {**known["params"]}
    rows = np.concatenate([table[:10][::-1], table[:2], table[10:]])
    larger["y_embedder.embedding_table"] = {"embedding": rows}

    def load(path, like):
        shapes = [x.shape for x in jax.tree.leaves(like)]
        assert shapes == [x.shape for x in leaves({"params": larger})]
        return {"params": dict(larger)}

    monkeypatch.setattr(generator.generator_weights, "load_dit", load)
    path = tmp_path / "weights.pt"
    path.write_bytes(b"weights")
    options = {"restore": str(path), "restore_classes": 12}
    config = config_with(**options, restore_labels=tuple(range(9, -1, -1)))
    found = generator.run(config, tmp_path)
    for one, other in zip(leaves(found.variables), leaves(made[0].variables)):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="needs one for each of the 10 classes"):
        generator.run(config_with(**options, restore_labels=(3, 12)), tmp_path)
    other = config_with(**options, restore_labels=tuple(range(10)))
    assert generator.run(other, tmp_path).hash != found.hash


def test_what_cannot_be_trained_is_refused(tmp_path, monkeypatch):
    with pytest.raises(
        ValueError, match="unknown generator.space 'cells'; known: pixe"
    ):
        generator.check(config_with(space="cells"))
    with pytest.raises(ValueError, match="num_steps 0"):
        generator.check(config_with(num_steps=0))
    with pytest.raises(ValueError, match="unknown schedule 'square'; known: linear"):
        generator.check(config_with(schedule="square"))
    with pytest.raises(ValueError, match="ema 1.0"):
        generator.check(config_with(ema=1.0))
    config = config_with()
    train, test = inputs.load_data(config)
    on_disk = object.__new__(data.Records)
    train = train._replace(images=on_disk)
    with pytest.raises(ValueError, match="raise data.memory_gb"):
        generator._in_memory(train)
    del test


def test_defaults_of_the_options_are_all_in_the_config():
    known = {field.name for field in dataclasses.fields(dit.DiT)}
    given = set(default.get_config().generator.model)
    assert known - given == {"num_classes", "parent", "name"}
