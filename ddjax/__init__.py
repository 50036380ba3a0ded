"""ddjax: dataset distillation in JAX.

In the order of the pipeline: `data`, `models`, `squeeze`, `stats` (with `ot`),
`recover` (with `methods` and `losses`), `relabel`, `student`, `report`.
"""

__version__ = "0.1.0"
