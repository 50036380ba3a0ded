"""Progress of a loop: the bar, the history of the losses, saves, and the NaN check."""

import json
import sys
import time

import jax
import numpy as np
import tqdm

from ddjax import checkpoint

_ROWS = 1000  # of a history, whatever the length of the run
_LOOK_EVERY_S = 0.5  # how often to wait for the device, to look at its numbers
_FORMAT = (
    "{desc} {percentage:3.0f}% {n_fmt}/{total_fmt} "
    "[{elapsed}<{remaining}, {pace}{postfix}]"
)


class _Bar(tqdm.tqdm):
    @property
    def format_dict(self):
        shown = super().format_dict
        elapsed, made = shown["elapsed"], shown["n"] - shown["initial"]
        rate = shown["rate"] or (made / elapsed if elapsed else 0)
        pace = f"{1 / rate:.2g} s/{shown['unit']}" if rate else "? s/step"
        pace = f"{rate:.0f} a second" if rate and rate > 100 else pace
        return {**shown, "pace": pace}


def bar(title: str, total: int, done: int = 0, unit: str = "step"):
    """A progress bar with seconds per step (or steps a second) and the time left."""
    return _Bar(
        total=total,
        initial=done,
        desc=title,
        unit=unit,
        bar_format=_FORMAT,
        dynamic_ncols=True,
        # A line now and then where the output is a file.
        mininterval=0.1 if sys.stderr.isatty() else 20,
    )


def is_finite(tree) -> bool:
    """Whether all numbers of a tree are."""
    return all(np.isfinite(x).all() for x in jax.tree.leaves(jax.device_get(tree)))


class Monitor:
    """The observer of `loop.run` in a program.

    Twice a second it reads the losses made since the last look, and stops at the first
    that is not finite; then it may save the state, which is therefore always good.
    """

    def __init__(self, stage, shown, total: int, done: int, save_every_s: float):
        """Watches one loop.

        Args:
          stage: `checkpoint.Stage`, which keeps the states and the history.
          shown: a bar that this loop moves forward; see `bar`.
          total: steps of the loop.
          done: steps already made; their history is taken back from the stage.
          save_every_s: seconds between two saves.
        """
        self.history = []
        self._stage, self._bar, self._save_every_s = stage, shown, save_every_s
        self._stride, self._total, self._done = max(1, total // _ROWS), total, done
        self._pending, self._kept = [], done
        self._looked = self._saved = time.monotonic()
        path = stage.folder / "history.json"
        if done and path.exists():
            rows = json.loads(path.read_text())
            self.history = [row for row in rows if row["step"] <= done]

    def __call__(self, done: int, state, metrics) -> None:
        self._pending.append(metrics)
        self._bar.update(done - self._done)
        self._done = done
        now = time.monotonic()
        if now - self._looked > _LOOK_EVERY_S or done == self._total:
            self.look()
        if now - self._saved > self._save_every_s:
            self.look()
            # A step of finite loss can still spoil the state: the next loss tells.
            if is_finite(state):
                self.write_history()  # first: rows beyond the state are dropped
                self._stage.save(done, state)
                self._kept = done
            self._saved = now

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
        first = self._done - len(terms["loss"]) + 1
        for offset, values in enumerate(zip(*terms.values())):
            step = first + offset
            if not np.all(np.isfinite(values)):
                shown = ", ".join(f"{k} {v:.3g}" for k, v in zip(terms, values))
                raise ValueError(
                    f"the loss is not finite at step {step} ({shown}). {self._advice()}"
                )
            if step % self._stride == 0 or step == 1:
                row = {name: round(float(v), 6) for name, v in zip(terms, values)}
                self.history.append({"step": step, **row})
        latest = {name: f"{values[-1]:.4g}" for name, values in terms.items()}
        self._bar.set_postfix(latest, refresh=False)

    def finish(self, result) -> None:
        """Looks a last time, also at what came out, and writes the history.

        Raises:
          ValueError: the last loss or a number of `result` is not finite.
        """
        self.look()
        if not is_finite(result):
            raise ValueError(
                f"the result of step {self._done} is not finite. {self._advice()}"
            )
        self.write_history()

    def _advice(self) -> str:
        kept = "No state was saved yet"
        if self._kept:
            kept = f"The good state of step {self._kept} is kept"
        return (
            f"{kept} in {self._stage.folder} (see save_every_s); lower the learning "
            "rate, or look at the data."
        )

    def write_history(self) -> None:
        """Writes the losses to history.json in the stage's folder."""
        text = json.dumps(self.history).encode()
        path = self._stage.folder / "history.json"
        checkpoint.write_atomically(path, lambda file: file.write(text))
