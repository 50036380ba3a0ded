"""What the first images of a set look like while they are made: frames.npz."""

import functools

import jax
import numpy as np

from ddjax import checkpoint, parallel, recover

_FRAMES = 12  # the start and the end among them
_IMAGES = 100  # of a frame, at most
_PIXELS = 2**19  # of a frame, at most: ten images of ImageNet


class Frames:
    """Keeps some states of the first chunk, as images that can be looked at.

    Each frame is a part of the stage, written before the state of the same step is
    saved: a run that goes on has all frames up to there, and those beyond it, which
    were made by the same steps, are not made again.
    """

    def __init__(self, stage, job):
        """Finds the frames that an interrupted run has kept.

        Args:
          stage: `checkpoint.Stage` of the set.
          job: jobs.Job.
        """
        self._stage, self._job, self._target = stage, job, None
        num_steps = job.num_steps
        count = min(_FRAMES, num_steps + 1)
        self._wanted = np.rint(np.linspace(0, num_steps, count)).astype(int)
        self._kept = {
            number: part
            for number in range(count)
            if (part := stage.load_part(f"frame{number}")) is not None
        }

    def begin(self, wave, goals: list) -> None:
        """Keeps the start, before any step, where the first chunk is in the wave.

        Args:
          wave: recover.Wave.
          goals: Targets of each of its chunks.
        """
        first = wave.rows[0, 0] == 0
        self._target = goals[0] if first else None
        if first and not wave.done and 0 not in self._kept:
            job, key = self._job, jax.random.fold_in(self._job.key, 0)
            alone = jax.tree.map(lambda x: np.asarray(x)[None], goals[0])
            self.look(
                0, recover.initial_state(job.method, job.context, alone, key[None])
            )

    def look(self, done: int, state) -> None:
        """Keeps a state of the first chunk, where it is the first at a wanted step.

        Args:
          done: steps made of its wave; on an accelerator the end of a block of them.
          state: of all chunks of the wave.
        """
        number = int(np.searchsorted(self._wanted, done, side="right")) - 1
        if self._target is None or number in self._kept:
            return
        chosen = choose(self._target.labels, self._target.images.shape[1:3])
        job = self._job
        images = _finalize(job.method)(state, job.context, self._target)
        images = np.asarray(images)[chosen]
        if not np.isfinite(images).all():  # the loss will say so
            return
        pixels = np.rint(images * 255).astype(np.uint8)
        rows = job.cuts[0][chosen]
        self._kept[number] = {"steps": np.array(done), "images": pixels, "rows": rows}
        self._stage.save_part(f"frame{number}", self._kept[number])

    def write(self) -> None:
        """Writes frames.npz: steps [F], images [F, n, H, W, ch] uint8, rows [n]."""
        if not (self._kept and parallel.is_primary()):  # which has the first chunk
            return
        frames = [self._kept[number] for number in sorted(self._kept)]
        arrays = {k: np.stack([f[k] for f in frames]) for k in ("steps", "images")}
        arrays["rows"] = frames[0]["rows"]
        path = self._stage.folder / "frames.npz"
        checkpoint.write_atomically(path, lambda file: np.savez(file, **arrays))


def choose(labels, size: tuple[int, int]) -> np.ndarray:
    """Positions of the images that a frame shows: as many of every class.

    Args:
      labels: [N] int, ascending.
      size: height and width of an image, pixels.
    """
    labels = np.asarray(labels)
    most = max(1, min(_IMAGES, _PIXELS // (size[0] * size[1])))
    each = max(1, most // len(np.unique(labels)))
    rank = np.arange(len(labels)) - np.searchsorted(labels, labels)
    return np.flatnonzero(rank < each)[:most]


@functools.lru_cache(maxsize=8)
def _finalize(method):
    """The images of the first chunk alone: a program reads nothing else of a state."""

    def images(state, context, target):
        first = jax.tree.map(lambda x: x[0], state)
        return method.finalize(first, context, target).images

    return jax.jit(images)
