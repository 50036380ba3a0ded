"""Recipes: how the papers train the students that they score, by name.

A recipe is a function `(model, ipc, num_classes) -> student.Recipe`; its docstring says
where the numbers are from, and "our reading" where the source is silent. Any number
may be changed. The same images can differ by tens of points from recipe to recipe, so
that only scores of one recipe are compared.
"""

from ddjax import student
from ddjax.data import dsa
from ddjax.relabel import Views
from ddjax.student import Recipe

__all__ = ["FIELDS", "create", "fields", "names", "plain"]

_OWN = tuple(field for field in Recipe._fields if field != "views")
FIELDS = (*Views._fields, *_OWN)  # what `create` can change
_PLAIN = "+plain"
_LATER = ("hard_share",)
_LATER += tuple(field for field in Recipe._fields if field.startswith("ot_"))


def names() -> tuple[str, ...]:
    """The known recipes."""
    return tuple(_RECIPES)


def create(name: str, *, model: str, ipc: int, num_classes: int, **changes) -> Recipe:
    """A recipe by name, for an architecture and a size of set.

    Args:
      name: one of `names()`, or with "+plain" behind it, see `plain`.
      model: architecture of the student, a name of `ddjax.models`.
      ipc: images per class.
      num_classes: C.
      **changes: fields of `Recipe` and of its `Views`, by their own names; None leaves
        the recipe's.

    Raises:
      ValueError: unknown name, field, or word in a field.

    Example:
      >>> from ddjax import recipes
      >>> recipe = recipes.create("rded", model="resnet18", ipc=10, num_classes=10)
      >>> recipe.views.batch_size, recipe.learning_rate, recipe.stretch
      (50, 0.001, 2.0)
    """
    base = name.removesuffix(_PLAIN)
    if base not in _RECIPES:
        known = ", ".join(_RECIPES)
        raise ValueError(
            f"unknown recipe {name!r}; known: {known}, each also with {_PLAIN!r}."
        )
    unknown = sorted(set(changes) - set(FIELDS))
    if unknown:
        raise ValueError(
            f"recipes have no field {unknown[0]!r}; known: {', '.join(FIELDS)}."
        )
    recipe = _RECIPES[base](model, ipc, num_classes)
    changes = {k: v for k, v in changes.items() if v is not None}
    views = {k: v for k, v in changes.items() if k in Views._fields}
    own = {k: v for k, v in changes.items() if k in _OWN}
    recipe = recipe._replace(views=recipe.views._replace(**views), **own)
    student.check(recipe)
    return recipe if base == name else plain(recipe)


def plain(recipe: Recipe) -> Recipe:
    """The same without any augmentation or mixing: images as they are."""
    views = Views(recipe.views.batch_size, (1.0, 1.0), flip=False, mix="none")
    return recipe._replace(views=views)


def fields(recipe: Recipe) -> dict:
    """The numbers of a recipe, flat, by the names that `create` takes.

    A field that came after the first records is there only where it is not the default,
    so that what they call a recipe is still its name.
    """
    found, default = {**recipe.views._asdict(), **recipe._asdict()}, Recipe()
    del found["views"]
    for field in _LATER:
        if found[field] == getattr(default, field):
            del found[field]
    return found


def _wmdd(model, ipc, num_classes):
    """WMDD's, which is SRe2L's with a small batch.

    H. Liu et al., ICCV 2025, https://arxiv.org/abs/2311.18531: `train/` of its code.
    AdamW 1e-3 whatever the architecture, 300 epochs, batches of 100, crops of 0.08 to
    1 of the area, flips, CutMix in every batch, divergence at temperature 20.
    """
    del model, ipc, num_classes
    return Recipe()


def _rded(model, ipc, num_classes):
    """RDED's: WMDD's with smaller batches, shuffled quarters and a rate that stays up.

    P. Sun et al., CVPR 2024, https://arxiv.org/abs/2312.03526, its code. Its table of
    rates has no ResNetAP-10, small ViTs, Swin-T and ConvNeXt-T, and its batches are
    those of IPC 1, 10 and 50; our reading: the ResNets' rate, ViT-B's and Swin-V2-T's
    rate, and the batch of the largest of the three that is not above the ipc. Where
    images are not mosaics its code leaves out shuffle and crop.
    """
    batch = next(size for least, size in ((50, 100), (10, 50), (0, 10)) if ipc >= least)
    if num_classes >= 100:
        batch *= 2
    views = Views(batch, (0.5, 1.0), patch_shuffle=2)
    return Recipe(views, learning_rate=_RDED_RATES.get(model, 1e-3), stretch=2.0)


