"""Progress of a loop: the bar, the history of the losses, saves, and the NaN check."""

import sys
import threading
import time

import jax
import numpy as np
import tqdm
from absl import logging

from ddjax import matching, parallel
from launch import stopping
from launch.history import History
from launch.profile import Trace

_ROWS = 1000  # of a history, whatever the length of the run
_LOOK_EVERY_S = 0.5  # how often to wait for the device, to look at its numbers
_BAR = threading.Lock()  # loops in other threads move the same one forward
_SAY_EVERY_S = 600  # how often the log tells of a loop that has no bar
_FORMAT = (
    "{desc} {percentage:3.0f}% {n_fmt}/{total_fmt} "
    "[{elapsed}<{remaining}, {pace}{postfix}]"
)


class _Bar(tqdm.tqdm):
    def skip(self, steps: int) -> None:
        """Moves on by steps of an earlier run, which took no time of this one."""
        self.n += steps
        self.initial += steps
        self.last_print_n += steps

    @property
    def format_dict(self):
        shown = super().format_dict
        elapsed, made = shown["elapsed"], shown["n"] - shown["initial"]
        rate = shown["rate"] or (made / elapsed if elapsed else 0)
        pace = f"{1 / rate:.2g} s/{shown['unit']}" if rate else "? s/step"
        pace = f"{rate:.0f} a second" if rate and rate > 100 else pace
        return {**shown, "pace": pace}


class _Lines:
    """A bar's stand-in where nobody watches: a line in the log every ten minutes."""

    def __init__(self, title, total, done, unit):
        self.n, self._initial, self._total = done, done, total
        self._title, self._unit, self._terms = title, unit, {}
        self._began = self._said = time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def update(self, steps: int = 1) -> None:
        self.n += steps
        if time.monotonic() - self._said > _SAY_EVERY_S:
            self._said = time.monotonic()
            logging.info("%s", str(self))  # as it is now

    def skip(self, steps: int) -> None:
        self.n += steps
        self._initial += steps

    def set_description(self, title) -> None:
        self._title = title

    def set_postfix(self, terms, refresh=False) -> None:
        del refresh
        self._terms = terms

    def close(self) -> None:
        pass

    def __str__(self):
        made, left = self.n - self._initial, self._total - self.n
        terms = "".join(f", {name} {value}" for name, value in self._terms.items())
        text = f"{self._title}: {self._unit} {self.n:,} of {self._total:,}{terms}"
        if made <= 0:
            return f"{text}."
        seconds = (time.monotonic() - self._began) / made * left
        return f"{text}; {tqdm.tqdm.format_interval(seconds)} left."


def bar(title: str, total: int, done: int = 0, unit: str = "step"):
    """A progress bar with seconds per step (or steps a second) and the time left.

    Where the output is no terminal, it is silent but for a line every ten minutes.
    """
    if not sys.stderr.isatty():
        return _Lines(title, total, done, unit)
    return _Bar(
        total=total,
        initial=done,
        desc=title,
        unit=unit,
        bar_format=_FORMAT,
        dynamic_ncols=True,
    )


def is_finite(tree) -> bool:
    """Whether all numbers of a tree are."""
    return all(np.isfinite(x).all() for x in jax.tree.leaves(jax.device_get(tree)))


