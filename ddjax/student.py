"""Student: train a fresh network on a distilled set, to see what it is worth."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax import loop, losses, optimizers, parallel, training
from ddjax.data import batches, dsa
from ddjax.models import Network
from ddjax.relabel import MIXES, Views, look, view
from ddjax.types import DistilledSet

__all__ = [
    "LABELS",
    "Recipe",
    "check",
    "initial_state",
    "make_step",
    "num_steps",
    "train",
    "variables",
]

# The class; the teacher's logits on the image as it is; those on every view, stored;
# those on every view, by the teacher in the loop.
LABELS = ("hard", "single", "stored", "online")
_KNOWN = {
    "optimizer": ("adamw", "adam", "sgd"),
    "schedule": ("cosine", "cosine_linear", "step"),
    "loss": ("kl", "mse_ce"),
    "ot_on": losses.TRANSPORTED,
    "ot_gradient": ("unrolled", "envelope"),
}
_LEAST = {"hard_share": 0.0, "ot_weight": 0.0, "ot_temperature": 1e-6}
_LEAST |= {"ot_epsilon": 1e-6, "ot_iterations": 1}
_MOMENTUM = 0.9  # of SGD


class Recipe(NamedTuple):
    """How students are trained. The defaults are WMDD's (`train/` of its code)."""

    views: Views = Views()
    epochs: int = 300
    optimizer: str = "adamw"  # "adamw", "adam" or "sgd", with a momentum of 0.9
    learning_rate: float = 1e-3  # at the start
    weight_decay: float = 0.01  # of AdamW kernels only, of others all, coupled
    # "cosine", by epoch; "cosine_linear", which ends in a line to 0; "step": a tenth, and
    # no momentum, when more than half is done.
    schedule: str = "cosine"
    stretch: float = 1.0  # of the cosine: 1 ends near 0, 2 at half of the start
    loss: str = "kl"  # of soft labels; or "mse_ce", squares and a little cross entropy
    temperature: float = 20.0  # of soft labels
    ema: float = 0.0  # decay of the average of parameters that is scored; 0 for none
    hard_share: float = 0.025  # EDC's, of the cross entropy beside the squares
    # OTM, beside the loss of soft labels: see `losses.logit_transport`.
    ot_weight: float = 0.0  # 0 for none
    ot_temperature: float = 2.0
    ot_epsilon: float = 0.1
    ot_iterations: int = 50
    ot_on: str = "probabilities"  # or "logits"
    ot_gradient: str = "unrolled"  # or "envelope"


def check(recipe: Recipe) -> None:
    """ValueError for a word that no recipe knows, or a number that is out of range."""
    chosen = {**recipe._asdict(), "mix": recipe.views.mix}
    for field, known in {**_KNOWN, "mix": MIXES}.items():
        if chosen[field] not in known:
            raise ValueError(
                f"unknown {field} {chosen[field]!r} of a recipe; known: "
                f"{', '.join(known)}."
            )
    if recipe.schedule == "step" and recipe.optimizer != "sgd":
        raise ValueError(
            f"the schedule 'step' starts SGD anew when the rate drops; got the "
            f"optimizer {recipe.optimizer!r}. Choose 'sgd', or the schedule 'cosine'."
        )
    for field, least in _LEAST.items():
        if not least <= chosen[field] < float("inf"):
            raise ValueError(
                f"the {field} of a recipe is {chosen[field]}; expected a number of at "
                f"least {least:g}."
            )
    if recipe.views.dsa:
        dsa.parse(recipe.views.dsa)


def num_steps(recipe: Recipe, num_images: int) -> int:
    """Length of the training."""
    return recipe.epochs * batches.steps_per_epoch(num_images, recipe.views.batch_size)


