"""Seconds and memory of a block, against clocks and sizes that are known."""

import concurrent.futures
import pathlib
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from launch import meter

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="peaks are reset on Linux")


def slowly_traced(seconds):
    """A program whose tracing takes so long, each time it is made."""

    @jax.jit
    def program(x):
        time.sleep(seconds)
        return x + 1

    return program


def test_compiling_is_counted_apart():
    x = jnp.ones(3)
    began = time.monotonic()
    with meter.watch() as cost:
        slowly_traced(0.3)(x)
        time.sleep(0.1)
    whole = time.monotonic() - began
    assert cost.compile_seconds >= 0.3
    assert 0.1 <= cost.seconds <= whole - 0.3


def test_a_program_that_is_there_already_compiles_nothing():
    program, x = slowly_traced(0.05), jnp.ones(3)
    program(x).block_until_ready()
    with meter.watch() as cost:
        program(x).block_until_ready()
    assert cost.compile_seconds == 0
    assert cost.seconds > 0


def test_a_program_traced_within_another_is_counted_once():
    x, inner = jnp.ones(3), slowly_traced(0.2)
    outer = jax.jit(lambda x: inner(x) * 2)
    began = time.monotonic()
    with meter.watch() as cost:
        outer(x)
    assert 0.2 <= cost.compile_seconds <= time.monotonic() - began


def test_spans_that_overlap_are_counted_once():
    spans = [(5.0, 6.0), (0.0, 2.0), (1.0, 3.0), (1.5, 1.6)]
    assert meter._covered(spans) == 4.0


def test_listeners_do_not_pile_up():
    x = jnp.ones(3)
    for _ in range(5):
        with meter.watch():
            pass
    with meter.watch() as cost:
        slowly_traced(0.05)(x)
    assert 3 <= len(cost._spans) <= 6  # traced, lowered, compiled; each said once


def test_a_stage_inside_another_counts_for_itself():
    x = jnp.ones(3)
    began = time.monotonic()
    with meter.watch() as outer:
        time.sleep(0.05)
        with meter.watch() as inner:
            time.sleep(0.2)
            slowly_traced(0.1)(x)
    whole = time.monotonic() - began
    assert inner.seconds >= 0.2 and inner.compile_seconds >= 0.1
    assert 0.05 <= outer.seconds <= whole - 0.3
    assert outer.compile_seconds == 0


def test_one_beside_another_has_its_own_seconds():
    """In threads that overlap, neither inside the other."""
    both = threading.Barrier(2)

    def measured(_):
        with meter.watch(beside=True) as cost:
            both.wait(timeout=60)
            time.sleep(0.2)
        return cost.seconds

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert min(pool.map(measured, range(2))) >= 0.2


@LINUX
def test_peak_is_that_of_the_block():
    size = 200_000_000
    big = np.ones(size, np.uint8)
    del big  # a peak before the block, which is not its own
    with meter.watch() as small:
        pass
    with meter.watch() as outer:
        big = np.ones(size, np.uint8)
        with meter.watch() as inner:  # its reset does not take the outer one's peak
            del big
    assert outer.peak_bytes - small.peak_bytes > 0.9 * size
    assert small.peak_bytes < inner.peak_bytes <= outer.peak_bytes


def test_without_linux_the_peak_is_the_processs(monkeypatch):
    missing = pathlib.Path("/nowhere/at/all")
    monkeypatch.setattr(meter, "_STATUS", missing)
    monkeypatch.setattr(meter, "_CLEAR", missing)
    with meter.watch() as cost:
        pass
    assert 10e6 < cost.peak_bytes < 100e9


def test_an_error_ends_the_measuring():
    with pytest.raises(RuntimeError), meter.watch():
        raise RuntimeError
    assert meter._WATCHED == []


def test_a_title_is_said_with_the_seconds(caplog):
    with caplog.at_level("INFO"), meter.watch("teacher") as cost:
        time.sleep(0.01)
    cost.seconds, cost.compile_seconds, cost.peak_bytes = 75.2, 3.0, 512_000_000
    assert str(cost) == "75.2 s, and 3.0 s to compile; at most 512 MB"
    assert "teacher: 0.0 s, and 0.0 s to compile; at most" in caplog.text


def test_record_holds_the_three_numbers():
    with meter.watch() as cost:
        pass
    assert set(cost.record()) == {"seconds", "compile_seconds", "peak_bytes"}
