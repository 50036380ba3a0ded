"""The card of a distilled set: what it is, how to use it, and what not to expect.

For Hugging Face its head is YAML, as their `datasets` and their hub read it.
"""

import json

from ddjax.export import forms

__all__ = ["text"]

_LISTED = 20  # class names in the text
# Of each arm, what made the images.
_METHODS = {
    "wmdd": 'WMDD: H. Liu et al., "Dataset Distillation via the Wasserstein Metric", '
    "ICCV 2025, https://arxiv.org/abs/2311.18531",
    "sre2l": 'SRe2L: Z. Yin, E. Xing and Z. Shen, "Squeeze, Recover and Relabel", '
    "NeurIPS 2023, https://arxiv.org/abs/2306.13092",
    "cda": 'CDA: Z. Yin and Z. Shen, "Dataset Distillation via Curriculum Data '
    'Synthesis in Large Data Era", TMLR 2024, https://arxiv.org/abs/2311.18838',
    "dm": 'DM: B. Zhao and H. Bilen, "Dataset Condensation with Distribution Matching", '
    "WACV 2023, https://arxiv.org/abs/2110.04181",
    "dc": 'DC: B. Zhao, K. R. Mopuri and H. Bilen, "Dataset Condensation with Gradient '
    'Matching", ICLR 2021, https://arxiv.org/abs/2006.05929',
    "dsa": 'DSA: B. Zhao and H. Bilen, "Dataset Condensation with Differentiable Siamese '
    'Augmentation", ICML 2021, https://arxiv.org/abs/2102.08259',
    "geodm": "our reading of GeoDM: distribution matching in a product of geometries, "
    "https://arxiv.org/abs/2512.08317",
    "rded": 'patches as in RDED: P. Sun et al., "On the Diversity and Realism of '
    'Distilled Dataset", CVPR 2024, https://arxiv.org/abs/2312.03526',
    "random": "a random choice of real images (a baseline)",
    "herding": 'herding: M. Welling, "Herding Dynamical Weights to Learn", ICML 2009 '
    "(a baseline: real images)",
    "kcenter": 'K-Center: O. Sener and S. Savarese, "Active Learning for Convolutional '
    'Neural Networks: A Core-Set Approach", ICLR 2018 (a baseline: real images)',
    "kmeans": "the real images nearest to k-means centres (a baseline)",
}
_REAL = ("random", "herding", "kcenter", "kmeans", "rded")

_LOAD = {
    "run": """\
import json, pathlib, numpy as np
arrays = np.load("artifact.npz", allow_pickle=False)
images, labels, weights = (arrays[k] for k in ("images", "labels", "weights"))
about = json.loads(pathlib.Path("manifest.json").read_text())["record"]""",
    "npz": """\
import json, pathlib, numpy as np
arrays = np.load("set.npz", allow_pickle=False)
images, labels, weights = (arrays[k] for k in ("images", "labels", "weights"))
about = json.loads(str(arrays["set_json"]))""",
    "folder": """\
import json, pathlib, numpy as np
from PIL import Image
about = json.loads(pathlib.Path("set.json").read_text())
labels, weights = np.array(about["labels"]), np.array(about["weights"])
images = np.stack([np.array(Image.open(path)) for path in about["paths"]])
images = images.reshape(-1, *about["shape"])""",
    "tfds": """\
import json, pathlib, numpy as np, tensorflow_datasets as tfds
rows = tfds.builder_from_directory("{name}/1.0.0").as_data_source("train")
images, labels, weights = (np.stack([row[k] for row in rows])
                           for k in ("image", "label", "weight"))
about = json.loads(pathlib.Path("set.json").read_text())""",
    "parquet": """\
import json, pathlib, numpy as np, datasets
about = json.loads(pathlib.Path("set.json").read_text())
rows = datasets.load_dataset("parquet", data_files="data/*.parquet", split="train")
images = np.stack([np.array(row).reshape(about["shape"]) for row in rows["image"]])
labels, weights = np.array(rows["label"]), np.array(rows["weight"])""",
}
# What `matching.mosaics.decoded` does.
_DECODE = """\
f, (N, H, W, ch) = {factor}, images.shape
parts = images.reshape(N, f, H // f, f, W // f, ch).swapaxes(2, 3)
parts = parts.reshape(-1, H // f, W // f, ch).astype(np.float32)
def enlarge(x, axis):  # bilinear, corners not aligned
    at = (np.arange(f * x.shape[axis]) + 0.5) / f - 0.5
    at = np.clip(at, 0, x.shape[axis] - 1)
    low, share = np.floor(at).astype(int), (at % 1).astype(np.float32)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    share = share.reshape([-1 if i == axis else 1 for i in range(4)])
    return x.take(low, axis) * (1 - share) + x.take(high, axis) * share
images = np.rint(enlarge(enlarge(parts, 1), 2)).astype(np.uint8)
labels, weights = np.repeat(labels, {many}), np.repeat(weights / {many}, {many})"""
_TRAIN = """\
x = (images / 255 - np.array(about["mean"])) / np.array(about["std"])  # [N, H, W, ch]
# in every epoch, over shuffled rows b, with random crops and flips of x[b]:
#   loss = mean(cross_entropy(network(x[b]), labels[b]))
# `weights` sums to 1 in each class: scale the loss of a row by it times its class's
# images for the method's own weighting, or leave it out."""


