"""The page of a run, from what its work folder holds: <workdir>/report/index.html."""

import datetime
import json
import pathlib
import pprint

import numpy as np

from ddjax import checkpoint, matching, page
from ddjax.types import DistilledSet

_REAL = 1500  # points of the map, at most
_FEATURES_MB = 2000  # of a file of features; a larger one is not read for a map
_OTHERS = 0.3  # of the room of the set that the config is about
_FILMS = 3  # arms whose frames and neighbours are shown


def write(workdir, run: dict) -> pathlib.Path:
    """Writes the page; what the folder lacks is left out.

    Args:
      workdir: of the run.
      run: of records.json.

    Returns:
      The path of the page.
    """
    path = pathlib.Path(workdir) / "report" / "index.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = page.render(read(workdir, run)).encode()
    checkpoint.write_atomically(path, lambda file: file.write(text))
    return path


def read(workdir, run: dict) -> page.Page:
    """All that the page shows.

    Args:
      workdir: of the run.
      run: of records.json.
    """
    workdir, arm = pathlib.Path(workdir), _about(run)
    folders = _folders(workdir, run, arm)
    looked = _by_images(workdir)
    galleries = tuple(
        _gallery(folder, looked, share=_OTHERS if number else 1.0, film=number < _FILMS)
        for number, folder in enumerate(folders)
    )
    config = run.get("config")
    return page.Page(
        run=run,
        arm=arm,
        date=_date(workdir),
        galleries=galleries,
        plane=_plane(workdir, folders[0], looked) if folders else None,
        config=pprint.pformat(config, width=88, sort_dicts=False) if config else "",
    )


# Sets ---------------------------------------------------------------------------------


def _about(run) -> str:
    """The arm that the run's config is about; it is shown first."""
    section = run.get("config", {}).get("recover", {})
    return f"{section['method']}/{section['start']}" if section else ""


def _folders(workdir, run, arm) -> list[pathlib.Path]:
    """The first set of every arm at its largest ipc; the config's arm comes first."""
    known = {
        path.parent.name.rpartition("-")[2]: path.parent
        for path in sorted((workdir / "recover").glob("*/manifest.json"))
    }
    rows = [*run.get("students", []), *run.get("sets", [])]
    chosen = {}
    for row in sorted(rows, key=lambda row: (-row["ipc"], row["set"])):
        if row.get("images") in known:
            chosen.setdefault(row["arm"], known[row["images"]])
    order = [arm, *dict.fromkeys(row["arm"] for row in rows)]
    moved = [name for name in order if "/" in name]  # methods before baselines
    return [chosen[name] for name in dict.fromkeys(moved + order) if name in chosen]


def _by_images(workdir) -> dict[str, pathlib.Path]:
    """Folders of the stage quality, by the hash of the set that they are about."""
    found = {}
    for path in sorted((workdir / "quality").glob("*/manifest.json")):
        about = checkpoint.record(path.parent)
        found[about.get("images", about["made_from"].get("images"))] = path.parent
    return found


def _gallery(folder, looked, *, share: float, film: bool) -> page.Gallery:
    about, arrays = checkpoint.record(folder), checkpoint.load(folder)
    images, labels = _seen(arrays, about)
    beside = frames = None
    quality = looked.get(folder.name.rpartition("-")[2])
    if film and quality is not None:
        found = checkpoint.load(quality)
        if "neighbour_images" in found:
            beside = (found["neighbour_rows"], found["neighbour_images"])
    if film and (folder / "frames.npz").exists():
        with np.load(folder / "frames.npz", allow_pickle=False) as kept:
            frames = (kept["steps"], kept["images"])
    names = about.get("classes") or [str(k) for k in range(int(labels.max()) + 1)]
    return page.Gallery(
        arm=about["arm"],
        ipc=about["ipc"],
        classes=tuple(names),
        images=images,
        labels=labels,
        beside=beside,
        frames=frames,
        losses=_losses(folder),
        share=share,
    )


def _seen(arrays, about) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a set as networks see them, parts of mosaics one by one."""
    stored = DistilledSet(*(arrays[name] for name in DistilledSet._fields))
    seen = matching.mosaics.decoded(stored, about.get("factor", 1))
    return seen.images, np.asarray(seen.labels)


def _losses(folder) -> tuple[dict, ...]:
    """The rows of metrics.jsonl, up to a line that was cut off by a kill."""
    path, rows = folder / "metrics.jsonl", []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
    return tuple(rows)


def _date(workdir) -> str:
    """The day of the newest artifact: writing the page again does not change it."""
    times = [path.stat().st_mtime for path in workdir.glob("*/*/manifest.json")]
    if not times:
        return ""
    newest = datetime.datetime.fromtimestamp(max(times), datetime.UTC)
    return newest.strftime("%Y-%m-%d %H:%M UTC")


# The map ------------------------------------------------------------------------------


def _plane(workdir, folder, looked) -> page.Plane | None:
    """Real, atom and distilled features in the plane in which the real ones spread."""
    about = checkpoint.record(folder)
    made_from = about["made_from"]
    seen = workdir / "stats" / f"teacher-{made_from.get('stats')}"
    path = seen / "artifact.npz"
    if not path.exists() or path.stat().st_size > _FEATURES_MB * 1e6:
        return None
    from sklearn.decomposition import PCA  # slow to import

    with np.load(path, allow_pickle=False) as arrays:
        features, count = arrays["features"], arrays["count"]
    labels = np.repeat(np.arange(len(count)), count)
    rows = np.linspace(0, len(labels) - 1, min(_REAL, len(labels))).astype(int)
    fitted = PCA(2, svd_solver="full").fit(features[rows])

    def flat(points, labels):
        return fitted.transform(points), np.asarray(labels)

    quality = looked.get(folder.name.rpartition("-")[2])
    distilled = None
    if quality is not None:
        found = checkpoint.load(quality)
        if "features" in found:
            own = _seen(checkpoint.load(folder), about)[1]
            distilled = flat(found["features"], own)
    atoms = _atoms(workdir, made_from)
    return page.Plane(
        arm=about["arm"],
        real=flat(features[rows], labels[rows]),
        atoms=None if atoms is None else flat(*atoms),
        distilled=distilled,
        shares=tuple(float(x) for x in fitted.explained_variance_ratio_),
    )


def _atoms(workdir, made_from):
    """(points [C ipc, D], labels) of the barycenters of a set, where there are some."""
    for path in sorted((workdir / "stats").glob("barycenter-*/manifest.json")):
        other = checkpoint.record(path.parent)["made_from"]
        same = (other.get(k) == made_from.get(k) for k in ("stats", "ipc", "seed"))
        # Points of a product space are not on the map of the features.
        if all(same) and other.get("target") != "product":
            points = checkpoint.load(path.parent)["points"]
            labels = np.repeat(np.arange(len(points)), points.shape[1])
            return points.reshape(-1, points.shape[-1]), labels
    return None
