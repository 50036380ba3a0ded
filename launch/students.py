"""The students of a config: which networks, and trained how."""

import jax
import jax.numpy as jnp

from ddjax import models, recipes, relabel, student
from launch import inputs


def check(config, info) -> None:
    """ValueError for a network or a recipe that cannot be made."""
    for model in config.evaluate.models:
        network(config, model, info)
        for name in config.evaluate.recipes:
            views = recipe(config, name, model, info.num_classes, info).views
            _try(views, info.shape)


def _try(views, shape):
    """ValueError if images of this shape cannot be seen so."""
    images = jax.ShapeDtypeStruct((2, *shape), jnp.uint8)
    key = jax.eval_shape(lambda: jax.random.key(0))
    jax.eval_shape(lambda key, images: relabel.view(views, key, 0, images), key, images)


def network(config, model: str, info) -> models.Network:
    """A student's network.

    Args:
      config: of the experiment.
      model: a name of `config.student.models`.
      info: of the data.

    Raises:
      ValueError: there is no such name, or it does not suit the images.
    """
    return inputs.build_network(_section(config, model), info)


def recipe(
    config, name: str, model: str, num_images: int, info, epochs: int | None = None
) -> student.Recipe:
    """How a student is trained: the recipe with the config's changes.

    Args:
      config: of the experiment.
      name: of a recipe, or with "+plain" behind it.
      model: a name of `config.student.models`.
      num_images: N of its set.
      info: of the data.
      epochs: instead of the recipe's.

    Raises:
      ValueError: there is no such recipe, or a changed field is none of its own.
    """
    section = config.recipes.get(name.partition("+")[0], {})
    changes = {k: tuple(v) if isinstance(v, list) else v for k, v in section.items()}
    if epochs is not None:
        changes["epochs"] = epochs
    made = recipes.create(
        name,
        model=_section(config, model).name,
        ipc=num_images // info.num_classes,
        num_classes=info.num_classes,
        **changes,
    )
    if not made.views.dsa:
        return made
    views = made.views._replace(mean=tuple(info.mean), std=tuple(info.std))
    return made._replace(views=views)


def _section(config, model):
    if model not in config.student.models:
        raise ValueError(
            f"unknown evaluate.models {model!r}; known: "
            f"{', '.join(config.student.models)}: names of config.student.models."
        )
    return config.student.models[model]
