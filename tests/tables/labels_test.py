"""Tables of labels: how sure they are, and how many teachers were chosen."""

from ddjax import tables


def row(arm, ipc, seed, teachers, entropy):
    about = {"arm": arm, "ipc": ipc, "set": seed, "teachers": teachers}
    return {**about, "entropy": entropy, "accuracy": 0.75, "agreed": 0.8}


def test_sureness_is_a_mean_over_the_sets():
    rows = [
        row("random", 10, 0, 2, 0.5),
        row("random", 10, 0, 1, 0.1),
        row("random", 10, 1, 1, 0.2),
        row("random", 1, 0, 1, 0.3),
    ]
    header, table = tables.sureness(rows, str.upper)
    assert header[:4] == ["IPC", "images", "teachers", "entropy, nats"]
    assert table == [
        ["1", "RANDOM", "1", "0.300", "75.0", "80.0"],
        ["10", "RANDOM", "1", "0.150", "75.0", "80.0"],
        ["10", "RANDOM", "2", "0.500", "75.0", "80.0"],
    ]
    header, table = tables.sureness([{**r, "run": "a"} for r in rows])
    assert header[0] == "run" and table[0][0] == "a"


def test_counts_say_what_was_chosen():
    tried = [
        {"ipc": 10, "teachers": 2, "score": 0.6, "chosen": True},
        {"ipc": 10, "teachers": 1, "score": 0.5, "chosen": False},
    ]
    header, table = tables.label_counts(tried)
    assert header == ["IPC", "teachers", "held out, %", "chosen"]
    assert table == [["10", "1", "50.0", ""], ["10", "2", "60.0", "yes"]]
