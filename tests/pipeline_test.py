"""The pipeline in memory: four calls, and what they refuse."""

import jax
import numpy as np
import pytest

from ddjax import (
    data,
    diffusion,
    generate,
    matching,
    models,
    pipeline,
    squeeze,
    student,
)
from ddjax.data.augment import CropFlipRoll
from ddjax.matching.frame import space_of
from ddjax.relabel import Views

RECIPE = squeeze.Recipe(epochs=6, crop_scale=(1.0, 1.0), flip=False)
STUDENT = student.Recipe(
    views=Views(batch_size=100, crop_scale=(1.0, 1.0), flip=False),
    epochs=60,
    learning_rate=5e-3,
)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits"), data.load("digits", "test")


@pytest.fixture(scope="module")
def taught(digits):
    network = models.create("convnet", digits[0].info, width=8, depth=2)
    return network, pipeline.teach(jax.random.key(0), network, digits[0], RECIPE)


@pytest.mark.parametrize("method, start", [("wmdd", "real"), ("sre2l", "noise")])
def test_distilled_images_are_those_of_their_class(digits, taught, method, start):
    network, teacher = taught
    options = {"num_steps": 40, "start": start, "method": method}
    small = pipeline.distill(
        jax.random.key(1), network, teacher, digits[0], 2, **options
    )
    assert small.images.shape == (20, 8, 8, 1) and small.images.dtype == np.uint8
    np.testing.assert_array_equal(small.labels, np.repeat(np.arange(10), 2))
    logits, _ = network.apply(teacher, small.images / np.float32(255))
    assert (np.argmax(logits, -1) == small.labels).mean() > 0.8


def test_images_are_sampled_from_a_generator(digits):
    train, _ = digits
    model = {"width": 16, "depth": 1, "heads": 2, "patch": 4}
    generator = diffusion.create(train.info, model=model, noise=("cosine", 100))
    recipe, losses = generate.Recipe(200, 64, learning_rate=1e-2, ema=0.9), []
    variables = pipeline.teach_generator(
        jax.random.key(0),
        generator,
        train,
        recipe,
        observe=lambda done, state, metrics: losses.append(float(metrics["loss"][0])),
    )
    assert np.mean(losses[-20:]) < 0.7 * np.mean(losses[:20])

    def sampled(**options):
        small = pipeline.distill(
            jax.random.key(1),
            None,
            (),
            train,
            2,
            method="otg",
            start="noise",
            num_steps=10,
            sampled_from=(generator, variables),
            **options,
        )
        assert small.images.shape == (20, 8, 8, 1) and small.images.dtype == np.uint8
        return small.images

    plain = sampled(transport_weight=0.0)
    np.testing.assert_array_equal(plain, sampled(transport_weight=0.0))
    assert (plain != sampled(window=(0.0, 1.0), transport_weight=0.3)).any()
    with pytest.raises(ValueError, match="influence guidance needs surrogates"):
        sampled(influence_weight=5.0)


def test_students_learn_from_what_was_chosen(digits, taught):
    network, teacher = taught
    chosen = pipeline.choose("kmeans", network, teacher, digits[0], 5)
    arguments = jax.random.key(2), network, chosen, digits[1], STUDENT
    scores = pipeline.evaluate(*arguments, students=2)
    assert scores.shape == (2,) and scores[0] != scores[1] and scores.min() > 0.5
    np.testing.assert_array_equal(scores, pipeline.evaluate(*arguments, students=2))


def test_an_online_teacher_labels_every_view(digits, taught):
    network, teacher = taught
    chosen = pipeline.choose("random", network, teacher, digits[0], 1)
    arguments = jax.random.key(2), network, chosen, digits[1], STUDENT
    online = {"labels": "online", "teacher": teacher, "teacher_fn": network.apply}
    scores = pipeline.evaluate(*arguments, students=1, **online)
    assert scores[0] != pipeline.evaluate(*arguments, students=1)[0]
    with pytest.raises(ValueError, match="need teacher"):
        pipeline.evaluate(*arguments, labels="online")
    with pytest.raises(ValueError, match="unknown labels 'stored'"):
        pipeline.evaluate(*arguments, **{**online, "labels": "stored"})


def test_mosaics_through_a_pool(digits, taught):
    """Of two networks; every stored image is seen as four."""
    network, variables = taught
    pool = (jax.tree.map(lambda x: np.stack([x, x]), variables),) * 2
    options = {"method": "dm", "start": "random", "num_steps": 2, "dsa": "crop"}
    options |= {"real_batch": 10, "factor": 2, "networks": "pool"}
    made = pipeline.distill(
        jax.random.key(3), network, (), digits[0], 1, pool=pool, **options
    )
    assert made.images.shape == (10, 8, 8, 1)
    assert len(matching.mosaics.decoded(made, 2).labels) == 40
    with pytest.raises(ValueError, match="networks='pool' needs pool="):
        pipeline.distill(jax.random.key(3), network, (), digits[0], 1, **options)
    options["start"] = "real"
    with pytest.raises(ValueError, match="got 'real', one image for each atom"):
        pipeline.distill(jax.random.key(3), network, (), digits[0], 1, **options)


def test_bad_words_are_refused(digits, taught):
    network, teacher = taught
    arguments = jax.random.key(1), network, teacher, digits[0]
    with pytest.raises(ValueError, match="unknown start 'centre'"):
        pipeline.distill(*arguments, 1, start="centre")
    with pytest.raises(ValueError, match="no option 'weight'"):
        pipeline.distill(*arguments, 1, weight=1.0, augment=CropFlipRoll())
    with pytest.raises(ValueError, match="fewer|has"):
        pipeline.distill(*arguments, 1000)


def test_atoms_may_lie_in_a_product_space(digits, taught):
    network, teacher = taught
    space = space_of((0.0, 1.0, 0.0), dims=(8, 8))
    options = {"num_steps": 40, "space": space}
    small = pipeline.distill(
        jax.random.key(1), network, teacher, digits[0], 2, **options
    )
    logits, _ = network.apply(teacher, small.images / np.float32(255))
    assert (np.argmax(logits, -1) == small.labels).mean() > 0.8