class Monitor:
    """The observer of `loop.run` in a program, and a context for the loop.

    Twice a second it reads the losses made since the last look, and stops at the first
    that is not finite; then it may save the state, which is therefore always good. What
    is only watched (names with a slash) is kept beside them, and warned about by
    `matching.rails`.
    A stop that was asked for (see `stopping`) it makes after a save. Once the context is
    left, by an error too, nothing is written in the background any more.
    """

    def __init__(
        self,
        stage,
        shown,
        total: int,
        done: int,
        save_every_s: float,
        whose: str = "",
    ):
        """Watches one loop.

        Args:
          stage: `checkpoint.Stage`, which keeps the states and the history.
          shown: a bar that this loop moves forward; see `bar`.
          total: steps of the loop.
          done: steps already made; their history is taken back from the stage.
          save_every_s: seconds between two saves.
          whose: name of the states, where each host has its own; "" where all hosts
            have the same one, which the primary saves.
        """
        self._stage, self._bar, self._save_every_s = stage, shown, save_every_s
        self._stride, self._total, self._done = max(1, total // _ROWS), total, done
        self._pending, self._kept, self._whose = [], done, whose
        self._warned = set()  # names of watched numbers
        self._looked = self._saved = time.monotonic()
        self._history = History(stage.folder, done)
        self._trace = Trace(stage.folder, total, done)
        self._together = not whose and parallel.host_count() > 1
        # The primary needs another host's steps until it has saved them.
        self._needed = self._together and not parallel.is_primary()
        self._awaited = stopping.awaited(by_itself=not self._needed)

    def __enter__(self):
        self._awaited.__enter__()
        return self

    def __exit__(self, *error):
        try:
            self._stage.close()
        except ValueError as failed:  # the result, or the error, counts more
            logging.warning("%s", failed)
        return self._awaited.__exit__(*error)

    @property
    def history(self) -> list[dict]:
        """Rows with "step" and the losses, a thousand or so of the whole loop."""
        return self._history.rows

    def __call__(self, done: int, state, metrics) -> None:
        self._pending.append(metrics)
        with _BAR:
            self._bar.update(done - self._done)
        self._done = done
        now = time.monotonic()
        if now - self._looked > _LOOK_EVERY_S or done == self._total:
            self.look()
        if stopping.requested() is not None:
            self._stop(state)
        if now - self._saved > self._save_every_s:
            self._save(state)
            self._saved = now
        self._trace(done, metrics)

    def _save(self, state) -> None:
        self.look()
        # A step of finite loss can still spoil the state: the next loss tells.
        if is_finite(state):
            self._history.sync()  # first: a state without its rows leaves a gap
            self._stage.save(self._done, state, self._whose)
            self._kept = self._done

    def _stop(self, state) -> None:
        if self._needed:
            return
        if self._done > self._kept:
            self._save(state)
        self._stage.close()
        if self._together:
            parallel.release()
        what = self._stage.folder.parent.name
        left = f"{what} goes on from step {self._kept} with the same command."
        raise stopping.Stopped(stopping.requested(), left)

    def look(self) -> None:
        """Reads what was reported since the last look.

        Raises:
          ValueError: a loss is not finite; says at which step, and what is left.
        """
        self._looked = time.monotonic()
        if not self._pending:
            return
        reports = jax.device_get(self._pending)
        self._pending = []
        # [..., steps]: chunks or students of the stack are averaged.
        terms = {
            name: np.concatenate(
                [
                    np.reshape(r[name], (-1, np.shape(r[name])[-1])).mean(0)
                    for r in reports
                ]
            )
            for name in reports[0]
        }
        first, rows = self._done - len(terms["loss"]) + 1, []
        for offset, values in enumerate(zip(*terms.values())):
            step = first + offset
            if not np.all(np.isfinite(values)):
                self._history.append(rows)
                shown = ", ".join(f"{k} {v:.3g}" for k, v in zip(terms, values))
                raise ValueError(
                    f"the loss is not finite at step {step} ({shown}). {self._advice()}"
                )
            if step % self._stride == 0 or step == 1:
                row = {name: round(float(v), 6) for name, v in zip(terms, values)}
                rows.append({"step": step, **row})
        self._history.append(rows)
        latest = {name: float(values[-1]) for name, values in terms.items()}
        self._warn(latest)
        shown = {name: f"{x:.4g}" for name, x in latest.items() if "/" not in name}
        with _BAR:
            self._bar.set_postfix(shown, refresh=False)

    def _warn(self, latest: dict[str, float]) -> None:
        """Says which watched numbers have crossed their rails, once for each."""
        for name, sentence in matching.rails.warnings(latest).items():
            if name not in self._warned:
                self._warned.add(name)
                logging.warning("step %d, %s: %s", self._done, name, sentence)

    def finish(self, result) -> None:
        """Looks a last time, also at what came out.

        Raises:
          ValueError: the last loss or a number of `result` is not finite.
        """
        self.look()
        if not is_finite(result):
            raise ValueError(
                f"the result of step {self._done} is not finite. {self._advice()}"
            )
        self._history.sync()
        self._history.close()

    def _advice(self) -> str:
        kept = "No state was saved yet"
        if self._kept:
            kept = f"The good state of step {self._kept} is kept"
        return (
            f"{kept} in {self._stage.folder} (see save_every_s); lower the learning "
            "rate, or look at the data."
        )
