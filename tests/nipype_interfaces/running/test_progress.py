"""A node's progress file, and what the terminal says of running nodes."""

import io
import json
import time

import pytest

from nipype_interfaces import node_progress
from nipype_interfaces.engines.labels import NodeLabel
from nipype_interfaces.node_progress import NodeProgress, ProgressRecord
from nipype_interfaces.running.monitor import Monitor


def test_written_at_most_once_a_second_and_at_the_end(tmp_path):
    clock, seen = [0.0], []
    tell = NodeProgress(tmp_path, clock=lambda: clock[0])
    for done in range(31):
        clock[0] = done * 0.1
        tell(done, 30, "images, step")
        seen.append(node_progress.read(tmp_path).done)
    assert seen == [0] * 10 + [10] * 10 + [20] * 10 + [30]


def test_a_stage_that_ends_again_and_again_is_not_written_every_time(tmp_path):
    clock = [0.0]
    tell = NodeProgress(tmp_path, clock=lambda: clock[0])
    tell(1, 1, "reading")
    first = node_progress.read(tmp_path).time
    for _ in range(50):
        tell(1, 1, "reading")
    assert node_progress.read(tmp_path).time == first
    tell(2, 2, "writing")
    assert node_progress.read(tmp_path).what == "writing"


def test_the_file_is_json_and_no_temporary_one_is_left(tmp_path):
    NodeProgress(tmp_path)(3, 8, "images, guided step 1/4")
    state = json.loads((tmp_path / "progress.json").read_text())
    assert {key: state[key] for key in ("what", "done", "total")} == {
        "what": "images, guided step 1/4",
        "done": 3,
        "total": 8,
    }
    assert state["time"] == pytest.approx(time.time(), abs=60)
    assert [p.name for p in tmp_path.iterdir()] == ["progress.json"]


def test_a_folder_that_takes_no_file_does_not_stop_the_computation(tmp_path):
    NodeProgress(tmp_path / "gone")(1, 2, "images")
    assert node_progress.read(tmp_path / "gone") is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"what": "x"}', '{"what": "x", "done": "y", "total": 1, "time": 0}'])
def test_a_file_that_cannot_be_read_is_no_progress(tmp_path, text):
    (tmp_path / "progress.json").write_text(text)
    assert node_progress.read(tmp_path) is None


def test_share_is_between_nothing_and_all():
    assert [ProgressRecord("x", done, total, 0).share for done, total in ((0, 0), (1, 4), (9, 4), (-1, 4))] == [
        0,
        0.25,
        1,
        0,
    ]


@pytest.mark.parametrize(
    ("folder", "subject", "node", "item"),
    [
        ("wf/sub_01_wf/reconstruct_wf/recon", "sub-01", "reconstruct/recon", None),
        ("wf/sub_01_wf/reconstruct_wf/recon/mapflow/_recon12", "sub-01", "reconstruct/recon", 12),
        ("wf/sub_07_wf/report_wf/report", "sub-07", "report", None),
        ("wf/group", "", "group", None),
    ],
)
def test_a_node_is_named_by_its_folder(tmp_path, folder, subject, node, item):
    place = NodeLabel.of(tmp_path / folder, tmp_path / "wf")
    assert (place.subject, place.node, place.item) == (subject, node, item)


class FakeNode:
    def __init__(self, folder, iterfield=None, n=0):
        self.name, self._folder = folder.name, folder
        self.inputs = type("Inputs", (), {"x": list(range(n))})()
        if iterfield:
            self.iterfield = [iterfield]

    def output_dir(self):
        return str(self._folder)


class FakeGraph:
    def __init__(self, *nodes):
        self._nodes = nodes

    def nodes(self):
        return self._nodes


@pytest.fixture
def root(tmp_path):
    return (tmp_path / "wf").resolve()


def begun(root, *nodes, **options):
    monitor = Monitor(root, io.StringIO(), **options)
    monitor.begin(FakeGraph(*nodes))
    for node in nodes:
        (root / node.output_dir()).mkdir(parents=True, exist_ok=True)
    return monitor


def said(monitor):
    return monitor.stream.getvalue().splitlines()


