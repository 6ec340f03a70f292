"""Benchmark suites for FFSD: points, each measured by itself, and their main figures."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from ffsd_ray import data
from ffsd_ray.bench.compare import TimingBudget, best, compare
from ffsd_ray.bench.measure.linearity import linear_cost
from ffsd_ray.bench.measure.workers import compare_workers
from ffsd_ray.bench.summary import Figure
from ffsd_ray.bench.synthetic import synthetic_data
from ffsd_ray.config.trial import TrialSpec
from ffsd_ray.data import Dataset, DataSettings

_MAIN = "resnet32 n=2"
_WORKERS, _LINEAR = "workers", "n = 2 to 8"
_ONE_WORKER, _DDP_WORKERS, _CAPTURED_WORKERS = "1 captured", "2 in DDP", "2 captured"
_STREAMS = f"{_MAIN}, bf16 streams"


class Point(NamedTuple):
    """Something to be measured in a process of its own."""

    name: str
    measure: Callable[[], dict[str, Any]]


class Scope(NamedTuple):
    """On what a suite measures: images as CIFAR's, or few small ones, which only shows that everything runs."""

    device: torch.device
    smoke: bool = False

    def spec(
        self,
        backbone: str = "resnet32",
        students: int = 2,
        *,
        images: DataSettings | None = None,
        workers: int = 1,
        threads: int = 2,
        **train: object,
    ) -> TrialSpec:
        """`images`: others than those."""
        data_section = {"name": "digits", "image_size": 8} if self.smoke else {"name": "cifar100"}
        return TrialSpec.model_validate(
            {
                "data": data_section if images is None else images.model_dump(),
                "backbone": {"name": backbone},
                "method": {"name": "ffsd", "students": students},
                # noise cannot be learned, and must not make the losses overflow
                "train": {"batch_size": 8 if self.smoke else 128, "lr": 0.01, **train},
                "scale": {
                    "workers": workers,
                    "threads": 1 if self.smoke else threads,
                    "gpus_per_worker": int(self.device.type == "cuda"),
                },
            }
        )

    def effort(self, **changes: Any) -> TimingBudget:
        cuda = self.device.type == "cuda"
        full = TimingBudget(repeats=5, seconds=3.0) if cuda else TimingBudget(repeats=10, seconds=15.0)
        chosen = TimingBudget(repeats=2, seconds=0.1) if self.smoke else full
        return TimingBudget(**{**vars(chosen), **changes})

    @property
    def repeats(self) -> int:
        return self.effort().repeats

    def images(self, spec: TrialSpec) -> Dataset:
        """As many images as CIFAR has."""
        assert spec.data.known_classes is not None
        assert spec.data.known_size is not None
        train, test = (32, 16) if self.smoke else (50_000, 10_000)
        return synthetic_data(spec.data.known_classes, spec.data.known_size, train=train, test=test)


def cpu_points(scope: Scope, *, compiled: bool) -> list[Point]:
    """`compiled`: with the settings that are compiled first, for minutes."""

    def settings(execution: str) -> dict[str, TrialSpec]:
        return {f"{p} {execution}": scope.spec(precision=p, execution=execution) for p in ("fp32", "bf16")}

    effort = scope.effort()
    points = [Point(_MAIN, partial(compare, settings("eager"), scope.images, scope.device, effort))]
    if compiled:
        compiled_effort = scope.effort(reference_epoch=False)
        points.append(
            Point(
                f"{_MAIN} compiled", partial(compare, settings("compiled"), scope.images, scope.device, compiled_effort)
            )
        )
    workers = {"1": scope.spec(workers=1, threads=2), "2": scope.spec(workers=2, threads=1)}
    points.append(Point(_WORKERS, partial(compare_workers, workers, scope.repeats)))
    points.append(_linear(scope, repeats=2 if scope.smoke else 5))
    return points


def cpu_summary(points: Mapping[str, Any]) -> list[Figure]:
    settings = _settings(points, _MAIN)
    literal = next(
        (figures_of["step"]["median"] for figures_of in settings if figures_of["literal"] and "step" in figures_of),
        None,
    )
    figures = [Figure(f"{_MAIN}: a step of the reference", literal, " s")]
    for precision in ("fp32", "bf16"):
        fastest = best(settings, precision=precision)
        name = f"{_MAIN}, {precision}"
        figures.append(Figure(f"{name}: speed, × reference", _of(fastest, "times_literal"), speedup=True))
        figures.append(Figure(f"{name}: memory, × reference", _of(fastest, "memory_of_literal")))
    figures.append(Figure("speed of 2 workers, × one with 2 threads", _workers_gain(points, "1", "2")))
    return [*figures, _linearity(points)]


