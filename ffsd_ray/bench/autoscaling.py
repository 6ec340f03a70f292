"""`python -m ffsd_ray.bench.autoscaling [JOB]`: what a submitted job does to a cluster that scales from nothing.

The job's smoke form, on digits and CPUs unless `--set` says otherwise, goes to the simulated cluster of
cluster/local.yaml, as `ray job submit --working-dir .` sends it. A dated record and a picture tell when there were how
many nodes and which trials, from the command that submits it until the last node is gone.
"""

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from ffsd_ray.bench.record import Record, command_line, default_path
from ffsd_ray.bench.simulated import CONFIG, SimulatedCluster, simulated_cluster
from ffsd_ray.command import command
from ffsd_ray.config.labels import trial_labels
from ffsd_ray.config.load import Plan, load_job
from ffsd_ray.config.smoke import smoke
from ffsd_ray.errors import ClusterError
from ffsd_ray.records.run import RunRecords
from ffsd_ray.report.plots.style import INK, LOOK, MUTED, PAPER, check_picture, dress, write_picture
from ffsd_ray.terminal import Screen

#: The simulated nodes have neither GPUs nor images.
_HERE = ["data={name: digits}", "scale.gpus_per_worker=0"]
#: Seconds that idle nodes may take to go, beyond those that the autoscaler leaves them.
_PATIENCE = 180