def text(stored, form: str, parts: dict[str, int]) -> str:
    """The card, in Markdown.

    Args:
      stored: the set.
      form: one of `forms.FORMS`, or "run".
      parts: bytes on disk by name.
    """
    about, info = stored.about, stored.info
    arm = str(about.get("arm", "unknown"))
    head = _front_matter(stored, form)
    sections = [
        f"# {info.name}, distilled: {_counted(stored)}\n\n![the images](grid.png)",
        _source(stored, arm),
        "## Classes, in label order\n\n" + _classes(info.classes),
        (
            "## Transform\n\nPixels are uint8. Networks are given `(pixel / 255 - mean) / "
            f"std`, with\nmean {_numbers(info.mean)} and std {_numbers(info.std)} per "
            "channel, of the source's training images."
        ),
        "## Bytes\n\n" + _bytes(stored, parts),
        (
            f"## Loading it\n\nWith ddjax: `ddjax.load_distilled(path)`. Without:\n\n"
            f"```python\n{_loading(stored, form)}\n```\n\n{_taken_apart(stored)}"
            "Training on it:\n\n"
            f"```python\n{_TRAIN}\n```"
        ),
        _limits(stored, arm),
        _privacy(info, arm),
    ]
    return head + "\n\n".join(sections) + "\n"


def _counted(stored) -> str:
    count, ipc = len(stored.images), stored.ipc
    each = f"{ipc} per class" if ipc else "not the same number in every class"
    return f"{count:,} images, {each}"


def _source(stored, arm) -> str:
    about = stored.about
    method = about.get("method") or _METHODS.get(_method(arm), arm)
    lines = [
        (
            f"* source data: {stored.info.name}, {stored.info.num_classes} classes, images "
            f"of {'x'.join(map(str, stored.info.shape))}"
        ),
        f"* method: {method}",
        f"* arm: {arm}",
        f"* seed: {about.get('seed', 'unknown')}",
    ]
    rest = {
        key: value
        for key, value in about.items()
        if key not in ("arm", "method", "seed", "made_from", "licence", "ipc")
        and isinstance(value, (str, int, float))
    }
    lines += [f"* {key.replace('_', ' ')}: {_short(rest[key])}" for key in rest]
    licence = about.get("licence") or (
        f"the images derive from {stored.info.name}, whose terms apply to them too; "
        "read those before you share them"
    )
    return "## What it is\n\n" + "\n".join([*lines, f"* licence: {licence}"])


def _method(arm) -> str:
    """Of "method+teacher/start"."""
    return arm.partition("/")[0].partition("+")[0].partition(".")[0]


def _short(value) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else value


def _classes(classes) -> str:
    shown = [f"{label} {name}" for label, name in enumerate(classes[:_LISTED])]
    more = len(classes) - len(shown)
    return ", ".join(shown) + (
        f", and {more} more (all are in its record)" if more else ""
    )


