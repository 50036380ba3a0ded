"""Recipes by name, and whole trainings by them against PyTorch's."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import models, recipes, student
from ddjax.types import DistilledSet

FIXTURE = pathlib.Path(__file__).parent / "fixtures" / "recipes.npz"


def create(name, model="resnet18", ipc=10, num_classes=10, **changes):
    return recipes.create(
        name, model=model, ipc=ipc, num_classes=num_classes, **changes
    )


@pytest.fixture(scope="module")
def torch_students():
    """What PyTorch makes of one start (make_recipe_fixtures.py)."""
    with np.load(FIXTURE) as arrays:
        return dict(arrays)


def linear(given):
    """A network of one layer that starts where the fixture does."""

    def init(key):
        del key
        layer = {name: jnp.asarray(given[name]) for name in ("kernel", "bias")}
        return {"params": {"layer": layer}, "batch_stats": {}}

    def apply(variables, images):
        layer = variables["params"]["layer"]
        return images.reshape(len(images), -1) @ layer["kernel"] + layer["bias"], {}

    return models.Network(init, apply, lambda v, x: (apply(v, x)[0], {}))


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("dc", 1e-6),
        ("edc", 2e-6),
        # At temperature 20 gradients are small, and Adam enlarges what is rounded.
        ("wmdd", 2e-5),
        ("rded", 2e-5),
        ("rd3", 2e-5),
    ],
)
def test_students_are_pytorch_s(name, tolerance, torch_students):
    given = torch_students
    changes = {"epochs": 9, "batch_size": 12, "learning_rate": 0.1}
    recipe = create(f"{name}+plain", model="convnet", **changes)
    weights = np.ones(12, np.float32)
    distilled = DistilledSet(given["images"], given["labels"].astype(int), weights)
    labels = "hard" if name == "dc" else "single"
    (trained,) = student.train(
        jax.random.key(0)[None],
        linear(given),
        recipe,
        distilled,
        jax.random.key(1),
        labels=labels,
        soft=given["logits"] if labels == "single" else (),
    )
    for part in ("kernel", "bias"):
        wanted = given[f"{name}_{part}"]
        assert np.abs(wanted - given[part]).max() > 0.02
        got = trained["params"]["layer"][part]
        np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance)


def layers(given, schedule):
    """Two layers that start where the fixture does."""

    def init(key):
        del key
        named = {
            f"layer{i}": {
                name: jnp.asarray(given[f"{schedule} first {name}{i}"])
                for name in ("kernel", "bias")
            }
            for i in (0, 1)
        }
        return {"params": named, "batch_stats": {}}

    def apply(variables, images):
        first, second = (variables["params"][f"layer{i}"] for i in (0, 1))
        hidden = images.reshape(len(images), -1) @ first["kernel"] + first["bias"]
        return jax.nn.relu(hidden) @ second["kernel"] + second["bias"], {}

    return models.Network(init, apply, lambda v, x: (apply(v, x)[0], {}))


@pytest.mark.parametrize("schedule", ["cosine", "cosine_linear"])
def test_edc_with_otm_is_pytorch_s_step_by_step(schedule, torch_students):
    """The loss of every step, and the average after it."""
    given = torch_students
    changes = {"epochs": 20, "batch_size": 12, "learning_rate": 0.02}
    recipe = create("edc_otm+plain", schedule=schedule, **changes)
    network = layers(given, schedule)
    step = jax.jit(student.make_step(network, recipe, 12, "single"))
    state = student.initial_state(jax.random.key(0)[None], network, recipe, 12)
    shared = [given["images"], given["labels"].astype(int), np.ones(12, np.float32)]
    shared = jax.tree.map(jnp.asarray, (*shared, given["logits"]))
    shared = jax.random.key(1), *shared
    for i in range(20):
        state, report = step(state, i, shared, ())
        wanted = given[f"{schedule} loss"][i]
        assert float(report["loss"]) == pytest.approx(wanted, rel=1e-5)
        average = student.variables(state)["params"]
        for j, part in ((0, "kernel"), (0, "bias"), (1, "kernel"), (1, "bias")):
            np.testing.assert_allclose(
                average[f"layer{j}"][part],
                given[f"{schedule} {part}{j}"][i],
                rtol=0,
                atol=1e-5,
            )
    moved = average["layer1"]["kernel"] - given[f"{schedule} first kernel1"]
    assert np.abs(moved).max() > 0.02


class TestCreate:
    """The numbers of the papers' code."""

    def test_wmdd_has_the_defaults(self):
        assert create("wmdd") == student.Recipe()
        recipe = recipes.fields(create("wmdd"))
        wanted = {
            "batch_size": 100,
            "crop_scale": (0.08, 1.0),
            "flip": True,
            "mix": "cutmix",
            "epochs": 300,
            "learning_rate": 1e-3,
            "weight_decay": 0.01,
            "temperature": 20.0,
        }
        assert {field: recipe[field] for field in wanted} == wanted

    @pytest.mark.parametrize(
        ("ipc", "classes", "batch"),
        [(1, 10, 10), (10, 10, 50), (50, 10, 100), (10, 100, 100), (50, 1000, 200)]
        + [(3, 10, 10), (20, 10, 50), (100, 10, 100)],  # the last three: our reading
    )
    def test_rded_s_batches(self, ipc, classes, batch):
        assert create("rded", "resnet18", ipc, classes).views.batch_size == batch

    @pytest.mark.parametrize(
        ("model", "rate"),
        [
            ("resnet18", 1e-3),
            ("resnet50", 1e-3),
            ("convnet", 1e-3),
            ("efficientnet_b0", 2e-3),
            ("mobilenet_v2", 2.5e-3),
            ("vgg11", 5e-4),
            ("vit_tiny", 1e-4),
        ],
    )
    def test_rded_s_rates(self, model, rate):
        recipe = create("rded", model)
        assert (recipe.learning_rate, recipe.stretch) == (rate, 2.0)
        assert recipe.views.patch_shuffle == 2

    def test_rd3_s_rate_ends_at_zero_for_resnet18_only(self):
        recipe = create("rd3")
        assert (recipe.epochs, recipe.optimizer) == (400, "adam")
        assert (recipe.views.batch_size, recipe.stretch) == (50, 1.0)
        assert create("rd3", "mobilenet_v2").stretch == 2.0

    def test_dm_and_dc(self):
        dm, dc = create("dm"), create("dc")
        assert (dm.epochs, dc.epochs) == (1001, 301)
        assert dm.views.dsa == "color_crop_cutout_flip_scale_rotate"
        assert not dc.views.dsa
        for recipe in (dm, dc):
            assert (recipe.optimizer, recipe.learning_rate) == ("sgd", 0.01)
            assert (recipe.weight_decay, recipe.views.batch_size) == (5e-4, 256)
            assert (recipe.views.mix, recipe.views.flip) == ("none", False)

    def test_edc(self):
        recipe = create("edc")
        assert (recipe.loss, recipe.ema, recipe.stretch) == ("mse_ce", 0.99, 2.0)

    def test_edc_otm_is_edc_with_transport_for_whole_images(self):
        recipe, edc = create("edc_otm"), create("edc")
        assert (recipe.ot_weight, recipe.ot_temperature) == (0.1, 2.0)
        assert (recipe.ot_epsilon, recipe.ot_iterations) == (0.1, 50)
        assert (recipe.hard_share, recipe.views.patch_shuffle) == (0.025, 1)
        assert create("edc", ot_weight=0.1, patch_shuffle=1) == recipe
        assert edc.ot_weight == 0.0

    def test_records_of_recipes_without_what_came_later_are_as_they_were(self):
        """Their names are digests of these fields."""
        assert list(recipes.fields(create("edc"))) == [
            *("batch_size", "crop_scale", "flip", "mix", "patch_shuffle", "dsa"),
            *("mean", "std", "epochs", "optimizer", "learning_rate"),
            *("weight_decay", "schedule", "stretch", "loss", "temperature", "ema"),
        ]
        found = recipes.fields(create("edc_otm", ot_epsilon=0.2))
        assert (found["ot_weight"], found["ot_epsilon"]) == (0.1, 0.2)

    @pytest.mark.parametrize("name", recipes.names())
    def test_every_field_can_be_changed(self, name):
        """And None changes nothing."""
        assert create(name, **dict.fromkeys(recipes.FIELDS)) == create(name)
        changes = {"batch_size": 7, "crop_scale": (0.2, 0.9), "epochs": 3, "ema": 0.5}
        found = recipes.fields(create(name, **changes))
        assert {field: found[field] for field in changes} == changes

    @pytest.mark.parametrize("name", recipes.names())
    def test_fields_make_the_recipe_again(self, name):
        recipe = create(name, "vgg11", 50, 100, temperature=3.0)
        assert create("wmdd", **recipes.fields(recipe)) == recipe

    @pytest.mark.parametrize("name", recipes.names())
    def test_plain_has_no_augmentation_and_nothing_else_differs(self, name):
        recipe, bare = create(name), create(f"{name}+plain")
        assert bare == recipes.plain(recipe)
        views = bare.views
        assert (views.crop_scale, views.flip, views.mix) == ((1.0, 1.0), False, "none")
        assert (views.patch_shuffle, views.dsa) == (1, "")
        assert views.batch_size == recipe.views.batch_size
        assert bare._replace(views=recipe.views) == recipe

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"name": "wmd"}, "unknown recipe 'wmd'; known: wmdd, rded"),
            ({"batchsize": 3}, "no field 'batchsize'; known: batch_size"),
            ({"optimizer": "lars"}, "unknown optimizer 'lars' .* adamw, adam, sgd"),
            (
                {"schedule": "linear"},
                "unknown schedule 'linear' .* cosine_linear, step",
            ),
            ({"schedule": "step"}, "starts SGD anew"),
            ({"loss": "mse"}, "unknown loss 'mse' .* kl, mse_ce"),
            ({"mix": "mixup"}, "unknown mix 'mixup' .* cutmix, none"),
            ({"ot_on": "labels"}, "unknown ot_on 'labels' .* probabilities, logits"),
            ({"ot_gradient": "none"}, "unknown ot_gradient .* unrolled, envelope"),
            ({"ot_weight": -1.0}, "the ot_weight of a recipe is -1.0; .* least 0"),
            ({"ot_epsilon": 0.0}, "the ot_epsilon of a recipe is 0.0"),
            ({"ot_iterations": 0}, "the ot_iterations of a recipe is 0; .* least 1"),
            ({"hard_share": float("nan")}, "the hard_share of a recipe is nan"),
            ({"dsa": "colour"}, "unknown DSA operator 'colour'"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_unknown_words_are_refused(self, changes, message):
        with pytest.raises(ValueError, match=message):
            create(**{"name": "wmdd", **changes})