@functools.cache
def make_step(
    network: Network,
    recipe: Recipe,
    num_images: int,
    labels: str,
    teacher_fn: Callable | None = None,
):
    """One training step of a student, for `loop.run`.

    Hard labels: cross entropy, of the image's class and of the pasted one's by their
    shares of the area. Soft labels: the recipe's distance from the teacher's logits,
    on the same view or ("single") on the image and on the pasted one as they are, mixed
    by their shares. In all, images count by their weights (the barycenter's masses).

    Args:
      network: the student.
      recipe: numbers only.
      num_images: N of the distilled set.
      labels: one of `LABELS`.
      teacher_fn: the teacher's `apply` where labels are "online".

    Returns:
      `step(state, index, (key_views, images, labels, weights, soft), ())`
      `-> (state, {"loss"})` with images [N, H, W, ch] uint8, labels [N], weights [N],
      and soft () for "hard", logits [N, C] for "single" and [steps, B, C] for
      "stored", and the teacher's variables for "online". Students side by side have
      all of these in common: a batch is drawn once for all.

    Raises:
      ValueError: unknown labels, or an unknown word in the recipe.
    """
    if labels not in LABELS:
        raise ValueError(f"unknown labels {labels!r}; known: {', '.join(LABELS)}.")
    learn = _make_learner(network, recipe, num_images, labels, teacher_fn)

    def step(state, index, shared, private):
        key_views, images, *labelled = shared
        seen = view(recipe.views, key_views, index, images)
        return learn(state, index, labelled, (private, seen))

    return step


@functools.cache
def _make_learner(network, recipe, num_images, labels, teacher_fn):
    """The step without its view, which it is fed."""
    optimizer = _optimizer(recipe, num_images)

    def learn(state, index, shared, fed):
        (hard, weights, soft), (_, seen) = shared, fed
        weight = weights[seen.rows]
        if labels != "hard":
            targets = _targets(recipe, labels, teacher_fn, soft, index, seen)

        def loss(variables):
            logits, batch_stats = network.apply_train(variables, seen.images)
            if labels == "hard":
                value = _hard_loss(logits, hard, weight, seen)
            else:
                value = _soft_loss(recipe, logits, targets, hard, weight, seen)
            return value, batch_stats

        state, value = training.update(state, loss, optimizer)
        return state, {"loss": value}

    return learn


def _targets(recipe, labels, teacher_fn, soft, index, seen):
    """[B, C], the teacher's logits on what is seen."""
    if labels == "stored":
        return soft[index]
    if labels == "online":
        # The same rounding as the stored labels: replay and store agree.
        return teacher_fn(soft, seen.images)[0].astype(jnp.float16)
    own = soft[seen.rows].astype(jnp.float32)
    if recipe.views.mix == "none":
        return own
    pasted = own[seen.partner]
    if recipe.loss == "mse_ce":
        return seen.share * own + (1 - seen.share) * pasted
    return losses.mixed_logits(own, pasted, seen.share, recipe.temperature)


def _hard_loss(logits, hard, weight, seen):
    own = losses.cross_entropy(logits, hard[seen.rows], weight)
    pasted = hard[seen.rows[seen.partner]]
    other = losses.cross_entropy(logits, pasted, weight)
    return seen.share * own + (1 - seen.share) * other


def _soft_loss(recipe, logits, targets, hard, weight, seen):
    if recipe.loss == "kl":
        value = losses.soft_label_divergence(
            logits, targets, temperature=recipe.temperature, weights=weight
        )
    else:
        # As in EDC's code, the class is the image's own even where another is pasted.
        own = losses.cross_entropy(logits, hard[seen.rows], weight)
        squares = losses.soft_label_distance(logits, targets, weight)
        value = squares + recipe.hard_share * own
    if not recipe.ot_weight:
        return value
    return value + recipe.ot_weight * losses.logit_transport(
        logits,
        targets,
        temperature=recipe.ot_temperature,
        epsilon=recipe.ot_epsilon,
        iterations=recipe.ot_iterations,
        gradient=recipe.ot_gradient,
        on=recipe.ot_on,
        weights=weight,
    )


