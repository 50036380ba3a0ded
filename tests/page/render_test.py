"""The page as text: its blocks, its pictures, and what it must not contain."""

import html.parser
import re

import numpy as np
import pytest

from ddjax import page

BLOCKS = ["scores", "attacks", "surfaces", "images", "frames", "neighbours", "map"]
BLOCKS += ["losses", "quality", "bytes", "costs", "config"]
VOID = {"meta", "link", "img", "input", "br"}
HOSTILE = '</pre><script>alert("1")</script>'


def student(arm, ipc, labels, top1, **more):
    """A record of records.json."""
    sizes = {"num_images": 3 * ipc, "image_bytes": 192 * 3 * ipc, "label_bytes": 3}
    who = {"arm": arm, "ipc": ipc, "set": 0, "student": 0, "images": arm}
    how = {"labels": labels, "recipe": "wmdd", "model": "convnet"}
    return {**who, **how, "top1": top1, **sizes, "other_bytes": 0, **more}


def attack(name, eps, robust, **more):
    """A record of an attack on a student of ours."""
    who = {"arm": "wmdd/real", "ipc": 1, "set": 0, "student": 0, "labels": "hard"}
    how = {"recipe": "wmdd", "model": "convnet", "attack": name, "eps": eps}
    seen = {"norm": "linf", "clean": 0.5, "robust": robust, "num_images": 1000}
    return {**who, **how, **seen, **more}


def landscape(name, loss):
    """A record of a network's loss around images."""
    row = {"name": name, "gradient_norm": 0.5, "rayleigh": 2.0, "top_eigenvalue": 3.0}
    return {**row, "cosine": 0.875, "surface": {"radius": 8.0, "loss": loss}}