def test_ends_are_counted_and_a_result_from_before_is_cached(root):
    old, new = FakeNode(root / "sub_01_wf" / "old"), FakeNode(root / "sub_01_wf" / "new")
    (root / "sub_01_wf" / "old").mkdir(parents=True)
    (root / "sub_01_wf" / "old" / "result_old.pklz").write_text("")
    time.sleep(0.02)
    monitor = begun(root, old, new)
    monitor._began += 0.01
    # MultiProc says nothing but "end" of a node that is cached
    monitor(old, "end")
    monitor(new, "start")
    monitor(new, "end")
    monitor(new, "end")
    assert said(monitor) == ["1/2 nodes  sub-01 old: cached", "2/2 nodes  sub-01 new: done in 0 s"]
    assert monitor.summary().startswith("2 nodes: 1 run, 1 cached; ")


def test_progress_of_an_earlier_attempt_is_not_shown(root):
    node = FakeNode(root / "fit")
    monitor = begun(root, node)
    NodeProgress(root / "fit")(7, 9, "old")
    monitor(node, "start")
    assert list(monitor.describe(time.time())) == ["fit"]
    NodeProgress(root / "fit")(2, 9, "ridge")
    assert list(monitor.describe(time.time())) == ["fit: ridge 2/9"]


def test_time_left_follows_from_the_speed(root):
    node = FakeNode(root / "fit")
    monitor = begun(root, node)
    monitor(node, "start")
    now = time.time()
    NodeProgress(root / "fit")(10, 100, "ridge")
    list(monitor.describe(now))
    NodeProgress(root / "fit")(30, 100, "ridge")
    assert list(monitor.describe(now + 20)) == ["fit: ridge 30/100, about 70 s left"]


def test_items_that_one_process_runs_are_one_node_with_parts(root):
    node = FakeNode(root / "recon", "x", 4)
    monitor = begun(root, node)
    monitor(node, "start")
    now = time.time()
    for item, done in ((0, 8), (1, 4)):
        folder = root / "recon" / "mapflow" / f"_recon{item}"
        folder.mkdir(parents=True)
        time.sleep(0.01)
        NodeProgress(folder)(done, 8, "images, step 1/2")
        line = list(monitor.describe(now + 10 * item))
    assert line == ["recon, part 2 of 4: images 4/8, step 1/2, about 50 s left"]


def test_items_of_other_processes_are_told_together_and_count_as_one_node(root):
    parent = FakeNode(root / "recon", "x", 4)
    items = [FakeNode(root / "recon" / "mapflow" / f"_recon{k}") for k in range(4)]
    monitor = begun(root, parent)
    for item in items[:3]:
        monitor(item, "start")
        (root / item.output_dir()).mkdir(parents=True)
    monitor(items[0], "end")
    NodeProgress(items[1].output_dir())(4, 8, "images")
    assert list(monitor.describe(time.time())) == ["recon, 1 of 4 parts done, 2 under way: images 4/8"]
    assert said(monitor) == ["0/1 nodes  recon, part 1 of 4: done in 0 s"]


def test_lines_of_a_log_come_now_and_then_and_of_a_terminal_are_rewritten(root, monkeypatch):
    node = FakeNode(root / "fit")
    monitor = begun(root, node)
    monitor(node, "start")
    for done in range(5):
        NodeProgress(root / "fit")(done, 9, "ridge")
        monitor._look()
    assert said(monitor) == ["0/1 nodes  fit: ridge 0/9"]
    monkeypatch.setattr(monitor.stream, "isatty", lambda: True, raising=False)
    monitor._look()
    monitor(node, "end")
    assert monitor.stream.getvalue().endswith("\r\x1b[Kfit: ridge 4/9\r\x1b[K1/1 nodes  fit: done in 0 s\n")


def test_an_interrupted_node_is_not_called_done(root):
    node = FakeNode(root / "fit")
    monitor = begun(root, node)
    monitor(node, "start")
    with pytest.raises(KeyboardInterrupt):
        try:
            raise KeyboardInterrupt
        finally:
            monitor(node, "end")
    assert monitor.done == 0 and said(monitor) == []
