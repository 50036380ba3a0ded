"""What every module in ddjax/methods must fulfil. New ones are found by themselves."""

import functools
import importlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import diffusion, matching, methods, optimizers, parallel, recover
from ddjax.data import augment
from ddjax.types import Context, Moments, Targets

STEPS = 4
# What else GeoDM has takes long to compile, five times here; its own tests have it.
LIGHT = {"geodm": (("ot_weight", 0.0), ("weights", (0.5, 0.5, 0.0)))}
# The steps of one image, of which there are two: both are seen, and guided.
LIGHT["otg"] = (("deviation_weight", 5.0), ("influence_weight", 5.0), ("real_set", 4))
LIGHT["otg"] += (("window", (0.0, 1.0)),)
IPC = 2
DENOISER = {"width": 8, "depth": 1, "heads": 2, "patch": 4}


@pytest.fixture(scope="module", params=methods.names())
def problem(request, tiny_network, tiny_variables, tiny_info, tiny_data):
    """(method, context, targets of two chunks)."""
    create = functools.partial(
        methods.create,
        request.param,
        tiny_network,
        num_steps=STEPS // 2 if methods.samples(request.param) else STEPS,
        augment=augment.CropFlipRoll((0.5, 1.0), True, 2),
        generator=diffusion.create(tiny_info, model=DENOISER),
        options=LIGHT.get(request.param, ()),
    )
    method = create(optimizers.pixel_adam(0.1, STEPS, tiny_info.std))
    if method.real_batch:
        # Their own: Adam makes a step of what is rounding in a pixel without gradient.
        method = create(optimizers.pixel_sgd(1.0, 0.5, tiny_info.std))
    rng = np.random.default_rng(0)
    whole = rng.normal(0.4, 0.5, (2, 6, 8, 8, 3)).astype(np.float32)
    _, out = tiny_network.apply(tiny_variables, whole[0])
    features = rng.normal(size=(2, *out["features"].shape)).astype(np.float32)
    labels = np.repeat(np.arange(3, dtype=np.int32), IPC)
    layers = tuple(
        Moments(np.zeros((3, width), np.float32), np.ones((3, width), np.float32))
        for width in (m.mean.shape[-1] for m in out["moments"])
    )
    weights = np.tile(np.array([0.3, 0.7], np.float32), 3)
    classes = np.arange(3, dtype=np.int32)
    beside = rng.integers(0, 256, (3, 4, 8, 8, 3), dtype=np.uint8)
    keys = recover.image_keys(jax.random.key(7), np.arange(6), IPC)
    chunks = [
        Targets(i, labels, weights, f, layers, classes, beside, keys)
        for i, f in zip(whole, features)
    ]
    first, last = (
        jax.vmap(tiny_network.init)(jax.random.split(jax.random.key(k), 2))
        for k in range(2)
    )
    context = Context(
        teacher=tiny_variables,
        real=matching.table(tiny_data),
        pool=(first, last),
        generator=_trained(diffusion.create(tiny_info, model=DENOISER)),
        surrogates=last,
    )
    return method, context, chunks


def _trained(generator):
    """Variables none of which is 0, as many are at the start of a training."""
    variables = generator.init(jax.random.key(2))
    return jax.tree.map(
        lambda x: x + 0.1 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), variables
    )


def batch_of(method, context, targets, i):
    """What a step is given beside its state."""
    if not method.real_batch:
        return ()
    key = jax.random.fold_in(jax.random.key(5), i)
    return matching.draw(key, context.real, targets.classes, method.real_batch)


def run(method, context, targets, key, step):
    state = method.init(key, context, targets)
    history = []
    for i in range(STEPS):
        batch = batch_of(method, context, targets, i)
        key_step = jax.random.fold_in(key, i)
        state, metrics = step(key_step, state, context, targets, batch)
        history.append(metrics)
    return state, history


def images_of(problem, state, chunk=0):
    """What a state would give: a method's state may hold its images as it likes."""
    method, context, chunks = problem
    return method.finalize(state, context, chunks[chunk]).images


@pytest.fixture(scope="module")
def finished(problem):
    """State and metrics after STEPS jitted steps on the first chunk."""
    method, context, (targets, _) = problem
    return run(method, context, targets, jax.random.key(3), jax.jit(method.step))


def test_factory_is_documented_and_named(problem):
    for name in methods.names():
        module = importlib.import_module(f"ddjax.methods.{name}")
        assert "https://arxiv.org" in module.__doc__, name
        assert "Args:" in module.method.__doc__, name


