"""What hosts tell each other: plain values by name, kept by JAX's coordination service.

No device is needed, and none is waited for.
"""

import json

import jax

__all__ = ["post", "seen", "wait"]

_WAIT_MS = 5000


def post(name: str, value) -> None:
    """Writes a value that JSON can hold; what was there before is gone."""
    _client().key_value_set(_key(name), json.dumps(value), allow_overwrite=True)


def seen(name: str):
    """What is there now, or None."""
    try:
        return json.loads(_client().key_value_try_get(_key(name)))
    except jax.errors.JaxRuntimeError as error:
        if "NOT_FOUND" in str(error):
            return None
        raise


def wait(name: str):
    """What is there, as soon as it is; a vain wait is ended by `watch`."""
    while True:
        try:
            return json.loads(_client().blocking_key_value_get(_key(name), _WAIT_MS))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


def _key(name):
    return f"ddjax/{name}"


def _client():
    from jax._src import distributed  # no public door to it, as of jax 0.12

    return distributed.global_state.client
