"""The table of a sweep."""

from ddjax import tables


def student(arm, ipc, top1):
    return {"arm": arm, "ipc": ipc, "top1": top1}


def test_one_row_an_arm_and_one_column_an_ipc():
    students = [
        student("random", 1, 0.5),
        student("geodm.E/random", 1, 0.6),
        student("geodm.E/random", 1, 0.7),
        student("geodm.E/random", 10, 0.9),
        student("whole data", 0, 1.0),
    ]
    stages = [
        {"stage": "recover", "name": f"geodm.E-random-ipc{ipc}-seed{i}", "seconds": s}
        for ipc, i, s in ((1, 0, 10.0), (1, 1, 20.0), (10, 0, 0.2))
    ]
    stages.append({"stage": "quality", "name": stages[0]["name"], "seconds": 99.0})
    header, rows = tables.settings(students, stages)
    assert header == ["images", "IPC 1", "IPC 10", "s a set, IPC 1", "s a set, IPC 10"]
    assert rows == [
        ["random", "50.0", "", "", ""],
        ["geodm.E/random", "65.0 ± 7.1", "90.0", "15", ""],
    ]