def gallery(side=8, classes=3, ipc=2, arm="wmdd/real", names=None):
    """A set of noise, with all that can be shown of it."""
    rng = np.random.default_rng(side)
    count = classes * ipc
    shape = (count, side, side, 3)
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    film = rng.integers(0, 256, (12, *shape), dtype=np.uint8)
    return page.Gallery(
        arm=arm,
        ipc=ipc,
        classes=tuple(names or (f"class {k}" for k in range(classes))),
        images=images,
        labels=np.repeat(np.arange(classes), ipc),
        beside=(np.arange(count), images[::-1]),
        frames=(np.arange(12) * 5, film),
        losses=({"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "feature": 0.5}),
    )


@pytest.fixture(scope="module")
def whole():
    """A page with every block, and hostile names."""
    rows = [
        student(HOSTILE, 0, "hard", 0.9),
        *(student("wmdd/real", 1, "hard", top1) for top1 in (0.5, 0.7)),
        student("wmdd/real", 10, "stored", 0.8, other_bytes=10**6),
        student("random", 1, "hard", 0.25, recipe="dm"),
    ]
    points, labels = np.arange(12.0).reshape(6, 2), np.repeat([0, 1, 2], 2)
    stage = {"stage": "recover", "name": "a", "seconds": 61.0, "compile_seconds": None}
    measures = {"redundancy": 0.5, "real_redundancy": 0.25, "png_bytes": 1234}
    run = {
        "name": HOSTILE,
        "environment": {"commit": "abcdef", "device": "cpu", "versions": {"jax": "1"}},
        "data": {"name": "tiny"},
        "students": rows,
        "sets": [{"arm": "wmdd/real", "ipc": 1, **measures}],
        "stages": [{**stage, "peak_bytes": 2 * 10**6}, {**stage, "peak_bytes": None}],
        "attacks": [attack("pgd100", 2.0, 0.375), attack("worst", 2.0, 0.25)],
        "alarms": [HOSTILE],
        "landscapes": [landscape(HOSTILE, [[0.0, 1.0], [2.0, 3.0]])],
    }
    return page.Page(
        run=run,
        arm="wmdd/real",
        date="2026-01-02",
        galleries=(gallery(names=("zero", HOSTILE, "two")),),
        plane=page.Plane(
            "wmdd/real",
            (points, labels),
            (points + 1, labels),
            (points - 1, labels),
            (0.5, 0.25),
        ),
        config=HOSTILE,
    )


class Tree(html.parser.HTMLParser):
    """Checks that every element is closed; collects ids and addresses."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.addresses, self.scripts = [], [], [], 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.note(tag, dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.note(tag, dict(attrs))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def note(self, tag, attrs):
        self.scripts += tag == "script"
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.addresses += [attrs[k] for k in ("src", "href", "action") if k in attrs]


def test_every_block_is_there_and_closed(whole):
    tree = Tree(page.render(whole))
    assert tree.open == []
    assert tree.ids == BLOCKS
    assert 'class="absent"' not in page.render(whole)


def test_nothing_is_asked_of_a_server(whole):
    """Pictures hold themselves; no style or script comes from elsewhere."""
    text = page.render(whole)
    assert all(a.startswith("data:") for a in Tree(text).addresses)
    assert not re.search(r"https?:|@import|url\(", text)


def test_text_from_outside_is_escaped(whole):
    """The one script is the page's own."""
    text = page.render(whole)
    assert Tree(text).scripts == 1
    assert HOSTILE not in text and "&lt;script&gt;alert" in text


def test_what_is_missing_is_said_in_a_sentence():
    """With nothing but a name there are as many sentences as blocks."""
    text = page.render(page.Page(run={"name": "empty"}))
    tree = Tree(text)
    assert tree.ids == BLOCKS and tree.open == [] and tree.scripts == 0
    assert text.count('class="absent"') == len(BLOCKS)


def test_scores_are_mean_std_and_n(whole):
    """0.5 and 0.7: mean 60, sample standard deviation 14.1."""
    text = page.render(whole)
    assert re.search(r"60\.0</span> ± 14\.1 <span[^>]*>n = 2<", text)
    assert text.count("<summary><h3>") >= 2 + 1 + 1  # (wmdd, dm), a set, its pairs


def test_attacked_students_have_a_table_and_a_plot(whole):
    """Robust is 25 of 50 percent; the alarms and the numbers of surfaces are told."""
    text = page.render(whole)
    section = text[text.index('id="attacks"') : text.index('id="images"')]
    assert "IPC 1, 2/255 <span" in section and "<th>PGD-100</th>" in section
    assert "n = 1; images: 1,000<" in section
    assert [x for x in ("50.0", "37.5", "25.0") if f"<span>{x}</span>" in section] == [
        *("50.0", "37.5", "25.0"),
    ]
    assert section.count('<svg class="plot"') == 1
    assert section.count("<li>&lt;/pre&gt;") == 1  # the alarm
    assert re.findall(r'<td class="number">([^<]*)</td>', section)[-4:] == [
        *("0.5", "2", "3", "0.875"),
    ]


def test_alarms_are_told_without_a_table():
    """Say of a check that failed before any attack was done."""
    text = page.render(page.Page(run={"name": "a", "alarms": ["softmax outputs"]}))
    assert "<li>softmax outputs</li>" in text
    assert text.count('class="absent"') == len(BLOCKS) - 1


def test_costs_are_summed_by_stage(whole):
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", page.render(whole))
    at = cells.index("recover")
    assert cells[at : at + 5] == ["recover", "2", "2 min 2 s", "", "2.0 MB"]


@pytest.mark.parametrize("side, classes, ipc", [(32, 10, 10), (224, 10, 10)])
def test_page_stays_small(side, classes, ipc):
    """Under 3 MB with three methods and three baselines, of incompressible noise."""
    one = gallery(side, classes, ipc)
    if side > 100:  # what a recovery keeps of large images
        one = one._replace(frames=(one.frames[0], one.frames[1][:, ::10]))
    other = one._replace(share=0.3)
    sets = (one, other, other, *[other._replace(frames=None, beside=None)] * 3)
    rng = np.random.default_rng(0)
    networks = [landscape(name, rng.normal(size=(21, 21)).tolist()) for name in "abcd"]
    run = {"name": "big", "landscapes": networks}
    size = len(page.render(page.Page(run=run, galleries=sets)))
    assert 1e6 < size < 3e6
