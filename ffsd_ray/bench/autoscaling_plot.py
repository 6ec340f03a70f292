"""The picture of `ffsd_ray.bench.autoscaling`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ffsd_ray.report.look import INK, LOOK, MUTED, PAPER, dress
from ffsd_ray.report.picture import write_picture

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
