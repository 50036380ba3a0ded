"""The page of a small work folder, read from disk and opened in a browser."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from configs import default
from ddjax import checkpoint
from launch import page

CLASSES, IPC, STEPS = ("a", "b", "c"), 2, [0, 3, 6, 9]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def noise(seed, count):
    """[count, 8, 8, 3] uint8."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def make_set(workdir, stats, arm, seed=0):
    """A finished set of noise with what recover and quality leave of it; its hash."""
    count = len(CLASSES) * IPC
    labels = np.repeat(np.arange(len(CLASSES)), IPC)
    made_from = {"arm": arm, "ipc": IPC, "seed": [0, seed], "stats": stats.hash}
    name = f"{arm.replace('/', '-')}-ipc{IPC}-seed{seed}"
    stage = checkpoint.Stage(workdir, "recover", name, made_from)
    arrays = {"images": noise(seed, count), "labels": labels}
    record = {"arm": arm, "ipc": IPC, "seed": seed, "classes": list(CLASSES)}
    stage.finish({**arrays, "weights": np.ones(count)}, record)
    if "/" in arm:
        film = np.stack([noise(step, count) for step in STEPS])
        np.savez(stage.folder / "frames.npz", steps=STEPS, images=film)
        rows = [{"step": step, "loss": 9.0 - step, "feature": 1.0} for step in (1, 2)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (stage.folder / "metrics.jsonl").write_text(text)
    looked = checkpoint.Stage(workdir, "quality", name, {"images": stage.hash})
    found = {
        "features": np.random.default_rng(1).normal(size=(count, 4)),
        "neighbour": np.arange(count),
        "neighbour_rows": np.arange(count),
        "neighbour_images": arrays["images"],  # copies: at no distance
    }
    looked.finish(found, {"arm": arm, "ipc": IPC, "images": stage.hash})
    return stage.hash


@pytest.fixture(scope="module")
def config():
    return default.get_config("quick")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, config):
    """A work folder in the formats of a finished run, with its page; (folder, run)."""
    workdir, rng = tmp_path_factory.mktemp("work"), np.random.default_rng(0)
    stats = checkpoint.Stage(workdir, "stats", "teacher", {})
    features = rng.normal(size=(30, 4)).astype(np.float32)
    stats.finish({"features": features, "count": np.array([8, 10, 12])}, {})
    for seed in range(2):
        made_from = {"ipc": IPC, "seed": [0, seed], "stats": stats.hash}
        name = f"barycenter-ipc{IPC}-seed{seed}"
        atoms = checkpoint.Stage(workdir, "stats", name, made_from)
        atoms.finish({"points": rng.normal(size=(3, IPC, 4)) + 99 * seed}, {})
    sizes = {"num_images": 6, "image_bytes": 1152, "label_bytes": 6, "other_bytes": 0}
    alike = {"ipc": IPC, "labels": "hard", "recipe": "wmdd", "model": "convnet"}
    students = [
        dict(alike, **sizes, arm=arm, set=seed, student=0, top1=0.5, images=images)
        for arm in ("random", "wmdd/noise", "wmdd/real")
        for seed in range(2)
        for images in [make_set(workdir, stats, arm, seed)]
    ]
    identity = ("arm", "ipc", "labels", "recipe", "model", "set", "student")
    attack = {"attack": "worst", "eps": 2.0, "norm": "linf", "num_images": 6}
    curvature = {"gradient_norm": 1.0, "rayleigh": 2.0, "top_eigenvalue": 3.0}
    surface = {"radius": 8.0, "loss": [[0.0, 1.0], [2.0, 3.0]]}
    run = {
        "name": "tiny",
        "config": config.to_dict(),
        "environment": {"commit": "abc", "device": "cpu", "versions": {}},
        "data": {"name": "noise"},
        "students": students,
        "sets": [{**row, "w2": 1.5} for row in students],
        "stages": [{"stage": "recover", "name": "x", "seconds": 2.0}],
        "attacks": [
            {**{f: row[f] for f in identity}, **attack, "clean": 0.5, "robust": 0.25}
            for row in students
        ],
        "landscapes": [
            {"name": "teacher", **curvature, "cosine": 0.5, "surface": surface}
        ],
    }
    page.write(workdir, run)
    return workdir, run


def text_of(workdir):
    return (workdir / "report" / "index.html").read_text()


def test_every_block_has_something_to_show(workdir):
    text = text_of(workdir[0])
    assert 'class="absent"' not in text
    assert "https:" not in text and "http:" not in text


def test_ours_comes_first_and_methods_before_baselines(workdir):
    """The first set of each, from the folder that its hash names."""
    found = page.read(*workdir)
    assert [g.arm for g in found.galleries] == ["wmdd/real", "wmdd/noise", "random"]
    np.testing.assert_array_equal(found.galleries[0].images, noise(0, 6))
    assert [row["step"] for row in found.galleries[0].losses] == [1, 2]


