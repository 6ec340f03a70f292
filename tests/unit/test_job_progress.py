"""The time left of a job, and its counts."""

import heapq
import io
import random

import pytest
from rich.console import Console, Group

from ffsd_ray.data import SOURCES
from ffsd_ray.job_progress import JobProgress, relative_work
from ffsd_ray.progress_view import LiveView

from helpers.specs import digits_spec


def test_methods_take_what_they_compute_also_of_images_that_nobody_has_counted() -> None:
    baseline, ffsd = digits_spec({"name": "baseline"}), digits_spec({"name": "ffsd"})
    folder = SOURCES["image_folder"].model_validate({"name": "image_folder", "root": "somewhere", "image_size": 12})
    uncounted = [spec.with_data(folder) for spec in (baseline, ffsd)]
    first, second = (list(relative_work(specs).values()) for specs in ([baseline, ffsd], uncounted))
    assert first[1] > 3 * first[0]
    assert second[1] / second[0] == pytest.approx(first[1] / first[0])


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def simulated(works: list[float], lanes: int, epochs: int, seed: int) -> list[tuple[float, float | None]]:
    """Seconds since the start and the estimate then, at every epoch's end, and the whole time as the last one.

    Trials take what they are said to, give or take a fifth, and each a second to start.
    """
    clock, rng = Clock(), random.Random(seed)
    progress = JobProgress(
        {str(index): work for index, work in enumerate(works)}, done=0, total=len(works), clock=clock
    )
    events: list[tuple[float, int, int, float]] = []
    waiting = list(range(len(works)))
    found: list[tuple[float, float | None]] = []

    def start() -> None:
        if waiting:
            index = waiting.pop(0)
            progress.started(str(index), epochs, 0)
            each = works[index] * rng.uniform(0.8, 1.2) / epochs
            heapq.heappush(events, (clock.now + 1 + each, index, 1, each))

    for _ in range(lanes):
        start()
    while events:
        clock.now, index, epoch, each = heapq.heappop(events)
        progress.epoch(str(index), epoch, 50.0)
        found.append((clock.now - 1000, progress.seconds_left()))
        if epoch < epochs:
            heapq.heappush(events, (clock.now + each, index, epoch + 1, each))
        else:
            progress.ended(str(index), "completed")
            start()
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_the_time_left_is_right_within_a_third(lanes: int, seed: int) -> None:
    """From the first tenth on, with trials of which one takes ten times as long as another."""
    works = [random.Random(seed).uniform(60, 600) for _ in range(12)]
    found = simulated(works, lanes, epochs=40, seed=seed)
    whole = found[-1][0]
    checked = 0
    for elapsed, left in found:
        if elapsed >= whole / 10:
            assert left is not None
            assert abs(left - (whole - elapsed)) <= 0.3 * (whole - elapsed) + 20, elapsed / whole
            checked += 1
    assert checked > 100


def test_counts() -> None:
    progress = JobProgress({"a": 1.0, "b": 2.0}, done=1, total=5)
    assert (progress.running, progress.waiting, progress.seconds_left()) == (0, 4, None)
    progress.started("a", 10, 0)
    progress.started("b", 10, 5)
    assert (progress.running, progress.waiting) == (2, 2)
    progress.epoch("a", 1, 40.0)
    progress.epoch("b", 6, None)
    progress.epoch("b", 7, 45.0)
    progress.epoch("a", 2, 41.0)
    assert progress.best == (45.0, "b")
    progress.ended("a", "failed")
    progress.ended("b", "completed")
    assert (progress.done, progress.failed, progress.running, progress.waiting) == (2, 1, 0, 2)


def test_trials_that_a_searcher_has_not_chosen_yet_count_as_the_others_do() -> None:
    clock = Clock()
    progress = JobProgress({"a": 10.0}, done=0, total=4, clock=clock)
    progress.started("a", 10, 0)
    clock.now += 5
    progress.epoch("a", 5, 1.0)
    assert progress.seconds_left() == pytest.approx(5 + 3 * 10)
    assert progress.seconds_left("a") == pytest.approx(5)


