"""A picture of what `ffsd_ray.bench.terms` measures: gradient norms over the steps, a panel a trial and member."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ffsd_ray.bench.terms import Pull

#: A colour a term, the same in every panel (Okabe and Ito).
_COLOURS = {
    "ce": "#000000",
    "kl": "#0072B2",
    "mutual_kl": "#0072B2",
    "fused_map": "#D55E00",
    "decoded_map": "#E69F00",
    "self_distillation": "#CC79A7",
    "diversity_last": "#009E73",
    "diversity_earlier": "#56B4E9",
}


def draw(pulls: Sequence["Pull"]) -> "Figure":
    """Rows: members; columns: trials. The axis is logarithmic: terms differ by many orders of magnitude."""
    from matplotlib.figure import Figure

    trials = list(dict.fromkeys(pull.trial for pull in pulls))
    members = sorted({pull.member for pull in pulls})
    figure = Figure(figsize=(1.8 + 4.2 * len(trials), 1 + 2.6 * len(members)), layout="constrained")
    grid = figure.subplots(len(members), len(trials), sharex=True, sharey=True, squeeze=False)
    for row, member in zip(grid, members, strict=True):
        for axes, trial in zip(row, trials, strict=True):
            own = [pull for pull in pulls if pull.trial == trial and pull.member == member]
            for term in dict.fromkeys(pull.term for pull in own):
                points = [(pull.step, pull.gradient) for pull in own if pull.term == term and pull.gradient > 0]
                if points:
                    colour = _COLOURS.get(term, "#999999")
                    axes.plot(*zip(*points, strict=True), label=term, color=colour, linewidth=1.6)
            axes.set_yscale("log")
            axes.set_title(f"{trial}: {member}", fontsize=10, loc="left")
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="y", color="#e6e6e6")
        row[0].set_ylabel("gradient norm")
        legends = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in row]
        handles = {label: handle for legend in legends for handle, label in legend}
        row[-1].legend(handles.values(), handles.keys(), loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    for axes in grid[-1]:
        axes.set_xlabel("step")
    return figure
