"""Measurements as tables for the terminal, made from what the record holds."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

_GIGA, _MEGA = 1e9, 2**20


def step_table(title: str, figures: Mapping[str, Any]) -> Table:
    """A training step of each setting of `compare`'s figures."""
    table = _table(
        f"{title}: a training step", "ms", "quartiles", "images/s", "× literal", "MiB", "GFLOP/s", "of ceiling"
    )
    for label, setting in figures["settings"].items():
        if "error" in setting:
            table.add_row(label, f"failed: {setting['error'][:200]}")
            continue
        low, high = (1e3 * bound for bound in setting["step"]["quartiles"])
        table.add_row(
            label,
            f"{1e3 * setting['step']['median']:.4g}",
            f"{low:.4g} to {high:.4g}",
            f"{setting['images_per_second']:.0f}",
            _ratio(setting.get("times_literal")),
            "" if setting["peak_bytes"] is None else f"{setting['peak_bytes'] / _MEGA:.0f}",
            f"{setting['flops_per_second'] / _GIGA:.4g}",
            f"{setting['share_of_ceiling']:.0%}",
        )
    return table


def baseline_table(title: str, figures: Mapping[str, Any]) -> Table:
    """A step of each setting beside its baseline's, and what it trains; `÷ members`: of as many baselines."""
    table = _table(
        f"{title}: beside the baseline", "ms", "× baseline", "÷ members", "images/s", "peak MiB", "parameters trained"
    )
    for label, setting in figures["settings"].items():
        if "step" in setting and not setting["literal"]:
            table.add_row(
                label,
                f"{1e3 * setting['step']['median']:.4g}",
                _ratio(setting.get("times_baseline")),
                _ratio(setting.get("times_members")),
                f"{setting['images_per_second']:.0f}",
                "" if setting["peak_bytes"] is None else f"{setting['peak_bytes'] / _MEGA:.0f}",
                f"{setting['parameters']:,}",
            )
    return table


def epoch_table(title: str, figures: Mapping[str, Any]) -> Table:
    """An epoch and an evaluation of each setting, the whole of them as far as timed."""
    table = _table(f"{title}: an epoch, evaluation apart", "s", "steps timed", "× literal", "evaluation s")
    for label, setting in figures["settings"].items():
        if "epoch" in setting:
            epoch = setting["epoch"]
            table.add_row(
                label,
                f"{epoch['median']:.4g}",
                f"{epoch['steps_timed']} of {epoch['steps']}",
                _ratio(setting.get("times_literal_epoch")),
                f"{setting['evaluation']['median']:.4g}" if "evaluation" in setting else "",
            )
    return table


def merge_settings(points: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of several points of a suite as one, each reference under its point's name."""
    settings: dict[str, Any] = {}
    for name, figures in points.items():
        for label, setting in figures.get("settings", {}).items():
            settings[f"literal, {name}" if setting["literal"] else label] = setting
    return {"settings": settings}


def remarks(figures: Mapping[str, Any]) -> list[str]:
    """Lines below a table: the fitted line, the device's ceiling, the speed that it would allow, and waiting times."""
    if "fit" in figures:
        line = figures["fit"]
        return [
            f"a step for n students: {1e3 * line['a']:.4g} ms + {1e3 * line['b']:.4g} ms × (n + 1); "
            f"R² {line['r_squared']:.4f}, largest deviation {line['largest_deviation']:.1%}."
        ]
    if "ceiling" not in figures:
        return []
    lines = []
    ceiling = figures["ceiling"]
    rates = [f"{name} {rate / _GIGA:.4g} GFLOP/s" for name, rate in ceiling.items() if name != "copy"]
    lines.append(f"ceiling: matrix products {', '.join(rates)}; copying {ceiling['copy'] / _GIGA:.4g} GB/s.")
    settings = {label: setting for label, setting in figures["settings"].items() if "step" in setting}
    literal = next((setting["step"]["median"] for setting in settings.values() if setting["literal"]), None)
    reported = set()
    for setting in settings.values():
        precision, floor = setting["spec"]["train"]["precision"], setting["floor"]
        compute, memory = floor["compute"], floor["memory"]
        comparable = not setting["literal"] and (literal is None or "times_literal" in setting)
        if comparable and (precision, compute) not in reported:
            reported.add((precision, compute))
            most = f": at most {literal / compute:.3g} × the literal's speed" if literal is not None else ""
            lines.append(
                f"floor of a step in {precision}: {1e3 * compute:.3g} ms at the ceiling of products{most}; "
                f"{1e3 * memory:.3g} ms at that of copying, were every pass to go to memory."
            )
    for label, setting in settings.items():
        if "loader" in setting:
            loader, waits = setting["loader"], "waits" if setting["loader"]["waits"] else "does not wait"
            lines.append(
                f"{label}: the step {waits} for its loader ({loader['share_waiting']:.0%} of the epoch); "
                f"{loader['processes']} processes alone decode {loader['images_per_second']:.0f} images/s, "
                f"the step alone takes {setting['images_per_second']:.0f}."
            )
        if setting.get("kernels"):
            lines.append(
                f"{label}: {setting['kernels']} kernels a step"
                f"{', captured as a graph' if setting.get('captured') else ''}; "
                f"the memory floor is {setting['share_of_memory_floor']:.0%} of the step."
            )
    return lines


def other_table(title: str, figures: Mapping[str, Any]) -> Table:
    """A step by number of students or of workers."""
    table = _table(f"{title}: a training step", "ms", "quartiles")
    rows = figures.get("students") or {name: setting["step"] for name, setting in figures["workers"].items()}
    for name, step in rows.items():
        low, high = (1e3 * bound for bound in step["quartiles"])
        table.add_row(name, f"{1e3 * step['median']:.4g}", f"{low:.4g} to {high:.4g}")
    return table


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title)
    table.add_column("")
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
