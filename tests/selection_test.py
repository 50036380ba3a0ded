"""Baselines against brute force and scipy."""

import itertools

import numpy as np
import pytest
from scipy import optimize, spatial

from ddjax import selection


@pytest.fixture(scope="module")
def features():
    """20 rows in 3 dimensions, one of them twice."""
    rows = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    rows[7] = rows[3]
    return rows


def blobs(per_blob=8):
    """Three far-apart clusters; row r lies in cluster r % 3."""
    random = np.random.default_rng(1)
    centres = np.array([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]])
    return np.tile(centres, (per_blob, 1)) + random.normal(size=(3 * per_blob, 2))


class TestHerding:
    @pytest.mark.parametrize("size", [1, 4, 20])
    def test_each_row_is_the_best_next_one(self, features, size):
        """Brute force: try every row that is left, and take the mean in full."""
        exact, chosen = features.astype(np.float64), []
        mean = exact.mean(0)
        for _ in range(size):
            left = [row for row in range(20) if row not in chosen]
            chosen.append(
                min(
                    left,
                    key=lambda row: np.linalg.norm(
                        exact[[*chosen, row]].mean(0) - mean
                    ),
                )
            )
        got = selection.herding(features, size)
        np.testing.assert_allclose(exact[got], exact[chosen])
        assert len(set(got.tolist())) == size

    def test_shift_does_not_matter(self, features):
        moved = selection.herding(features + np.float32(4), 6)
        np.testing.assert_array_equal(
            features[moved], features[selection.herding(features, 6)]
        )

    def test_larger_choice_begins_with_the_smaller(self, features):
        ten = selection.herding(features, 10)
        np.testing.assert_array_equal(ten[:4], selection.herding(features, 4))

    def test_mean_is_followed_better_than_by_chance(self, features):
        def error(rows):
            return np.linalg.norm(features[rows].mean(0) - features.mean(0))

        drawn = [error(selection.random(features, 5, seed)) for seed in range(20)]
        assert error(selection.herding(features, 5)) < min(drawn)


class TestKCenter:
    @pytest.mark.parametrize("size", [1, 4, 20])
    def test_each_row_is_the_farthest_one_left(self, features, size):
        """Brute force over the whole table of distances."""
        exact = features.astype(np.float64)
        table = spatial.distance.cdist(exact, exact)
        middle = np.linalg.norm(exact - exact.mean(0), axis=1)
        chosen = [int(np.argmin(middle))]
        while len(chosen) < size:
            left = [row for row in range(20) if row not in chosen]
            chosen.append(max(left, key=lambda row: table[row, chosen].min()))
        got = selection.k_center(features, size)
        np.testing.assert_allclose(exact[got], exact[chosen])
        assert len(set(got.tolist())) == size

    def test_radius_is_at_most_twice_the_best(self):
        """The guarantee of farthest-first, against all choices of 3 rows out of 9."""
        rows = np.random.default_rng(4).normal(size=(9, 2))
        table = spatial.distance.cdist(rows, rows)

        def radius(chosen):
            return table[:, list(chosen)].min(1).max()

        best = min(radius(c) for c in itertools.combinations(range(9), 3))
        assert best <= radius(selection.k_center(rows, 3)) <= 2 * best

    def test_one_row_of_every_cluster(self):
        assert sorted(selection.k_center(blobs(), 3) % 3) == [0, 1, 2]


class TestKMeans:
    def test_one_row_of_every_cluster(self):
        rows = selection.k_means(blobs(), 3, seed=0)
        assert sorted(rows % 3) == [0, 1, 2]

    def test_rows_are_the_medoids(self):
        points = blobs()
        for row in selection.k_means(points, 3, seed=0):
            cluster = points[row % 3 :: 3]
            to_mean = np.linalg.norm(cluster - cluster.mean(0), axis=1)
            got = np.linalg.norm(points[row] - cluster.mean(0))
            assert got == pytest.approx(to_mean.min())

    @pytest.mark.parametrize("size", [1, 7, 19])
    def test_rows_are_distinct(self, features, size):
        rows = selection.k_means(features, size, seed=0)
        assert len(set(rows.tolist())) == size
        assert rows.min() >= 0 and rows.max() < 20

    def test_seed_fixes_the_rows(self, features):
        np.testing.assert_array_equal(
            selection.k_means(features, 6, seed=3),
            selection.k_means(features, 6, seed=3),
        )


class TestRandom:
    def test_rows_are_distinct_and_follow_the_seed(self, features):
        first, again, other = (
            selection.random(features, 9, seed) for seed in (1, 1, 2)
        )
        np.testing.assert_array_equal(first, again)
        assert first.tolist() != other.tolist()
        assert len(set(first.tolist())) == 9

    def test_every_row_can_be_drawn(self, features):
        drawn = {
            int(row)
            for seed in range(60)
            for row in selection.random(features, 3, seed)
        }
        assert drawn == set(range(20))

    def test_all_rows_are_a_permutation(self, features):
        rows = selection.random(features, 20, 0)
        np.testing.assert_array_equal(np.sort(rows), np.arange(20))


class TestNearest:
    def test_total_distance_is_the_least(self):
        """Brute force over all ways of giving 3 atoms different rows out of 6."""
        random = np.random.default_rng(2)
        rows, atoms = random.normal(size=(6, 2)), random.normal(size=(3, 2))
        cost = spatial.distance.cdist(atoms, rows) ** 2
        best = min(
            itertools.permutations(range(6), 3),
            key=lambda choice: cost[range(3), choice].sum(),
        )
        np.testing.assert_array_equal(selection.nearest(rows, atoms), best)

    def test_equals_scipy_s_assignment(self, features):
        atoms = np.random.default_rng(3).normal(size=(9, 3))
        cost = ((atoms[:, None] - features[None]) ** 2).sum(-1)
        order, rows = optimize.linear_sum_assignment(cost)
        np.testing.assert_array_equal(order, np.arange(9))
        got = selection.nearest(features, atoms)
        assert cost[order, got].sum() == pytest.approx(cost[order, rows].sum())
        assert len(set(got.tolist())) == 9

    def test_rows_themselves_are_found_in_order(self, features):
        order = [5, 19, 0, 11]
        got = selection.nearest(features, features[order])
        np.testing.assert_array_equal(got, order)

    def test_equal_atoms_get_different_rows(self):
        rows = np.array([[0.0], [1.0], [5.0]])
        got = selection.nearest(rows, np.array([[0.0], [0.0]]))
        assert set(got.tolist()) == {0, 1}


class TestSelect:
    @pytest.mark.parametrize("name", selection.names())
    def test_every_baseline_gives_distinct_rows(self, features, name):
        rows = selection.select(name, features, 6, seed=0)
        assert rows.shape == (6,)
        assert len(set(rows.tolist())) == 6

    @pytest.mark.parametrize("name", selection.names())
    def test_all_images_can_be_wanted(self, name):
        points = np.random.default_rng(0).normal(size=(5, 2))
        rows = selection.select(name, points, 5, seed=0)
        np.testing.assert_array_equal(np.sort(rows), np.arange(5))

    def test_names_are_the_documented_ones(self):
        assert set(selection.names()) == {"random", "herding", "kcenter", "kmeans"}

    def test_unknown_name_raises(self, features):
        with pytest.raises(ValueError, match="unknown baseline 'best'; known: random"):
            selection.select("best", features, 3, 0)

    def test_more_rows_than_there_are_raise(self, features):
        with pytest.raises(ValueError, match="21 images wanted of a class that has 20"):
            selection.select("random", features, 21, 0)