_RDED_RATES = {
    "efficientnet_b0": 2e-3,
    "mobilenet_v2": 2.5e-3,
    "vgg11": 5e-4,
    "vit_tiny": 1e-4,
    "vit_small": 1e-4,
    "swin_tiny": 1e-4,
    "convnext_tiny": 1e-4,
}


def _rd3(model, ipc, num_classes):
    """RD3's one recipe for all methods, ICLR 2026: RDED's views, Adam, 400 epochs.

    Batches of 50, Adam 1e-3 for every architecture, cosine to 0 for ResNet-18 and
    stretched to twice the run for others. Our reading: no weight decay, and RDED's
    temperature, 20.
    """
    del ipc, num_classes
    return Recipe(
        Views(50, (0.5, 1.0), patch_shuffle=2),
        epochs=400,
        optimizer="adam",
        weight_decay=0.0,
        stretch=1.0 if model == "resnet18" else 2.0,
    )


def _dm(model, ipc, num_classes):
    """DM's and DSA's: SGD on hard labels under Differentiable Siamese Augmentation.

    B. Zhao and H. Bilen, https://arxiv.org/abs/2110.04181; its code counts 1,000
    epochs and makes one more, and starts SGD anew at a tenth of the rate when more
    than half is done. Our reading of soft labels, which it has not: temperature 20.
    """
    views = _dc(model, ipc, num_classes).views._replace(dsa=dsa.STRATEGY)
    return _dc(model, ipc, num_classes)._replace(views=views, epochs=1001)


def _dc(model, ipc, num_classes):
    """DC's: DM's without augmentation, for 300 epochs and one more.

    B. Zhao et al., "Dataset Condensation with Gradient Matching", ICLR 2021,
    https://arxiv.org/abs/2006.05929, its code.
    """
    del model, ipc, num_classes
    return Recipe(
        Views(256, (1.0, 1.0), flip=False, mix="none"),
        epochs=301,
        optimizer="sgd",
        learning_rate=0.01,
        weight_decay=5e-4,
        schedule="step",
    )


def _edc(model, ipc, num_classes):
    """EDC's on ImageNet-1K: squared logits, a stretched cosine, averaged parameters.

    S. Shao et al., "Elucidating the Design Space of Dataset Condensation", NeurIPS
    2024, https://arxiv.org/abs/2404.13733, its code. Its other data sets have other
    epochs, batches and optimisers: change the fields. Its score is the best of several
    on the test images; ours is the last. Our reading: the same rate for all
    architectures; and with one label an image, logits mixed by the shares.
    """
    del model, ipc, num_classes
    return Recipe(
        Views(100, (0.5, 1.0), patch_shuffle=2), stretch=2.0, loss="mse_ce", ema=0.99
    )


def _edc_otm(model, ipc, num_classes):
    """EDC's with OTM, for images that a diffusion model has drawn.

    X. Cui et al., NeurIPS 2025, https://arxiv.org/abs/2512.00308: EDC's loss, and
    beside it the transport between the student's predictions of a batch and the
    teacher's. Its weights, temperature, entropy and iterations could not be had; our
    reading: EDC's share of the class, SinKD's temperature 2 and entropy 0.1, and a
    weight of 0.1 for a plan of mass 1, that of SinKD (8e-4 for a sum over the batch) at
    the batches of 100. Without EDC's shuffled quarters, which are for mosaics; a
    comparison with "edc" on the same images has its `patch_shuffle` set to 1 too. It
    trains for 300 and for 1,000 epochs; ours are 300.
    """
    edc = _edc(model, ipc, num_classes)
    return edc._replace(views=edc.views._replace(patch_shuffle=1), ot_weight=0.1)


_RECIPES = {
    "wmdd": _wmdd,
    "rded": _rded,
    "rd3": _rd3,
    "dm": _dm,
    "dc": _dc,
    "edc": _edc,
    "edc_otm": _edc_otm,
}
