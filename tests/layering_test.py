"""Each layer imports only from those above it; only some touch files or devices."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
LAYERS = [
    {"types"},
    {"geometry", "ot", "losses", "models", "data", "metrics", "parallel", "checkpoint"}
    | {"optimizers", "selection"},
    {"matching", "diffusion"},
    {"methods", "loop", "training", "attacks"},
    {"squeeze", "stats", "recover", "relabel", "student", "recipes", "report"}
    | {"patches", "quality", "tables", "export", "landscape", "ensemble"}
    | {"generate", "autoencode"},
    {"pipeline", "page"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# The only imports within a layer: stages that read another's types, and losses on OT.
SIDEWAYS = {("losses", "ot"), ("losses", "geometry"), ("ot", "geometry")}
SIDEWAYS |= {("student", "relabel")}
SIDEWAYS |= {("checkpoint", "parallel"), ("metrics", "parallel")}
SIDEWAYS |= {("attacks", "loop"), ("models", "parallel")}
SIDEWAYS |= {("recipes", "student"), ("recipes", "relabel"), ("export", "report")}
SOURCES = sorted((ROOT / "ddjax").rglob("*.py"))


def _part(path):
    return path.relative_to(ROOT / "ddjax").parts[0].removesuffix(".py")


def _imports(path):
    """Names of the parts of ddjax that a file imports, and of other packages."""
    ours, others = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            others |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.module == "ddjax":
                ours |= {alias.name for alias in node.names}
            elif node.module.startswith("ddjax."):
                ours.add(node.module.split(".")[1])
            else:
                others.add(node.module.partition(".")[0])
    return ours, others


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_upwards(path):
    part = _part(path)
    if part == "__init__":
        return
    for other in _imports(path)[0] - {part}:
        allowed = LEVEL[other] < LEVEL[part] or (part, other) in SIDEWAYS
        assert allowed, f"{path.name} of {part} imports {other}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_imports_the_programs(path):
    assert not _imports(path)[1] & {"launch", "configs", "absl", "ml_collections"} - (
        {"absl"} if _part(path) == "checkpoint" else set()
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_devices_stay_in_their_places(path):
    text, part = path.read_text(), _part(path)
    reads_weights = path == ROOT / "ddjax" / "models" / "weights.py"
    if part not in {"checkpoint", "data", "export", "report"} and not reads_weights:
        assert "open(" not in text and "pathlib" not in text
    if part != "parallel":
        words = ("pmap(", "jax.devices", "jax.local_device", "jax.device_count")
        for word in (*words, "default_backend", "Mesh("):
            assert word not in text, f"{word} belongs into parallel.py"


def test_no_file_is_called_utils():
    assert not [p for p in ROOT.rglob("*util*.py") if ".venv" not in p.parts]
