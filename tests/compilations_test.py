"""Each stage compiles its program once, and nothing for another seed of its shapes.

A second compilation is seconds lost in every run, a shape that changes at each step is
hours. Counted are the programs that JAX hands to the compiler, those it then finds in
the compile cache too, small ones (an addition, a slice) among them.
"""

import collections
import contextlib
import functools

import jax
import numpy as np
import pytest

from configs import default
from ddjax import (
    diffusion,
    generate,
    loop,
    methods,
    optimizers,
    recover,
    relabel,
    squeeze,
    stats,
    student,
)
from ddjax.data import augment
from ddjax.types import Context, DistilledSet
from launch import evaluate

_COMPILED = "/jax/core/compile/backend_compile_duration"
PMAPPED = "jit(_fun)"  # what it calls its programs, of any name


@contextlib.contextmanager
def compiled():
    """Counts what is compiled in a block: by the names of the functions."""
    counts = collections.Counter()

    def heard(event, seconds, fun_name="", **about):
        if event == _COMPILED:
            counts[fun_name] += 1

    jax.monitoring.register_event_duration_secs_listener(heard)
    try:
        yield counts
    finally:
        jax.monitoring.unregister_event_duration_listener(heard)


@pytest.fixture(autouse=True)
def _nothing_is_compiled():
    jax.clear_caches()


def both(run):
    """What the first and the second of two runs compile: `run(seed)`."""
    with compiled() as first:
        run(0)
    with compiled() as second:
        run(1)
    return first, second


def test_the_counter_counts():
    square = jax.jit(lambda x: x * x)
    assert both(lambda seed: square(np.ones(3))) == ({"jit(<lambda>)": 1}, {})
    assert both(lambda seed: square(np.ones(7 + seed)))[1] == {"jit(<lambda>)": 1}
    # As a loop that makes its function anew, which is easily overlooked.
    assert both(lambda seed: jax.jit(lambda x: x + x)(np.ones(3)))[1]


@pytest.mark.parametrize("streamed", [False, True])
def test_squeeze(streamed, tiny_network, tiny_data):
    recipe = squeeze.Recipe(batch_size=6, epochs=3, crop_scale=(0.5, 1.0))
    make = squeeze.make_streamed_step if streamed else squeeze.make_step
    batch = tiny_data.images[:6], tiny_data.labels[:6]

    def train(seed):
        key_init, key = jax.random.split(jax.random.key(seed))
        loop.run(
            make(tiny_network, recipe, 15),
            squeeze.init(key_init, tiny_network, recipe, 15),
            () if streamed else tiny_data[:2],
            key,
            range(squeeze.num_steps(recipe, 15)),
            feed=(lambda index: batch) if streamed else None,
        )

    first, second = both(train)
    assert first["jit(block)"] == 1 and not second


def test_generator(tiny_info, tiny_data):
    options = {"width": 8, "depth": 1, "heads": 2, "patch": 4}
    recipe = generate.Recipe(batch_size=6, num_steps=3)
    kept = diffusion.schedule.respaced(diffusion.schedule.linear(), 3)
    shared = (*tiny_data[:2], {})

    def train(seed):
        generator = diffusion.create(tiny_info, model=dict(options))
        state = loop.run(
            generate.make_step(generator, recipe, 15),
            generate.init(jax.random.key(seed), generator, recipe),
            shared,
            jax.random.key(seed),
            range(3),
        )
        draw = sampler(generator)
        draw(jax.random.key(seed), generate.variables(state), np.arange(3))

    @functools.cache
    def sampler(generator):
        return jax.jit(
            lambda key, variables, labels: diffusion.sample(
                key, generator, variables, labels, schedule=kept
            )
        )

    first, second = both(train)
    assert first["jit(block)"] == 1 and not second


def test_stats(tiny_network, tiny_data, tiny_variables):
    """Classes of 4, 5 and 6 images, three at a time: batches that are not full."""
    found = []

    def look(seed):
        variables = jax.tree.map(lambda x: np.array(x) + seed, tiny_variables)
        found.append(
            stats.collect(tiny_network.apply, variables, tiny_data, batch_size=3)
        )

    first, second = both(look)
    assert first == {PMAPPED: 1} and not second

    def summarise(seed):
        stats.barycenters(jax.random.key(seed), found[seed][0], tiny_data, 2)

    first, second = both(summarise)
    assert first["jit(<lambda>)"] == 1 and not second


