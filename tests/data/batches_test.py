"""The rows of a batch: every example in every epoch, from any step."""

import chex
import jax
import numpy as np
import pytest

from ddjax.data import batches


def epoch_of(key, epoch, num_examples, batch_size):
    """The rows of all steps of an epoch, [steps, batch]."""
    per_epoch = batches.steps_per_epoch(num_examples, batch_size)
    steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
    return np.stack(
        [batches.indices(key, step, num_examples, batch_size) for step in steps]
    )


@pytest.mark.parametrize(
    ("num_examples", "batch_size", "wanted"),
    [(10, 5, 2), (11, 5, 3), (4, 5, 1), (1, 1, 1), (5, 5, 1)],
)
def test_steps_per_epoch(num_examples, batch_size, wanted):
    assert batches.steps_per_epoch(num_examples, batch_size) == wanted


class TestIndices:
    @pytest.mark.parametrize("epoch", [0, 3])
    def test_an_epoch_is_a_permutation_where_the_batch_divides(self, key, epoch):
        rows = epoch_of(key, epoch, 12, 4)
        assert rows.shape == (3, 4)
        np.testing.assert_array_equal(np.sort(rows.ravel()), np.arange(12))

    @pytest.mark.parametrize(("num_examples", "batch_size"), [(11, 4), (7, 6), (5, 3)])
    def test_last_batch_is_filled_from_the_front(self, key, num_examples, batch_size):
        for epoch in range(3):
            rows = epoch_of(key, epoch, num_examples, batch_size).ravel()
            order, extra = rows[:num_examples], rows[num_examples:]
            np.testing.assert_array_equal(np.sort(order), np.arange(num_examples))
            np.testing.assert_array_equal(extra, order[: len(extra)])

    @pytest.mark.parametrize(("num_examples", "batch_size"), [(11, 4), (7, 6), (5, 5)])
    def test_no_batch_repeats_a_row(self, key, num_examples, batch_size):
        for step in range(6):
            rows = np.asarray(batches.indices(key, step, num_examples, batch_size))
            assert len(set(rows.tolist())) == batch_size

    def test_larger_batch_than_the_set_is_cut(self, key):
        rows = batches.indices(key, 2, 5, 8)
        np.testing.assert_array_equal(np.sort(rows), np.arange(5))

    def test_epochs_have_different_orders(self, key):
        orders = {tuple(epoch_of(key, epoch, 20, 5).ravel()) for epoch in range(4)}
        assert len(orders) == 4

    def test_keys_have_different_orders(self, key):
        other = jax.random.key(1)
        assert tuple(epoch_of(key, 0, 20, 5).ravel()) != tuple(
            epoch_of(other, 0, 20, 5).ravel()
        )

    def test_places_are_uniform(self):
        """Each row opens an epoch equally often: chi-squared over 2,000 epochs."""
        from scipy import stats

        @jax.jit
        @jax.vmap
        def first(epoch):
            return batches.indices(jax.random.key(0), epoch * 4, 8, 2)[0]

        counts = np.bincount(first(np.arange(2000)), minlength=8)
        assert stats.chisquare(counts).pvalue > 1e-3


class IndicesVariantsTest(chex.TestCase):
    @chex.all_variants
    def test_traced_steps_give_the_same_rows(self):
        function = self.variant(
            lambda key, step: batches.indices(key, step, 11, 4),
        )
        key = jax.random.key(5)
        for step in (0, 2, 3, 7):
            wanted = epoch_of(key, step // 3, 11, 4)[step % 3]
            np.testing.assert_array_equal(function(key, step), wanted)
