"""What methods have in common that match synthetic images to real ones, step by step.

DC, DSA, DM and what builds on them draw a batch of real images of every class
(`draw`), look at them and at the synthetic ones alike (`siamese`), and compare what a
network makes of both, which is fresh or half trained (`network_of`, `embed`).
`mosaics` are images that hold several. `product` places features in a product of
geometries, `learned` learns these, `rails` says when they go astray, `frame` places a
teacher's features in a fixed one.
"""

from ddjax.matching import frame, learned, mosaics, product, rails
from ddjax.matching.networks import SOURCES, check_source, embed, network_of
from ddjax.matching.real import by_class, draw, table
from ddjax.matching.views import siamese

__all__ = [
    "SOURCES",
    "by_class",
    "check_source",
    "draw",
    "embed",
    "frame",
    "learned",
    "mosaics",
    "network_of",
    "product",
    "rails",
    "siamese",
    "table",
]