class Timeline(NamedTuple):
    """Seconds since the command that submitted the job."""

    nodes: list[tuple[float, int]]
    """How many there were besides the head, once a second."""
    trials: dict[str, tuple[float, float]]
    """When each one's training began and its result was written."""

    @property
    def moments(self) -> dict[str, float]:
        first = min(begin for begin, _ in self.trials.values())
        last = max(end for _, end in self.trials.values())
        return {
            "submitted": 0.0,
            "first training step": first,
            "last trial done": last,
            "no node left": self.nodes[-1][0],
        }

    def figures(self) -> dict[str, float]:
        moments = self.moments
        return {
            "submit_to_first_node": next(at for at, count in self.nodes if count),
            "submit_to_first_step": moments["first training step"],
            "submit_to_last_result": moments["last trial done"],
            "last_result_to_no_node": moments["no node left"] - moments["last trial done"],
            "most_nodes": max(count for _, count in self.nodes),
            "node_seconds": sum((after - at) * count for (at, count), (after, _) in pairwise(self.nodes)),
            "trial_seconds": sum(end - begin for begin, end in self.trials.values()),
        }


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 all is well, 1 the job failed, 2 the cluster did not come up or an argument is wrong."""
    arguments = _parser().parse_args(argv)
    started_by = command_line("ffsd_ray.bench.autoscaling", argv)
    settings = [*_HERE, *arguments.set]
    plan = smoke(load_job(arguments.job, settings))
    picture = arguments.out / "autoscaling.png"
    check_picture(picture)
    record = Record(arguments.out / default_path(), "autoscaling", started_by, torch.device("cpu"))
    console = Screen()
    with simulated_cluster() as cluster:
        options = [part for setting in settings for part in ("--set", setting)]
        timeline = measure(cluster, plan, [str(arguments.job), "--smoke", *options])
    machine = record.content["machine"] | {"load_after": os.getloadavg()[0]}
    figures = {name: round(value, 1) for name, value in timeline.figures().items()}
    record.add(
        plan.job.name,
        {"machine": machine, **figures, "moments": timeline.moments, "nodes": timeline.nodes} | _trials(timeline),
    )
    title = f"{plan.job.name} on a simulated cluster of 0 to {_config()['max_workers']} nodes"
    draw(timeline.nodes, timeline.trials, timeline.moments, title, _caption(record, machine, figures), picture)
    for name, value in figures.items():
        console.print(f"{name.replace('_', ' ')}: {value:g}{'' if name == 'most_nodes' else ' s'}", highlight=False)
    console.print(f"Record: {record.path}\nPicture: {picture}", markup=False, highlight=False)
    return 0


def measure(cluster: SimulatedCluster, plan: Plan, arguments: Sequence[str]) -> Timeline:
    """Submit `python -m ffsd_ray.run` with these arguments, whose job is `plan`, and watch until no node is left.

    Raises:
        ClusterError: the job failed, or nodes stay.
    """
    runs = cluster.folder / "runs"
    entrypoint = [sys.executable, "-m", "ffsd_ray.run", *arguments, "--storage", str(runs)]
    with (cluster.folder / "job.log").open("w+") as log:
        began = time.time()
        nodes = [(0.0, 0)]
        job = cluster.submit(entrypoint, log)
        try:
            while job.poll() is None:
                nodes.append(_sample(cluster, began))
        finally:
            job.kill()
        if job.returncode:
            log.seek(0)
            raise ClusterError(f"the job failed:\n{log.read()[-3000:]}")
    until = time.monotonic() + 60 * _config()["idle_timeout_minutes"] + _PATIENCE
    while nodes[-1][1]:
        if time.monotonic() > until:
            raise ClusterError(f"{nodes[-1][1]} nodes are still there, long after the job")
        nodes.append(_sample(cluster, began))
    return Timeline(nodes, _trained(RunRecords.open(str(runs / plan.job.name)), plan, began))


def _sample(cluster: SimulatedCluster, began: float) -> tuple[float, int]:
    time.sleep(1)
    return round(time.time() - began, 2), cluster.nodes()


def _trained(run: RunRecords, plan: Plan, began: float) -> dict[str, tuple[float, float]]:
    """When a trial trained: its environment is written as training begins, its result last of all."""
    names = trial_labels(plan.trials, plan.job.report.rows)
    times = {}
    for identity, name in names.items():
        files = (Path(run.trial(identity).store.location) / file for file in ("environment.json", "result.json"))
        begin, end = (round(file.stat().st_mtime - began, 2) for file in files)
        times[name.rpartition(", seed")[0]] = begin, end
    return times


def _config() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    return config


def _trials(timeline: Timeline) -> dict[str, Any]:
    return {"trials": {name: {"began": begin, "ended": end} for name, (begin, end) in timeline.trials.items()}}


def _caption(record: Record, machine: Mapping[str, Any], figures: Mapping[str, float]) -> str:
    share = figures["trial_seconds"] / figures["node_seconds"]
    versions, date = record.content["versions"], record.content["date"]
    return (
        f"Nodes of one CPU, gone after {60 * _config()['idle_timeout_minutes']:.0f} s without work; on one machine of "
        f"{machine['cores']} cores and {machine['memory_gib']:g} GiB, load {machine['load']:.0f} before "
        f"and {machine['load_after']:.0f} after, Ray {versions['ray']}, {date[:10]}. Trials train in {share:.0%} of "
        "the nodes' time; the rest is starting and waiting."
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ffsd_ray.bench.autoscaling",
        description="Submit a job's smoke form to a simulated cluster that scales from nothing, and watch its nodes.",
    )
    default = Path("jobs", "fig6.yaml")
    parser.add_argument("job", nargs="?", type=Path, default=default, help=f"a job file (default: {default})")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key; repeatable")
    parser.add_argument(
        "--out", type=Path, default=Path(), metavar="FOLDER", help="for record and picture (default: .)"
    )
    return parser


#: Nodes, and trials: as leader and fusion in the other pictures, for the colour-blind.
_NODES, _TRIALS = "#0072B2", "#D55E00"


def draw(
    nodes: Sequence[tuple[float, int]],
    trials: Mapping[str, tuple[float, float]],
    moments: Mapping[str, float],
    title: str,
    caption: str,
    out: Path,
) -> None:
    """Nodes and trials under way against the time in seconds; below, from when to when each trial trained."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(8.4, 3.4 + 0.28 * len(trials)), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[6, max(len(trials), 3)])
        times, counts = zip(*nodes, strict=True)
        above.fill_between(times, counts, step="post", color=_NODES, alpha=0.18, linewidth=0)
        above.step(times, counts, where="post", color=_NODES, label="nodes")
        changes = sorted([(begin, 1) for begin, _ in trials.values()] + [(end, -1) for _, end in trials.values()])
        at = [changes[0][0], *(time for time, _ in changes)]
        under_way = [sum(step for _, step in changes[:done]) for done in range(len(at))]
        above.step(at, under_way, where="post", color=_TRIALS, linestyle="--", label="trials in training")
        above.set_ylabel("Number")
        above.yaxis.set_major_locator(MaxNLocator(integer=True))
        above.set_ylim(0, max(*counts, *under_way) + 0.35)
        for row, (begin, end) in enumerate(trials.values()):
            below.barh(row, end - begin, left=begin, height=0.62, color=_TRIALS)
            below.annotate(
                f"{end - begin:.0f} s",
                (end, row),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8.5,
                bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.8},
            )
        below.set_yticks(range(len(trials)), list(trials))
        below.set_ylim(len(trials) - 0.4, -0.6)
        below.tick_params(axis="y", length=0)
        below.grid(axis="x")
        below.grid(visible=False, axis="y")
        below.set_xlabel("Seconds since the job was submitted")
        below.set_xlim(0, times[-1] * 1.02)
        below.legend(*above.get_legend_handles_labels(), loc="lower left")  # the last rows begin late
        for name, moment in moments.items():
            for axes in (above, below):
                axes.axvline(moment, color=MUTED, linestyle=":", linewidth=1.2)
            above.annotate(
                f"{name}\n{moment:.0f} s",
                (moment, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 4),
                textcoords="offset points",
                ha="right" if moment else "left",
                fontsize=8.5,
                color=INK,
            )
        dress(figure, title, [caption])
        write_picture(figure, out)


if __name__ == "__main__":
    sys.exit(main())
