"""What training a teacher and training a student have in common."""

from typing import Any, NamedTuple

import jax
import optax

__all__ = ["TrainState", "init", "update", "update_terms", "variables"]


class TrainState(NamedTuple):
    """A network in training."""

    params: Any
    batch_stats: Any
    opt_state: Any


def init(key: jax.Array, network, optimizer) -> TrainState:
    """Fresh parameters and optimiser state; `key` is consumed."""
    fresh = network.init(key)
    return TrainState(
        fresh["params"], fresh["batch_stats"], optimizer.init(fresh["params"])
    )


def variables(state: TrainState) -> dict:
    """What `network.apply` takes."""
    return {"params": state.params, "batch_stats": state.batch_stats}


def update(state: TrainState, loss, optimizer) -> tuple[TrainState, jax.Array]:
    """One optimiser step on `loss(variables) -> (scalar, batch_stats)`."""

    def of_params(params):
        return loss({"params": params, "batch_stats": state.batch_stats})

    (value, batch_stats), gradient = jax.value_and_grad(of_params, has_aux=True)(
        state.params
    )
    return _moved(state, gradient, batch_stats, optimizer), value


def update_terms(state: TrainState, loss, optimizer) -> tuple[TrainState, dict]:
    """The same on the sum of `loss(variables) -> (dict of scalars, batch_stats)`.

    Returns:
      The state, and {"loss"} with the terms.
    """

    def of_params(params):
        terms, batch_stats = loss({"params": params, "batch_stats": state.batch_stats})
        return sum(terms.values()), (terms, batch_stats)

    gradient_of = jax.value_and_grad(of_params, has_aux=True)
    (value, (terms, batch_stats)), gradient = gradient_of(state.params)
    state = _moved(state, gradient, batch_stats, optimizer)
    return state, {"loss": value, **terms}


def _moved(state, gradient, batch_stats, optimizer) -> TrainState:
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, batch_stats, opt_state)