def test_of_ten_thousand_trials_the_time_left_is_soon_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked for at every epoch: as many looks at every trial would be a hundred million."""
    works = {str(index): 1.0 + index % 7 for index in range(10_000)}
    clock = Clock()
    placed: list[float] = []
    progress = JobProgress(works, done=0, total=len(works), clock=clock)
    progress.started("0", 1, 0)
    progress.started("1", 2, 0)
    clock.now += 10
    progress.epoch("0", 1, None)
    progress.epoch("1", 1, None)
    place = heapq.heapreplace

    def counted(lanes: list[float], end: float) -> float:
        placed.append(end)
        return place(lanes, end)

    monkeypatch.setattr(heapq, "heapreplace", counted)
    assert progress.seconds_left() == pytest.approx(10 * (sum(works.values()) - 2) / 2, rel=0.02)
    assert len(placed) <= 64


def test_late_news_and_steps_back_are_borne() -> None:
    clock = Clock()
    progress = JobProgress({"a": 10.0, "b": 10.0}, done=0, total=2, clock=clock)
    progress.started("a", 10, 5)
    clock.now += 10
    progress.epoch("a", 4, None)
    assert progress.seconds_left() is None, "it went back to a checkpoint"
    progress.epoch("a", 7, None)
    assert progress.seconds_left() is not None
    progress.ended("a", "completed")
    progress.epoch("a", 8, 50.0)
    assert progress.seconds_left("a") is None


def test_a_first_step_that_warms_up_foretells_nothing() -> None:
    """Of fifty images the first epoch took 1.5 s and the others 0.02: it said 2:46:20 of two minutes."""
    clock = Clock()
    progress = JobProgress({"a": 160.0, "b": 160.0}, done=0, total=2, clock=clock)
    progress.started("a", 160, 0)
    clock.now += 1.5
    progress.epoch("a", 1, None)
    assert progress.seconds_left() is None
    clock.now += 3.5
    progress.epoch("a", 160, None)
    assert progress.seconds_left() == pytest.approx(5)


def test_what_was_trained_before_does_not_make_it_faster() -> None:
    clock = Clock()
    progress = JobProgress({"a": 10.0}, done=0, total=1, clock=clock)
    progress.started("a", 10, 8)
    clock.now += 6
    progress.epoch("a", 9, 1.0)
    assert progress.seconds_left() == pytest.approx(6)


@pytest.mark.parametrize(("width", "height", "shown"), [(80, 24, 18), (200, 50, 30)])
def test_thirty_trials_are_readable_on_a_terminal(width: int, height: int, shown: int) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height)
    labels = {str(index): f"ffsd n=2, seed {index}" for index in range(40)}
    progress = JobProgress(dict.fromkeys(labels, 1.0), done=0, total=40)
    with LiveView(console, labels, dict.fromkeys(labels, "leader"), progress) as view:
        view.phase("starting Ray")
        assert view._bars.headline == "starting Ray"
        for index in range(30):
            view.started(str(index), 10, 0)
            view.epoch(str(index), {"epoch": 1, "test/leader/top1": 50 + index, "images_per_second": 1.0})
        view.ended("29", "failed", "no room")
        paper = Console(file=io.StringIO(), width=width, height=height)
        paper.print(Group(*view._bars.get_renderables()))
    assert isinstance(paper.file, io.StringIO)
    lines = paper.file.getvalue().splitlines()
    assert len(lines) <= height - 4
    assert max(map(len, lines)) <= width
    assert "29 running, 10 waiting, 1 failed" in lines[0]
    assert sum("leader" in line for line in lines[1:]) == min(shown, 29)
    assert all(line.endswith("%") for line in map(str.rstrip, lines[2:])), "nothing is cut off"