def test_requires_known_artifacts(problem):
    method, _, _ = problem
    known = {"teacher", "class_stats", "barycenter", "running", "pool"}
    known |= {"generator", "surrogates"}
    assert set(method.requires) <= known


def test_one_trace(problem):
    method, context, (targets, _) = problem
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(method.step, n=1))
    run(method, context, targets, jax.random.key(0), step)


def test_state_keeps_its_structure_shapes_and_types(problem, finished):
    method, context, (targets, _) = problem
    before = method.init(jax.random.key(0), context, targets)
    chex.assert_trees_all_equal_shapes_and_dtypes(before, finished[0])


def test_everything_is_finite_and_the_loss_is_the_sum_of_its_terms(finished):
    state, history = finished
    chex.assert_tree_all_finite((state, history))
    for metrics in history:
        terms = sum(v for k, v in metrics.items() if k != "loss" and "/" not in k)
        assert float(metrics["loss"]) == pytest.approx(float(terms), rel=1e-5)


def test_pixels_move_and_stay_in_range(problem, finished):
    method, context, (targets, _) = problem
    images = method.finalize(finished[0], context, targets).images
    assert float(images.min()) >= 0 and float(images.max()) <= 1
    assert images.dtype == jnp.float32
    assert float(jnp.abs(images - jnp.clip(targets.images, 0, 1)).max()) > 1e-3


def test_labels_and_weights_are_kept(problem, finished):
    method, context, (targets, _) = problem
    distilled = method.finalize(finished[0], context, targets)
    np.testing.assert_array_equal(distilled.labels, targets.labels)
    np.testing.assert_array_equal(distilled.weights, targets.weights)


def test_no_step_is_the_clipped_start(problem):
    method, context, (targets, _) = problem
    state = method.init(jax.random.key(0), context, targets)
    images = method.finalize(state, context, targets).images
    np.testing.assert_allclose(images, np.clip(targets.images, 0, 1))


def test_without_jit_is_the_same(problem, finished):
    method, context, (targets, _) = problem
    state, history = run(method, context, targets, jax.random.key(3), method.step)
    same = images_of(problem, finished[0])
    np.testing.assert_allclose(images_of(problem, state), same, atol=1e-5, rtol=0)
    chex.assert_trees_all_close(history, finished[1], atol=1e-5, rtol=1e-4)


def test_scan_is_the_same(problem, finished):
    method, context, (targets, _) = problem
    key = jax.random.key(3)

    @jax.jit
    def scan(state):
        def body(state, i):
            batch = batch_of(method, context, targets, i)
            key_step = jax.random.fold_in(key, i)
            return method.step(key_step, state, context, targets, batch)

        return jax.lax.scan(body, state, jnp.arange(STEPS))

    state, history = scan(method.init(key, context, targets))
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *finished[1])
    same = images_of(problem, finished[0])
    np.testing.assert_allclose(images_of(problem, state), same, atol=1e-5, rtol=0)
    chex.assert_trees_all_close(history, stacked, atol=1e-5, rtol=1e-4)


def test_pmap_is_the_same(problem, finished):
    method, context, chunks = problem
    assert parallel.device_count() >= 2, "the tests set two fake devices"
    key = jax.random.key(3)
    both = jax.tree.map(lambda *x: jnp.stack(x), *chunks)
    state = jax.vmap(functools.partial(method.init, key, context))(both)
    step = jax.pmap(method.step, in_axes=(None, 0, None, 0, None))
    for i in range(STEPS):
        batch = batch_of(method, context, chunks[0], i)
        state, _ = step(jax.random.fold_in(key, i), state, context, both, batch)
    first = jax.tree.map(lambda x: x[0], state)
    same = images_of(problem, finished[0])
    np.testing.assert_allclose(images_of(problem, first), same, atol=1e-5, rtol=0)


def test_same_key_same_images_other_key_others(problem, finished):
    method, context, (targets, _) = problem
    step = jax.jit(method.step)
    again, _ = run(method, context, targets, jax.random.key(3), step)
    if method.real_set:  # an image has a key of its own
        targets = targets._replace(keys=targets.keys + np.uint32(1))
    other, _ = run(method, context, targets, jax.random.key(4), step)
    again, other = images_of(problem, again), images_of(problem, other)
    np.testing.assert_array_equal(again, images_of(problem, finished[0]))
    assert float(jnp.abs(other - again).max()) > 1e-3
