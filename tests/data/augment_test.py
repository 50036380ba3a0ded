"""Augmentation against PyTorch, torchvision and its sampler."""

import math
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from scipy import stats

from ddjax.data import augment

FIXTURES = pathlib.Path(__file__).parents[1] / "models" / "fixtures"
ANTIALIASED = pathlib.Path(__file__).parent / "fixtures" / "augment.npz"
NUM_DRAWS = 2000


@pytest.fixture(scope="module")
def torch_crops():
    """What PyTorch's interpolation of the crops gives (models/make_fixtures.py)."""
    with np.load(FIXTURES / "crop_resize.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def antialiased():
    """What torchvision's resized_crop gives (make_augment_fixtures.py)."""
    with np.load(ANTIALIASED) as arrays:
        return dict(arrays)


def marked(count, height, width):
    """Images in which every pixel has a number of its own, as float32."""
    return jnp.arange(count * height * width, dtype=jnp.float32).reshape(
        count, height, width, 1
    )


class TestCropResize:
    def test_golden_values(self):
        image = jnp.arange(16.0).reshape(1, 4, 4, 1)
        out = augment.crop_resize(image, jnp.array([1, 0, 2, 3]))
        wanted = [
            [4, 4.625, 5.375, 6],
            [5, 5.625, 6.375, 7],
            [7, 7.625, 8.375, 9],
            [8, 8.625, 9.375, 10],
        ]
        np.testing.assert_allclose(out[0, ..., 0], wanted, atol=1e-5)

    def test_equals_pytorch_s_interpolation_of_the_crop(self, torch_crops):
        images = jnp.asarray(torch_crops["images"], jnp.float32)
        assert len(torch_crops["boxes"]) == 5
        for box, wanted in zip(torch_crops["boxes"], torch_crops["resized"]):
            got = augment.crop_resize(images, jnp.asarray(box, jnp.float32))
            np.testing.assert_allclose(got, wanted, atol=1e-3)  # of 255

    def test_pixels_outside_the_box_are_not_mixed_in(self, key):
        images = jax.random.uniform(key, (2, 6, 7, 3))
        box = jnp.array([1, 2, 3, 4])
        spoilt = jnp.full_like(images, 1e6).at[:, 1:4, 2:6].set(images[:, 1:4, 2:6])
        np.testing.assert_array_equal(
            augment.crop_resize(images, box), augment.crop_resize(spoilt, box)
        )

    def test_the_whole_image_stays_what_it_is(self, key):
        images = jax.random.uniform(key, (2, 5, 8, 3))
        out = augment.crop_resize(images, jnp.array([0, 0, 5, 8]))
        np.testing.assert_allclose(out, images, atol=1e-6)

    def test_gradient(self, key):
        images = jax.random.uniform(key, (1, 4, 5, 1))
        box = jnp.array([1.0, 0.0, 2.0, 3.0])
        chex.assert_numerical_grads(
            jax.jit(lambda images: jnp.sin(augment.crop_resize(images, box)).sum()),
            (images,),
            order=1,
            atol=1e-2,
            rtol=1e-2,
        )

    def test_gradient_is_zero_outside_the_box_and_flows_inside(self, key):
        weights = jax.random.uniform(key, (1, 6, 6, 1), minval=0.5)
        box = jnp.array([2, 1, 3, 4])
        gradient = jax.grad(lambda x: (augment.crop_resize(x, box) * weights).sum())(
            jnp.zeros((1, 6, 6, 1))
        )
        inside = np.zeros((6, 6), bool)
        inside[2:5, 1:5] = True
        np.testing.assert_array_equal(gradient[0, ..., 0] > 0, inside)
        # Interpolation weights of an output pixel sum to one.
        assert float(gradient.sum()) == pytest.approx(float(weights.sum()), rel=1e-5)


@jax.jit
def plain_crop_resize(images, box):
    """The crop that the committed tables of results were made with."""

    def weights(size, start, length):
        centres = (jnp.arange(size) + 0.5) * length / size - 0.5
        centres = start + jnp.clip(centres, 0, length - 1)
        return jnp.maximum(0.0, 1.0 - jnp.abs(centres[:, None] - jnp.arange(size)))

    top, left, height, width = box
    rows = weights(images.shape[1], top, height)
    columns = weights(images.shape[2], left, width)
    highest = jax.lax.Precision.HIGHEST
    images = jnp.einsum("ih,nhwc->niwc", rows, images, precision=highest)
    return jnp.einsum("jw,niwc->nijc", columns, images, precision=highest)


class TestCropResizeTo:
    """Outputs of another size than the images."""

    def test_equals_torchvision_with_antialiasing(self, antialiased):
        images = jnp.asarray(antialiased["crop_images"], jnp.float32)
        cases = list(zip(antialiased["crop_boxes"], antialiased["crop_sizes"]))
        assert len(cases) == 6
        for case, (box, size) in enumerate(cases):
            crop = jax.jit(augment.crop_resize, static_argnames="size")
            got = crop(images, jnp.asarray(box, jnp.float32), size=tuple(size.tolist()))
            wanted = antialiased[f"crop_{case}"]
            assert got.shape == wanted.shape
            np.testing.assert_allclose(got, wanted, atol=1e-3)  # of 255

    @pytest.mark.parametrize("size", [None, (16, 12)])
    def test_equal_to_the_last_bit_where_nothing_is_shrunk(self, key, size):
        """Tables of results depend on it."""
        images = jax.random.uniform(key, (2, 16, 12, 3))
        crop = jax.jit(lambda images, box: augment.crop_resize(images, box, size))
        for box in ([0, 0, 16, 12], [3, 1, 7, 9], [15, 11, 1, 1], [2, 0, 14, 3]):
            box = jnp.array(box, jnp.float32)
            wanted = plain_crop_resize(images, box)
            np.testing.assert_array_equal(crop(images, box), wanted)

    def test_a_short_box_is_enlarged_as_without_antialiasing(self, key):
        """The output is smaller than the images: the box, traced, decides."""
        images = jax.random.uniform(key, (2, 24, 20, 3))
        crop = jax.jit(lambda images, box: augment.crop_resize(images, box, (12, 10)))
        for top, left, height, width in ((3, 4, 12, 10), (0, 9, 5, 7), (23, 19, 1, 1)):
            got = crop(images, jnp.array([top, left, height, width], jnp.float32))
            part = images[:, top : top + height, left : left + width]
            wanted = jax.image.resize(part, (2, 12, 10, 3), "linear", antialias=False)
            np.testing.assert_allclose(got, wanted, atol=1e-6)

    def test_pixels_outside_the_box_are_not_mixed_in(self, key):
        images = jax.random.uniform(key, (1, 16, 16, 1))
        box = jnp.array([2, 3, 11, 9])
        spoilt = jnp.full_like(images, 1e6)
        spoilt = spoilt.at[:, 2:13, 3:12].set(images[:, 2:13, 3:12])
        np.testing.assert_array_equal(
            augment.crop_resize(images, box, 4), augment.crop_resize(spoilt, box, 4)
        )

    def test_sizes_may_be_larger_than_the_images(self, key):
        images = jax.random.uniform(key, (1, 5, 6, 2))
        got = augment.crop_resize(images, jnp.array([1, 1, 3, 4]), (11, 8))
        part = images[:, 1:4, 1:5]
        wanted = jax.image.resize(part, (1, 11, 8, 2), "linear", antialias=False)
        np.testing.assert_allclose(got, wanted, atol=1e-6)

    @pytest.mark.parametrize("box", [[1.0, 0.0, 7.0, 6.0], [2.0, 3.0, 2.0, 1.0]])
    def test_gradient_is_finite_and_right(self, key, box):
        images = jax.random.uniform(key, (1, 8, 6, 1))
        box = jnp.array(box)
        chex.assert_numerical_grads(
            jax.jit(lambda images: jnp.sin(augment.crop_resize(images, box, 3)).sum()),
            (images,),
            order=1,
            atol=1e-2,
            rtol=1e-2,
        )


def torchvision_boxes(count, height, width, scale, ratio, seed=0):
    """RandomResizedCrop.get_params of torchvision, written again with numpy."""
    random = np.random.default_rng(seed)
    boxes = []
    for _ in range(count):
        for _ in range(10):
            area = height * width * random.uniform(*scale)
            aspect = math.exp(random.uniform(*np.log(ratio)))
            w = round(math.sqrt(area * aspect))
            h = round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                top = random.integers(0, height - h + 1)
                left = random.integers(0, width - w + 1)
                break
        else:
            w, h = width, height
            if width / height < min(ratio):
                h = round(width / min(ratio))
            elif width / height > max(ratio):
                w = round(height * max(ratio))
            top, left = (height - h) // 2, (width - w) // 2
        boxes.append((top, left, h, w))
    return np.array(boxes)


def drawn_boxes(height, width, scale, ratio=(3 / 4, 4 / 3)):
    keys = jax.random.split(jax.random.key(0), NUM_DRAWS)
    sample = jax.jit(
        jax.vmap(lambda key: augment.sample_crop(key, height, width, scale, ratio))
    )
    return np.asarray(sample(keys))


@pytest.fixture(scope="module", params=[(224, 224), (32, 48)], ids=str)
def drawn(request):
    """Height, width and the boxes drawn for them."""
    return (*request.param, drawn_boxes(*request.param, (0.08, 1.0)))


class TestSampleCrop:
    def test_boxes_are_whole_pixels_inside_the_image(self, drawn):
        height, width, boxes = drawn
        np.testing.assert_array_equal(boxes, np.round(boxes))
        top, left, h, w = boxes.T
        assert top.min() >= 0 and left.min() >= 0
        assert h.min() >= 1 and w.min() >= 1
        assert np.all(top + h <= height) and np.all(left + w <= width)

    def test_area_and_ratio_are_within_the_ranges(self, drawn):
        """Some box before rounding, half a pixel away at most, fulfils both."""
        height, width, boxes = drawn
        h, w = boxes[:, 2], boxes[:, 3]
        area = height * width
        assert np.all((h + 0.5) * (w + 0.5) >= 0.08 * area)
        assert np.all((h - 0.5) * (w - 0.5) <= area)
        assert np.all((w + 0.5) / (h - 0.5) >= 3 / 4)
        assert np.all((w - 0.5) / (h + 0.5) <= 4 / 3)

    def test_boxes_are_distributed_as_torchvision_s(self, drawn):
        height, width, boxes = drawn
        wanted = torchvision_boxes(
            NUM_DRAWS, height, width, (0.08, 1.0), (3 / 4, 4 / 3)
        )
        for column in range(4):
            test = stats.ks_2samp(boxes[:, column], wanted[:, column])
            assert test.pvalue > 1e-3, f"column {column}: {test}"
        ratios = [np.log(b[:, 3] / b[:, 2]) for b in (boxes, wanted)]
        assert stats.ks_2samp(*ratios).pvalue > 1e-3

    def test_both_ends_of_the_offset_occur(self):
        boxes = drawn_boxes(6, 6, (0.2, 0.4))
        for start, size in ((boxes[:, 0], boxes[:, 2]), (boxes[:, 1], boxes[:, 3])):
            for length in np.unique(size):
                ends = start[size == length]
                assert ends.min() == 0 and ends.max() == 6 - length

    def test_both_ends_of_the_area_occur(self):
        boxes = drawn_boxes(224, 224, (0.25, 0.5), (1.0, 1.0 + 1e-6))
        area = boxes[:, 2] * boxes[:, 3] / 224**2
        assert 0.245 < area.min() < 0.255 and 0.49 < area.max() < 0.505
        assert area.mean() == pytest.approx(0.375, abs=0.01)  # uniform in the area

    @pytest.mark.parametrize(
        ("height", "width", "wanted"),
        [(10, 40, (0, 13, 10, 13)), (40, 10, (13, 0, 13, 10)), (9, 8, (0, 0, 9, 8))],
    )
    def test_central_crop_where_nothing_fits(self, height, width, wanted):
        """Areas of more than the whole image fit nowhere."""
        boxes = drawn_boxes(height, width, (1.5, 2.0))
        assert torchvision_boxes(1, height, width, (1.5, 2.0), (3 / 4, 4 / 3))[
            0
        ].tolist() == list(wanted)
        np.testing.assert_array_equal(boxes, np.broadcast_to(wanted, boxes.shape))

    def test_bounds_may_be_traced(self, key):
        sample = jax.jit(lambda low: augment.sample_crop(key, 32, 32, (low, 1.0)))
        for low in (0.08, 0.9):
            wanted = augment.sample_crop(key, 32, 32, (low, 1.0))
            np.testing.assert_array_equal(sample(low), wanted)


class TestRandomCrop:
    @staticmethod
    def crop(key, images, scale, shared):
        crop = jax.jit(augment.random_crop, static_argnames=("scale", "shared"))
        return np.asarray(crop(key, images, scale=scale, shared=shared))

    def test_shared_box_is_the_same_for_all_images(self, key):
        image = jax.random.uniform(key, (1, 8, 8, 3))
        out = self.crop(key, jnp.repeat(image, 5, axis=0), (0.1, 0.5), True)
        np.testing.assert_array_equal(out, np.repeat(out[:1], 5, axis=0))
        assert not np.allclose(out[0], image[0])

    def test_own_boxes_differ(self, key):
        image = jax.random.uniform(key, (1, 8, 8, 3))
        out = self.crop(key, jnp.repeat(image, 6, axis=0), (0.1, 0.5), False)
        assert len({x.tobytes() for x in out}) == 6

    @pytest.mark.parametrize("shared", [True, False])
    def test_every_image_is_a_crop_of_itself(self, key, shared):
        """Each image is of one colour: crops cannot change it."""
        colours = jnp.arange(1.0, 6)[:, None, None, None]
        images = jnp.broadcast_to(colours, (5, 8, 10, 2))
        out = self.crop(key, images, (0.08, 1.0), shared)
        np.testing.assert_allclose(out, images, rtol=1e-6)

    @pytest.mark.parametrize("shared", [True, False])
    def test_equal_to_the_last_bit_to_what_tables_were_made_with(self, key, shared):
        images = jax.random.uniform(key, (4, 12, 9, 3))

        def one(key, images):
            box = augment.sample_crop(key, 12, 9, (0.08, 1.0))
            return plain_crop_resize(images, box)

        if shared:
            wanted = jax.jit(one)(key, images)
        else:
            each = jax.vmap(lambda key, image: one(key, image[None])[0])
            wanted = jax.jit(each)(jax.random.split(key, 4), images)
        got = self.crop(key, images, (0.08, 1.0), shared)
        np.testing.assert_array_equal(got, wanted)

    @pytest.mark.parametrize("shared", [True, False])
    def test_another_size(self, key, shared):
        """The boxes are those drawn for the images' own size."""
        images = jax.random.uniform(key, (3, 16, 12, 2))
        crop = jax.jit(
            lambda size: augment.random_crop(
                key, images, (0.3, 1.0), shared=shared, size=size
            ),
            static_argnums=0,
        )
        small, full = crop((4, 3)), crop(None)
        assert small.shape == (3, 4, 3, 2)
        # Of either, the mean is near that of the box.
        np.testing.assert_allclose(small.mean((1, 2)), full.mean((1, 2)), atol=0.05)


class TestRandomCropPad:
    def test_every_shift_occurs_with_zeros_moving_in(self, key):
        images = marked(400, 4, 5) + 1
        out = np.asarray(augment.random_crop_pad(key, images, 1))
        shifts = []
        for image, shifted in zip(np.asarray(images), out):
            padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
            fits = [
                (top, left)
                for top in range(3)
                for left in range(3)
                if np.array_equal(padded[top : top + 4, left : left + 5], shifted)
            ]
            assert len(fits) == 1
            shifts.append(3 * fits[0][0] + fits[0][1])
        assert stats.chisquare(np.bincount(shifts, minlength=9)).pvalue > 1e-3

    def test_shared_shifts_all_alike(self, key):
        images = jnp.broadcast_to(marked(1, 5, 5), (4, 5, 5, 1))
        out = augment.random_crop_pad(key, images, 2, shared=True)
        np.testing.assert_array_equal(out, jnp.broadcast_to(out[:1], out.shape))

    def test_no_padding_is_the_identity(self, key):
        images = marked(2, 3, 4)
        np.testing.assert_array_equal(augment.random_crop_pad(key, images, 0), images)

    def test_gradient_is_one_for_pixels_that_stay(self, key):
        images = marked(3, 4, 4) + 1
        out = augment.random_crop_pad(key, images, 2)
        gradient = jax.grad(lambda x: augment.random_crop_pad(key, x, 2).sum())(images)
        np.testing.assert_array_equal(gradient, np.isin(images, out))


class TestRandomFlip:
    def test_shared_coin_mirrors_all_or_none(self):
        images = marked(3, 2, 4)
        seen = set()
        for seed in range(20):
            out = augment.random_flip(jax.random.key(seed), images, shared=True)
            mirrored = np.array_equal(out, images[:, :, ::-1])
            assert mirrored or np.array_equal(out, images)
            seen.add(mirrored)
        assert seen == {True, False}

    def test_own_coins_mirror_left_to_right_half_of_the_time(self, key):
        images = marked(400, 2, 3)
        out = np.asarray(augment.random_flip(key, images, shared=False))
        same = (out == images).all((1, 2, 3))
        mirrored = (out == images[:, :, ::-1]).all((1, 2, 3))
        assert np.all(same ^ mirrored)
        assert stats.binomtest(int(mirrored.sum()), 400).pvalue > 1e-3


class TestRandomRoll:
    def test_shifts_are_circular_down_and_right_up_to_the_jitter(self):
        images = marked(2, 7, 9)
        roll = jax.jit(lambda key: augment.random_roll(key, images, 2))
        shifts = set()
        for seed in range(80):
            out = np.asarray(roll(jax.random.key(seed)))
            down, right = np.argwhere(out[0, ..., 0] == 0)[0]
            np.testing.assert_array_equal(out, np.roll(images, (down, right), (1, 2)))
            shifts.add((int(down), int(right)))
        assert shifts == {(down, right) for down in range(3) for right in range(3)}

    def test_no_jitter_is_the_identity(self, key):
        images = marked(2, 3, 4)
        np.testing.assert_array_equal(augment.random_roll(key, images, 0), images)


class TestCropFlipRoll:
    def test_nothing_switched_on_is_the_identity(self, key):
        images = marked(2, 6, 6)
        view = augment.CropFlipRoll(scale=(1.0, 1.0), flip=False, jitter=0)
        np.testing.assert_array_equal(view(key, images, 0), images)

    @pytest.mark.parametrize("flip", [True, False])
    def test_flip_comes_before_the_roll(self, flip):
        images = marked(2, 4, 6)
        view = augment.CropFlipRoll(scale=(1.0, 1.0), flip=flip, jitter=1)
        starts = [images, images[:, :, ::-1]] if flip else [images]
        allowed = {
            np.roll(start, (down, right), (1, 2)).tobytes()
            for start in starts
            for down in (0, 1)
            for right in (0, 1)
        }
        run = jax.jit(lambda key: view(key, images, 0))
        seen = {np.asarray(run(jax.random.key(k))).tobytes() for k in range(60)}
        assert seen == allowed

    def test_lowest_replaces_the_lower_bound(self, key):
        """The share kept is 1 from step 10 on: nothing is cropped."""
        images = jax.random.uniform(key, (2, 8, 8, 1))
        view = augment.CropFlipRoll(
            scale=(0.08, 1.0),
            flip=False,
            jitter=0,
            lowest=lambda count: jnp.where(count < 10, 0.08, 1.0),
        )
        run = jax.jit(lambda count: view(key, images, count))
        assert not np.allclose(run(9), images)
        np.testing.assert_allclose(run(10), images, atol=1e-6)

    def test_whole_batch_is_seen_alike(self, key):
        image = jax.random.uniform(key, (1, 8, 8, 3))
        view = augment.CropFlipRoll(jitter=3)
        out = view(key, jnp.repeat(image, 4, axis=0), 0)
        np.testing.assert_array_equal(out, jnp.repeat(out[:1], 4, axis=0))

    def test_gradient_reaches_the_images(self, key):
        images = jax.random.uniform(key, (2, 4, 4, 1))
        view = augment.CropFlipRoll(jitter=2)
        chex.assert_numerical_grads(
            jax.jit(lambda images: jnp.sin(view(key, images, 0)).sum()),
            (images,),
            order=1,
            atol=1e-2,
            rtol=1e-2,
        )


class AugmentVariantsTest(chex.TestCase):
    """The same key gives the same result, compiled, mapped over devices or not."""

    FUNCTIONS = (
        ("crop_shared", lambda k, x: augment.random_crop(k, x, (0.1, 1), shared=True)),
        ("crop_own", lambda k, x: augment.random_crop(k, x, (0.1, 1), shared=False)),
        ("flip_own", lambda k, x: augment.random_flip(k, x, shared=False)),
        ("roll", lambda k, x: augment.random_roll(k, x, 3)),
        ("pad", lambda k, x: augment.random_crop_pad(k, x, 2)),
        ("mixup", lambda k, x: augment.mixup(k, x).images),
        ("cutmix", lambda k, x: augment.cutmix(k, x).images),
        ("view", lambda k, x: augment.CropFlipRoll(jitter=3)(k, x, 0)),
    )

    @chex.variants(with_jit=True, without_jit=True, with_pmap=True)
    @parameterized.named_parameters(*FUNCTIONS)
    def test_same_key_same_result(self, function):
        keys = jax.random.split(jax.random.key(3), 2)
        images = jax.random.uniform(keys[0], (3, 6, 8, 2))
        wanted = jax.jit(function)(keys[1], images)
        got = self.variant(function)(keys[1], images)
        np.testing.assert_allclose(got, wanted, atol=1e-5)
        self.assertEqual(got.shape, images.shape)

    @parameterized.named_parameters(*FUNCTIONS)
    def test_vmap_over_keys_equals_one_by_one(self, function):
        keys = jax.random.split(jax.random.key(4), 4)
        images = jax.random.uniform(keys[0], (3, 6, 8, 2))
        together = jax.jit(jax.vmap(function, in_axes=(0, None)))(keys, images)
        one = jax.jit(function)
        wanted = np.stack([one(key, images) for key in keys])
        np.testing.assert_allclose(together, wanted, atol=1e-5)
        distinct = {row.tobytes() for row in wanted}
        self.assertGreater(len(distinct), 1)


class TestPatchShuffle:
    """RDED's: quarters of an image, or ninths, in any order."""

    @pytest.mark.parametrize("factor", [2, 3])
    def test_patches_are_those_of_the_image(self, factor):
        images = marked(40, 6, 12)
        shuffled = augment.patch_shuffle(jax.random.key(0), images, factor)

        def patches(image):
            rows = np.split(np.asarray(image), factor, 0)
            return [p for row in rows for p in np.split(row, factor, 1)]

        orders = set()
        for image, other in zip(images, shuffled):
            wanted = [patch.tobytes() for patch in patches(image)]
            order = tuple(wanted.index(patch.tobytes()) for patch in patches(other))
            assert sorted(order) == list(range(factor**2))
            orders.add(order)
        assert len(orders) > 12  # every image has its own; 24 orders of four

    def test_patches_that_do_not_fit_are_refused(self):
        with pytest.raises(ValueError, match="patch_shuffle 4 does not .* 6x12"):
            augment.patch_shuffle(jax.random.key(0), marked(1, 6, 12), 4)