def gpu_points(scope: Scope, *, compiled: bool, stream: DataSettings | None = None) -> list[Point]:
    """In the order in which they matter. `stream`: images that are decoded while ResNet-18 trains on them."""
    # On the CPU, to try the suite, nothing is captured.
    graph = "graph" if scope.device.type == "cuda" else "eager"
    effort = scope.effort(memory=False)

    def point(name: str, *shape: Any, **train: object) -> Point:
        label = f"{name}, {train['precision']} {train['execution']}"
        return Point(label, partial(compare, {label: scope.spec(*shape, **train)}, scope.images, scope.device, effort))  # type: ignore[arg-type]

    points = [point(_MAIN, precision="bf16", execution=graph)]
    if graph == "graph":
        points += [_member_streams(scope), point(_MAIN, precision="tf32", execution=graph)]
    points.append(point(_MAIN, precision="fp32", execution=graph))
    for name, backbone, students in (
        ("wrn-16-2 n=2", "wrn-16-2", 2),
        ("resnet56 n=2", "resnet56", 2),
        ("resnet32 n=4", "resnet32", 4),
        ("resnet32 n=6", "resnet32", 6),
    ):
        points.append(point(name, backbone, students, precision="bf16", execution=graph))
    points.append(_linear(scope, repeats=scope.repeats, precision="bf16"))
    for execution in ("eager", "compiled") if compiled else ("eager",):
        if execution != graph:
            points += [point(_MAIN, precision=precision, execution=execution) for precision in ("bf16", "fp32")]
    if graph == "graph" and torch.cuda.device_count() > 1:
        points.append(_gpu_workers(scope))
    if stream is not None:
        points.append(Point("resnet18 n=2, streamed", partial(_streamed, scope, stream, graph)))
    return points


def gpu_summary(points: Mapping[str, Any]) -> list[Figure]:
    settings = _settings(points, _MAIN)
    fastest, wide = best(settings, precision="bf16"), best(_settings(points, "wrn-16-2 n=2"), precision="bf16")
    return [
        Figure(f"{_MAIN}, bf16: a step", _of(fastest, "step", "median", by=1e3), " ms"),
        Figure(f"{_MAIN}, bf16: an epoch", _of(fastest, "epoch", "median"), " s"),
        Figure(f"{_MAIN}, bf16: speed, × reference", _of(fastest, "times_literal"), speedup=True),
        Figure(f"{_MAIN}, bf16: memory, × reference", _of(fastest, "memory_of_literal")),
        Figure("wrn-16-2 n=2, bf16: a step", _of(wide, "step", "median", by=1e3), " ms"),
        Figure(f"{_MAIN}, bf16: speed with a stream a network, × one stream", _gain_of_streams(points)),
        *(
            Figure(f"bf16: speed of 2 captured workers, × {name}", _workers_gain(points, name, _CAPTURED_WORKERS))
            for name in (_ONE_WORKER, _DDP_WORKERS)
            if _WORKERS in points
        ),
        _linearity(points),
    ]


def _member_streams(scope: Scope) -> Point:
    """The captured step with all of its operations in a row, and with networks that overlap."""
    settings = {
        f"{_STREAMS}: {name}": scope.spec(precision="bf16", execution="graph", member_streams=member_streams)
        for name, member_streams in (("one", False), ("one a network", True))
    }
    effort = scope.effort(memory=False)
    return Point(_STREAMS, partial(compare, settings, scope.images, scope.device, effort))


def _gpu_workers(scope: Scope) -> Point:
    """A captured step of one worker, and those of two with a GPU each: in DDP, and captured too."""
    shapes = {_ONE_WORKER: (1, "graph"), _DDP_WORKERS: (2, "eager"), _CAPTURED_WORKERS: (2, "graph")}
    specs = {
        name: scope.spec(workers=workers, precision="bf16", execution=execution)
        for name, (workers, execution) in shapes.items()
    }
    return Point(_WORKERS, partial(compare_workers, specs, scope.repeats))


def _workers_gain(points: Mapping[str, Any], slow: str, fast: str) -> float | None:
    workers = points.get(_WORKERS, {}).get("workers")
    return workers[slow]["step"]["median"] / workers[fast]["step"]["median"] if workers else None


def _gain_of_streams(points: Mapping[str, Any]) -> float | None:
    settings = _settings(points, _STREAMS)
    one, several = (_of(best(settings, member_streams=it), "step", "median") for it in (False, True))
    return one / several if one and several else None


def _linear(scope: Scope, repeats: int, **train: object) -> Point:
    specs = [scope.spec(students=students, **train) for students in range(2, 9)]  # type: ignore[arg-type]
    return Point(_LINEAR, partial(linear_cost, specs, scope.device, repeats))


def _linearity(points: Mapping[str, Any]) -> Figure:
    deviation = points.get(_LINEAR, {}).get("fit", {}).get("largest_deviation")
    percent = None if deviation is None else 100 * deviation
    return Figure("a step for n = 2 to 8: deviation from a line", percent, " %")


def _streamed(scope: Scope, stream: DataSettings, execution: str) -> dict[str, Any]:
    spec = scope.spec("resnet18", images=stream, precision="bf16", execution=execution)
    images = data.load(stream)
    return compare({"bf16 streamed": spec}, lambda spec: images, scope.device, scope.effort(memory=False))


def _settings(points: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The figures of all settings of the points whose names begin so."""
    by_point = [point.get("settings", {}).values() for key, point in points.items() if key.startswith(name)]
    return [figures for settings in by_point for figures in settings]


def _of(figures: Mapping[str, Any] | None, *path: str, by: float = 1.0) -> float | None:
    value: Any = figures
    for key in path:
        value = None if value is None else value.get(key)
    return None if value is None else by * value


#: By the name of a suite.
SUMMARIES: dict[str, Callable[[Mapping[str, Any]], Sequence[Figure]]] = {"cpu": cpu_summary, "gpu": gpu_summary}