def train(
    keys: jax.Array,
    network: Network,
    recipe: Recipe,
    distilled: DistilledSet,
    key_views: jax.Array,
    *,
    labels: str,
    soft=(),
    teacher_fn: Callable | None = None,
    state: training.TrainState | None = None,
    done: int = 0,
    observe: Callable | None = None,
) -> list:
    """Trains a student for each key, side by side under `vmap`.

    (On a CPU call it with one key at a time: see `parallel.groups`.)

    Args:
      keys: [s], one for each student; they draw the initial parameters.
      network: see `make_step`.
      recipe: see `make_step`.
      distilled: DistilledSet whose images are uint8, as stored.
      key_views: the views' key; the one the soft labels were made with.
      labels: see `make_step`.
      soft: see `make_step`.
      teacher_fn: see `make_step`.
      state: as `observe` saw it after `done` steps; None to begin.
      done: steps already made.
      observe: see `loop.run`.

    Returns:
      The students' variables after the last step; see `variables`.
    """
    count, many = len(distilled.labels), len(keys) > 1
    if state is None:
        state = initial_state(keys, network, recipe, count)
    if many:
        spread = parallel.stacked
    else:
        spread = parallel.sharded(min(recipe.views.batch_size, count))
    kind, shared = (network, recipe, count, labels, teacher_fn), (*distilled, soft)
    if spread is parallel.single and parallel.is_cpu():
        step, (images, *shared) = _make_learner(*kind), jax.device_put(shared)

        def feed(index):
            return look(recipe.views, key_views, index, images)

    else:
        step, shared, feed = make_step(*kind), (key_views, *shared), None
    state = loop.run(
        step,
        state,
        shared,
        (),
        range(done, num_steps(recipe, count)),
        spread=spread,
        feed=feed,
        observe=observe,
    )
    trained = variables(state)
    if not many:
        return [trained]
    trained = jax.device_get(trained)  # from all devices
    return [jax.tree.map(lambda x, i=i: x[i], trained) for i in range(len(keys))]


def variables(state: training.TrainState) -> dict:
    """What is scored: the averaged parameters, where the recipe has an average.

    The statistics of BatchNorm are those of the last step, as in EDC's code.
    """
    found = training.variables(state)
    if isinstance(state.opt_state, optimizers.Averaged):
        found["params"] = state.opt_state.params
    return found


def initial_state(keys, network: Network, recipe: Recipe, num_images: int):
    """TrainState of one student, or, for several keys, of a stack of them."""
    start = _initialiser(network, recipe, num_images)
    return start(keys[0]) if len(keys) == 1 else jax.vmap(start)(keys)


@functools.cache
def _initialiser(network: Network, recipe: Recipe, num_images: int):
    optimizer = _optimizer(recipe, num_images)
    return jax.jit(lambda key: training.init(key, network, optimizer))


def _optimizer(recipe: Recipe, num_images: int):
    check(recipe)
    optimizer = _plain_optimizer(recipe, num_images)
    return optimizers.averaged(optimizer, recipe.ema) if recipe.ema else optimizer


def _plain_optimizer(recipe, num_images):
    per_epoch = batches.steps_per_epoch(num_images, recipe.views.batch_size)
    rate, decay = recipe.learning_rate, recipe.weight_decay
    cosine = {
        "cosine": optimizers.cosine_by_epoch,
        "cosine_linear": optimizers.cosine_then_linear,
        "step": optimizers.cosine_by_epoch,
    }[recipe.schedule]
    schedule, restart = cosine(rate, recipe.epochs, per_epoch, recipe.stretch), None
    if recipe.schedule == "step":
        # DC's code counts epochs from 0 to E and drops after that of number E/2 + 1.
        restart = ((recipe.epochs - 1) // 2 + 2) * per_epoch
        schedule = optimizers.drop_once(rate, restart)
    if recipe.optimizer == "sgd":
        return optimizers.sgd(
            schedule, momentum=_MOMENTUM, weight_decay=decay, restart=restart
        )
    if recipe.optimizer == "adam":
        return optimizers.adam(schedule, weight_decay=decay)
    return optimizers.adamw(schedule, weight_decay=decay)
