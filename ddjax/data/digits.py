"""The embedded data set: 1,797 handwritten digits of 8x8 pixels.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI
Machine Learning Repository, 1998, https://doi.org/10.24432/C50P49, as packaged by
scikit-learn. It has no official split here, so we fix one: a fifth of every class,
drawn with seed 0, is the test split (1,437 and 360 images).
"""

import numpy as np

__all__ = ["read"]


def read(split: str):
    """Images [N, 8, 8, 1] uint8, labels [N], and the ten names."""
    from sklearn import datasets, model_selection  # slow to import

    digits = datasets.load_digits()
    # 17 grey levels, 0..16, spread over 0..255.
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    train, test = model_selection.train_test_split(
        np.arange(len(images)), test_size=360, random_state=0, stratify=digits.target
    )
    rows = np.sort(train if split == "train" else test)
    return images[rows], digits.target[rows], tuple(str(n) for n in range(10))