def test_map_shows_the_atoms_of_this_set(workdir):
    """Those of the other seed lie far away."""
    plane = page.read(*workdir).plane
    real, labels = plane.real
    assert real.shape == (30, 2) and np.bincount(labels).tolist() == [8, 10, 12]
    assert plane.atoms[1].tolist() == plane.distilled[1].tolist() == [0, 0, 1, 1, 2, 2]
    assert np.abs(plane.atoms[0]).max() < 20
    np.testing.assert_allclose(real.mean(0), 0, atol=1e-5)  # PCA is of the real ones


def test_page_does_not_change_when_written_again(workdir, config):
    before = text_of(workdir[0])
    page.write(*workdir)
    assert text_of(workdir[0]) == before
    assert [p.name for p in (workdir[0] / "report").iterdir()] == ["index.html"]


def test_empty_folder_gives_a_page(tmp_path, config):
    """Twelve sentences; nothing is needed but the name."""
    page.write(tmp_path, {"name": "empty"})
    assert text_of(tmp_path).count('class="absent"') == 12


def test_frames_are_never_unpickled(workdir, config, tmp_path):
    """An array of objects in a file could run what it likes."""
    shutil.copytree(workdir[0], tmp_path / "copy")
    (path,) = (tmp_path / "copy" / "recover").glob("wmdd-real-*seed0-*/frames.npz")
    images = np.array([{}], dtype=object)
    np.savez(path, allow_pickle=True, steps=[0], images=images)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        page.write(tmp_path / "copy", workdir[1])


# In a browser -------------------------------------------------------------------------

TOLD = """<script>
document.documentElement.dataset.errors = "";
const tell = (text) => { document.documentElement.dataset.errors += text + ";"; };
addEventListener("error", (event) => tell(event.message));
console.error = tell;
</script>"""
MOVED = """<script>
const slider = document.querySelector("input");
slider.value = 1;
slider.dispatchEvent(new Event("input"));
</script>"""


def browse(path, tmp_path, *flags):
    """What a headless browser prints of a page."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no chromium on this machine")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", *flags, path]
    done = subprocess.run(
        command, check=True, capture_output=True, timeout=60, text=True
    )
    return done.stdout


def shown(dom):
    """(frame, steps shown, the shift of the first film, errors)."""
    frame = re.search(r'id="frames" data-frame="(\d+)"', dom)[1]
    steps = re.findall(r"step <b>(\d+)</b>", dom)
    shift = re.search(r"translateY\(([-\d.]+)%\)", dom)[1]
    return frame, steps, float(shift), re.search(r'data-errors="([^"]*)"', dom)[1]


@pytest.mark.parametrize(
    "address, script, wanted",
    [
        ("", "", ("3", ["9", "9"], -75.0, "")),  # the end
        ("#frame=2", "", ("2", ["6", "6"], -50.0, "")),
        ("#frame=99", "", ("3", ["9", "9"], -75.0, "")),
        ("", MOVED, ("1", ["3", "3"], -25.0, "")),
    ],
)
def test_slider_moves_the_frames(address, script, wanted, workdir, tmp_path):
    """By address and by hand, all films together; without an error."""
    text = text_of(workdir[0]).replace("<head>", "<head>" + TOLD)
    text = text.replace("</body>", script + "</body>")
    path = tmp_path / "index.html"
    path.write_text(text)
    dom = browse(f"{path.as_uri()}{address}", tmp_path, "--dump-dom")
    assert shown(dom) == wanted
    assert '<div class="player">' in dom  # hidden where scripts do not run


NARROW = """<script>
Object.assign(document.body.style, { margin: 0, width: "340px" });
document.querySelectorAll("details").forEach((part) => { part.open = true; });
const inside = (part) => part.closest("svg, .scroll > *, .film > *");
for (const part of document.body.querySelectorAll("*"))
  if (!inside(part) && part.getBoundingClientRect().right > 340.5) tell(part.outerHTML.slice(0, 200));
</script>"""


def test_nothing_is_wider_than_a_phone(workdir, tmp_path):
    """Tables scroll in their own boxes; all else fits."""
    text = text_of(workdir[0]).replace("<head>", "<head>" + TOLD)
    path = tmp_path / "index.html"
    path.write_text(text.replace("</body>", NARROW + "</body>"))
    dom = browse(path.as_uri(), tmp_path, "--dump-dom", "--window-size=500,900")
    assert shown(dom)[3] == "" and "width: 340px" in dom


def test_picture_of_the_page_is_not_blank(workdir, tmp_path):
    path = (workdir[0] / "report" / "index.html").as_uri()
    target = tmp_path / "page.png"
    flags = (f"--screenshot={target}", "--window-size=800,1600", "--hide-scrollbars")
    browse(path, tmp_path, *flags)
    pixels = np.asarray(Image.open(target).convert("L"))
    assert pixels.shape == (1600, 800)
    assert pixels.std() > 5 and len(np.unique(pixels)) > 50