def _bytes(stored, parts) -> str:
    arrays = {"pixels, as uint8 in memory": stored.images.nbytes}
    arrays["labels and weights, in memory"] = stored.labels.nbytes
    arrays["labels and weights, in memory"] += stored.weights.nbytes
    if len(stored.soft_labels):
        arrays["soft labels (float16 logits), in memory"] = stored.soft_labels.nbytes
    named = arrays | {f"`{name}` on disk": size for name, size in parts.items()}
    shown = list(named.items())[: _LISTED + len(arrays)]
    rows = "\n".join(f"| {name} | {size:,} |" for name, size in shown)
    left = len(named) - len(shown)
    rest = f"\n\nand {left} folders more" if left else ""
    return f"| part | bytes |\n| --- | ---: |\n{rows}{rest}"


def _loading(stored, form) -> str:
    return _LOAD[form].replace("{name}", forms.set_name(stored))


def _taken_apart(stored) -> str:
    """How images that hold several are decoded."""
    factor = stored.factor
    if factor == 1:
        return ""
    code = _DECODE.replace("{factor}", str(factor)).replace("{many}", str(factor**2))
    return (
        f"Each image is a mosaic of {factor} x {factor} smaller ones of its class. "
        "Networks are\ngiven these, enlarged to whole images (`load_distilled` does "
        f"it):\n\n```python\n{code}\n```\n\n"
    )


def _limits(stored, arm) -> str:
    soft = len(stored.soft_labels)
    lines = [
        (
            "Scores depend on the student's recipe and labels more than on the images: "
            "compare only with\n  baselines of the same recipe, labels and bytes."
        ),
        "Made for one resolution and one class list; for other tasks, nothing is known.",
        "Soft labels are the teacher's logits on the plain images; labels for augmented "
        "views are not here."
        if soft
        else "Hard labels only: published scores with soft labels need a teacher that "
        "is not in this set.",
    ]
    return "## Known limits\n\n" + "\n".join(f"* {line}" for line in lines)


def _privacy(info, arm) -> str:
    if _method(arm) in _REAL:
        told = f"These are real images of {info.name}, or parts of them."
    else:
        told = (
            f"The images were made from training images of {info.name} and can "
            "resemble them closely."
        )
    return (
        f"## Privacy\n\n{told} Distilling is no anonymisation, and gives no guarantee "
        "(such as differential privacy): treat the set as you would treat the source."
    )


def _numbers(values) -> str:
    return "(" + ", ".join(f"{value:.4f}" for value in values) + ")"


# For the hub -------------------------------------------------------------------------


def _front_matter(stored, form) -> str:
    """YAML between two lines; JSON's texts are YAML's."""
    tags = ["dataset-distillation"] + ([f"ipc-{stored.ipc}"] if stored.ipc else [])
    lines = [
        "---",
        f"pretty_name: {json.dumps(stored.info.name + ', distilled')}",
        "license: other",
        "task_categories:",
        "- image-classification",
        "tags:",
        *(f"- {tag}" for tag in tags),
    ]
    if form == "parquet":
        lines += _dataset_info(stored)
    return "\n".join([*lines, "---", "", ""])


def _dataset_info(stored) -> list[str]:
    names = enumerate(stored.info.classes)
    soft = ["  - name: soft_label", "    sequence: float32"]
    return [
        "configs:",
        "- config_name: default",
        "  data_files:",
        "  - split: train",
        "    path: data/train-*",
        "dataset_info:",
        "  features:",
        "  - name: image",
        "    dtype: image",
        "  - name: label",
        "    dtype:",
        "      class_label:",
        "        names:",
        *(f"          '{label}': {json.dumps(name)}" for label, name in names),
        "  - name: weight",
        "    dtype: float32",
        *(soft if len(stored.soft_labels) else []),
        "  splits:",
        "  - name: train",
        f"    num_bytes: {stored.images.nbytes}",
        f"    num_examples: {len(stored.images)}",
    ]