class TestRecover:
    @pytest.fixture
    def traced(self):
        """A list as long as the method's step was traced."""
        return []

    @pytest.fixture
    def make(self, traced, tiny_network, tiny_info, tiny_variables):
        """Recovers sets of three classes: `make(seed, ipc, batch_size)`."""
        method = methods.create(
            "sre2l",
            tiny_network,
            optimizers.pixel_adam(0.2, 3, tiny_info.std),
            num_steps=3,
            augment=augment.CropFlipRoll((0.5, 1.0), True, 1),
        )

        def step(*arguments):
            traced.append(1)
            return method.step(*arguments)

        counted = method._replace(step=step)

        def make(seed, ipc, batch_size):
            key = jax.random.key(seed)

            def goals(rows):
                return recover.targets(rows, recover.noise(key, rows, tiny_info), ipc)

            cuts = recover.chunks(3, ipc, batch_size, "images")
            context = Context(tiny_variables)
            recover.recover(key, counted, context, goals, cuts, 3)

        return make

    def test_waves_of_one_shape(self, make, traced):
        """Two and three waves of two chunks of three images."""
        _, second = both(lambda seed: make(seed, ipc=4, batch_size=3))
        assert len(traced) == 1 and not second
        with compiled() as larger:
            make(0, ipc=6, batch_size=3)
        assert len(traced) == 1 and not larger

    def test_a_ragged_last_wave_is_one_more(self, make, traced):
        _, second = both(lambda seed: make(seed, ipc=5, batch_size=3))
        assert len(traced) == 2 and not second

    def test_two_sizes_in_turn_are_two(self, make, traced):
        """Six waves of one chunk, of two images and of one."""
        _, second = both(lambda seed: make(seed, ipc=3, batch_size=2))
        assert len(traced) == 2 and not second


def test_relabel(tiny_network, tiny_data, tiny_variables):
    views = relabel.Views(batch_size=6)
    about = tiny_network.apply, tiny_variables

    def on_views(seed):
        key = jax.random.key(seed)
        relabel.soft_labels(*about, views, key, tiny_data.images, range(5))

    def on_images(seed):
        relabel.plain_labels(*about, tiny_data.images[::-1], batch_size=6)

    for label, programs in ((on_views, 1), (on_images, 0)):  # the same, on a CPU
        first, second = both(label)
        assert first[PMAPPED] == programs and not second


@pytest.mark.parametrize("students", [1, 2])
def test_student(students, tiny_network, tiny_data):
    recipe = student.Recipe(relabel.Views(batch_size=6), epochs=2)
    distilled = DistilledSet(*tiny_data[:2], np.ones(15, np.float32))

    def train(seed):
        keys = jax.random.split(jax.random.key(seed), students)
        key = jax.random.key(seed + 5)
        student.train(keys, tiny_network, recipe, distilled, key, labels="hard")

    first, second = both(train)
    assert first["jit(block)"] == 1 and not second


def test_views_are_compiled_once_for_all_students(tiny_network, tiny_data):
    """On a CPU, where labels of all kinds and the labeller look by one program."""
    views = relabel.Views(batch_size=5)  # which two devices do not divide
    distilled = DistilledSet(*tiny_data[:2], np.ones(15, np.float32))
    key = jax.random.key(0)
    with compiled() as counts:
        soft = relabel.soft_labels(
            tiny_network.apply,
            tiny_network.init(key),
            views,
            key,
            distilled.images,
            range(6),
        )
        for labels in ("hard", "stored"):
            student.train(
                key[None],
                tiny_network,
                student.Recipe(views, epochs=2),
                distilled,
                key,
                labels=labels,
                soft=soft if labels == "stored" else (),
            )
    assert counts["jit(look)"] == 1 and counts["jit(block)"] == 2


def test_programs(tmp_path):
    """All stages, from the data to the table; then a second set of each arm."""
    config = default.get_config("quick")
    config.recover.ipc = (2,)

    def run(seed):
        config.recover.sets = seed + 1
        evaluate.run(config, tmp_path)

    first, second = both(run)
    loops = {"jit(block)": 2, "jit(alone)": 1}  # teacher and student; images
    turns = {PMAPPED: 3}  # what the teacher reports, its labels, everybody's guesses
    wanted = loops | turns | {f"jit({x})": 1 for x in ("images", "_transport_cost")}
    assert wanted.items() <= first.items() and not second
