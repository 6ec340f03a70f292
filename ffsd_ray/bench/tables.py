"""Measurements as tables for the terminal, made from what the record holds."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

_GIGA, _MEGA = 1e9, 2**20


def step_table(title: str, found: Mapping[str, Any]) -> Table:
    """A training step of each setting of `compare`'s figures."""
    table = _table(
        f"{title}: a training step", "ms", "quartiles", "images/s", "× literal", "MiB", "GFLOP/s", "of ceiling"
    )
    for label, own in found["settings"].items():
        if "error" in own:
            table.add_row(label, f"failed: {own['error'][:200]}")
            continue
        low, high = (1e3 * bound for bound in own["step"]["quartiles"])
        table.add_row(
            label,
            f"{1e3 * own['step']['median']:.4g}",
            f"{low:.4g} to {high:.4g}",
            f"{own['images_per_second']:.0f}",
            _ratio(own.get("times_literal")),
            "" if own["peak_bytes"] is None else f"{own['peak_bytes'] / _MEGA:.0f}",
            f"{own['flops_per_second'] / _GIGA:.4g}",
            f"{own['share_of_ceiling']:.0%}",
        )
    return table


def baseline_table(title: str, found: Mapping[str, Any]) -> Table:
    """A step of each setting beside its baseline's, and what it trains; `÷ members`: of as many baselines."""
    table = _table(
        f"{title}: beside the baseline", "ms", "× baseline", "÷ members", "images/s", "peak MiB", "parameters trained"
    )
    for label, own in found["settings"].items():
        if "step" in own and not own["literal"]:
            table.add_row(
                label,
                f"{1e3 * own['step']['median']:.4g}",
                _ratio(own.get("times_baseline")),
                _ratio(own.get("times_members")),
                f"{own['images_per_second']:.0f}",
                "" if own["peak_bytes"] is None else f"{own['peak_bytes'] / _MEGA:.0f}",
                f"{own['parameters']:,}",
            )
    return table


def epoch_table(title: str, found: Mapping[str, Any]) -> Table:
    """An epoch and an evaluation of each setting, the whole of them as far as timed."""
    table = _table(f"{title}: an epoch, evaluation apart", "s", "steps timed", "× literal", "evaluation s")
    for label, own in found["settings"].items():
        if "epoch" in own:
            epoch = own["epoch"]
            table.add_row(
                label,
                f"{epoch['median']:.4g}",
                f"{epoch['steps_timed']} of {epoch['steps']}",
                _ratio(own.get("times_literal_epoch")),
                f"{own['evaluation']['median']:.4g}" if "evaluation" in own else "",
            )
    return table


def together(points: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of several points of a suite as one, each reference under its point's name."""
    settings: dict[str, Any] = {}
    for name, found in points.items():
        for label, own in found.get("settings", {}).items():
            settings[f"literal, {name}" if own["literal"] else label] = own
    return {"settings": settings}


def remarks(found: Mapping[str, Any]) -> list[str]:
    """Lines below a table: the fitted line, the device's ceiling, the speed that it would allow, and waiting times."""
    if "fit" in found:
        line = found["fit"]
        return [
            f"a step for n students: {1e3 * line['a']:.4g} ms + {1e3 * line['b']:.4g} ms × (n + 1); "
            f"R² {line['r_squared']:.4f}, largest deviation {line['largest_deviation']:.1%}."
        ]
    if "ceiling" not in found:
        return []
    lines = []
    ceiling = found["ceiling"]
    rates = [f"{name} {rate / _GIGA:.4g} GFLOP/s" for name, rate in ceiling.items() if name != "copy"]
    lines.append(f"ceiling: matrix products {', '.join(rates)}; copying {ceiling['copy'] / _GIGA:.4g} GB/s.")
    settings = {label: own for label, own in found["settings"].items() if "step" in own}
    literal = next((own["step"]["median"] for own in settings.values() if own["literal"]), None)
    seen = set()
    for own in settings.values():
        precision, floor = own["spec"]["train"]["precision"], own["floor"]
        compute, memory = floor["compute"], floor["memory"]
        comparable = not own["literal"] and (literal is None or "times_literal" in own)
        if comparable and (precision, compute) not in seen:
            seen.add((precision, compute))
            most = f": at most {literal / compute:.3g} × the literal's speed" if literal is not None else ""
            lines.append(
                f"floor of a step in {precision}: {1e3 * compute:.3g} ms at the ceiling of products{most}; "
                f"{1e3 * memory:.3g} ms at that of copying, were every pass to go to memory."
            )
    for label, own in settings.items():
        if "loader" in own:
            loader, waits = own["loader"], "waits" if own["loader"]["waits"] else "does not wait"
            lines.append(
                f"{label}: the step {waits} for its loader ({loader['share_waiting']:.0%} of the epoch); "
                f"{loader['processes']} processes alone decode {loader['images_per_second']:.0f} images/s, "
                f"the step alone takes {own['images_per_second']:.0f}."
            )
        if own.get("kernels"):
            lines.append(
                f"{label}: {own['kernels']} kernels a step{', captured as a graph' if own.get('captured') else ''}; "
                f"the memory floor is {own['share_of_memory_floor']:.0%} of the step."
            )
    return lines


def other_table(title: str, found: Mapping[str, Any]) -> Table:
    """A step by number of students or of workers."""
    table = _table(f"{title}: a training step", "ms", "quartiles")
    rows = found.get("students") or {name: own["step"] for name, own in found["workers"].items()}
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
