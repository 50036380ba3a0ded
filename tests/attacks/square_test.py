"""Square against the authors' code and torchattacks', with their random numbers."""

import importlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import attacks, models
from ddjax.models import weights
from ddjax.types import DataInfo

FOLDER = pathlib.Path(__file__).parent / "fixtures"
# As make_square_fixtures.py has them.
INFO = DataInfo("noise", tuple("abcde"), (8, 8, 3), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
# The package has a function of this name.
module = importlib.import_module("ddjax.attacks.square")


@pytest.fixture(scope="module")
def points():
    with np.load(FOLDER / "autoattack.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def model(points):
    """A ConvNet of torch's weights; float64 where its images are."""
    network = models.create("convnet", INFO, width=6, depth=2)
    like = jax.eval_shape(network.init, jax.random.key(0))
    tensors = {
        name.removeprefix("weights/"): tensor
        for name, tensor in points.items()
        if name.startswith("weights/")
    }
    variables = weights.from_torch(tensors, like)

    def model(images):
        exact = jax.tree.map(lambda leaf: leaf.astype(images.dtype), variables)
        return network.apply(exact, images)[0]

    return model


def last_state(attack, model, images, labels, keys):
    state = attack.init(model, images, labels, keys, 0)
    step = jax.jit(lambda state, i: attack.step(model, state, i, images, labels, keys))
    for i in range(attack.num_steps):
        state = step(state, i)
    return state


@pytest.mark.parametrize("schedule", ["plain", "rescaled"])
def test_replay_of_the_reference(schedule, points, model, monkeypatch):
    with np.load(FOLDER / "square.npz") as file, jax.enable_x64(True):
        found = {
            name.removeprefix(f"{schedule}/"): jnp.array(value)
            for name, value in file.items()
            if name.startswith(schedule)
        }
        eps, queries = float(file["eps"]), int(file["queries"])

        def replay(key, number, shape):
            if len(shape) == 3:
                return found["stripes"][key]
            return found["windows"][jnp.minimum(number, len(found["windows"])) - 1]

        monkeypatch.setattr(module, "draws", replay)
        count = len(found["images"])
        images = jnp.array(points["pixels"][:count] / 255)
        labels = jnp.array(points["labels"][:count])
        rescale = schedule == "rescaled"
        attack = attacks.square(
            eps=eps, num_queries=queries, rescale=rescale, shared=True
        )
        state = last_state(attack, model, images, labels, jnp.arange(count))
        asked = found["counts"]
        np.testing.assert_array_equal(state[2], asked)
        assert len(set(asked.tolist())) > 5  # some at once, some never
        np.testing.assert_allclose(attack.result(state), found["images"], atol=1e-14)


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("queries", [5000, 300, 7])
def test_side_lengths(rescale, queries):
    """By the paper's table, one query after the other."""

    def wanted(i):
        i = int(i / queries * 10000) if rescale else i
        ends = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000]
        share = 0.8 / 2 ** sum(i > end for end in ends)
        return max(round((share * 32 * 20) ** 0.5), 1)

    numbers = np.arange(queries)
    sides = jax.vmap(
        lambda i: module.side_length(i, (32, 20, 3), queries, 0.8, rescale)
    )(numbers)
    np.testing.assert_array_equal(sides, [min(wanted(i), 20) for i in numbers])


class TestOneImage:
    """What an image gets from its own key."""

    eps, shape = 0.1, (6, 8, 8, 3)

    @pytest.fixture
    def images(self):
        return jax.random.uniform(jax.random.key(3), self.shape, minval=0, maxval=1)

    def run(self, images, keys, queries=30, **options):
        attack = attacks.square(eps=self.eps, num_queries=queries, **options)

        # The class is safe, and every change of the sum is worth keeping.
        def model(images):
            total = images.sum((1, 2, 3))
            return jnp.stack([total + 1e4, jnp.zeros_like(total)], 1)

        return last_state(attack, model, images, jnp.zeros(len(keys), int), keys)

    def test_in_the_ball_and_the_box(self, images, key):
        moved = self.run(images, jax.random.split(key, 6))[0]
        assert np.abs(moved - images).max() <= self.eps + 1e-6
        assert 0 <= moved.min() and moved.max() <= 1

    def test_does_not_depend_on_the_batch(self, images, key):
        keys = jax.random.split(key, 6)
        whole = self.run(images, keys)[0]
        part = self.run(images[2:4], keys[2:4])[0]
        np.testing.assert_array_equal(whole[2:4], part)
        assert np.any(whole[2] - images[2] != whole[3] - images[3])

    def test_shared_windows_are_the_first_keys(self, images, key):
        same = jnp.broadcast_to(images[:1], self.shape)
        keys = jax.random.split(key, 6)
        for queries in (1, 5):
            moved = self.run(same, keys, queries, shared=True)
            alone = self.run(same, jnp.broadcast_to(keys[:1], (6,)), queries)
            np.testing.assert_array_equal(moved[0][0], alone[0][0])

    def test_queries_beyond_the_number_are_not_made(self, images, key):
        """Steps make ten at a time."""
        keys = jax.random.split(key, 6)
        few, ten = self.run(images, keys, 3), self.run(images, keys, 10)
        assert np.all(few[2] == 4) and np.all(ten[2] == 11)
        assert np.any(few[0] != ten[0])

    def test_no_radius_no_change(self, images, key):
        attack = attacks.square(eps=0.0, num_queries=10)
        keys = jax.random.split(key, 6)
        model = lambda x: x.reshape(6, -1)[:, :2]
        state = last_state(attack, model, images, jnp.zeros(6, int), keys)
        np.testing.assert_array_equal(state[0], images)

    @pytest.mark.parametrize(
        "wrong", [{"num_queries": 0}, {"eps": -0.1}, {"p_init": 0.0}, {"p_init": 1.1}]
    )
    def test_what_cannot_be_is_refused(self, wrong):
        with pytest.raises(ValueError, match="expected at least"):
            attacks.square(**{"eps": 0.1} | wrong)
