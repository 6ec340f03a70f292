"""Tables of benchmarks' records for this folder's README, in Markdown, each behind what was measured and where."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from ffsd_ray.bench.compare import best
from ffsd_ray.bench.launch import rows as launch_rows
from ffsd_ray.bench.suites import cpu_summary


def _operations(content: Mapping[str, Any]) -> str:
    points = content["points"]
    counted = list(points.values())
    rows: dict[str, list[list[int]]] = {
        part: [point["parts"][part] for point in counted] for part in counted[0]["parts"]
    }
    rows["together"] = [[sum(of) for of in zip(*point["parts"].values(), strict=True)] for point in counted]
    rows |= {f"`{kind}`": [point["kinds"].get(kind, []) for point in counted] for kind in counted[0]["kinds"]}
    table = _table(
        ["", *points],
        [[name, *(f"{of[0]:,}, {of[1] / 1e9:.2f} GB" if of else "fewer" for of in row)] for name, row in rows.items()],
    )
    return f"operations, and what they read and write; {_when(content)}.\n\n{table}"


def _cpu_suite(content: Mapping[str, Any]) -> str:
    settings = [setting for point in content["points"].values() for setting in point.get("settings", {}).values()]
    literal = next(setting["step"]["median"] for setting in settings if setting["literal"])
    compiled = [setting for setting in settings if setting["spec"]["train"]["execution"] == "compiled"]
    plain = [setting for setting in settings if setting not in compiled]
    fastest = _by_precision(plain)
    rows = {"a step": fastest, "a step, `execution: compiled`": _by_precision(compiled)}
    table = _table(
        ["", *fastest],
        [
            *(
                [name, *(_step(measured.get(precision)) for precision in fastest)]
                for name, measured in rows.items()
                if measured
            ),
            ["peak memory", *(f"{setting['memory_of_literal']:.2f} × the reference's" for setting in fastest.values())],
            [
                "at most possible, were every operation as fast as a matrix product",
                *(f"{literal / setting['floor']['compute']:.2f} ×" for setting in fastest.values()),
            ],
        ],
    )
    others = [
        f"{figure.name}: {figure.value:.3g}{figure.unit}"
        for figure in cpu_summary(content["points"])[-2:]
        if figure.value is not None
    ]
    batch = settings[0]["spec"]["train"]["batch_size"]
    return (
        f"FFSD with two students, ResNet-32, batch {batch}, 32 px, {_when(content)}. The reference is Algorithm 1 "
        f"taken literally, as the authors' code computes it: {1e3 * literal:,.0f} ms a step.\n\n{table}\n\n"
        f"Besides: {'; '.join(others)}."
    )


def _gpu_suite(content: Mapping[str, Any]) -> str:
    timed = [
        (label, setting)
        for point in content["points"].values()
        for label, setting in point.get("settings", {}).items()
        if "step" in setting
    ]
    literal = [1e3 * setting["step"]["median"] for _, setting in timed if setting["literal"]]
    table = _table(
        [
            "", "a step, ms", "× the reference's speed", "images/s", "an epoch, s", "× its memory", "kernels",
            "memory floor's share",
        ],
        [
            [
                label,
                _cell(1e3 * setting["step"]["median"], ".1f"),
                _cell(setting.get("times_literal"), ".1f"),
                _cell(setting["images_per_second"], ",.0f"),
                _cell(setting.get("epoch", {}).get("median"), ".1f"),
                _cell(setting.get("memory_of_literal"), ".2f"),
                _cell(setting.get("kernels"), ",d"),
                _cell(setting["share_of_memory_floor"], ".0%"),
            ]
            for label, setting in timed
            if not setting["literal"]
        ],
    )  # fmt: skip
    reference = f"{min(literal):.0f} to {max(literal):.0f} ms a step" if literal else "not timed"
    return (
        f"FFSD, batch 128, 32 px, epochs of 50,000 images without evaluation, {_when(content)}. The reference is "
        f"Algorithm 1 taken literally, in float32: {reference}, measured beside each.\n\n{table}"
    )


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _by_precision(settings: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The fastest setting of each precision; of those that have any."""
    found = {precision: best(settings, precision=precision) for precision in ("fp32", "bf16")}
    return {precision: setting for precision, setting in found.items() if setting is not None}


def _step(setting: Mapping[str, Any] | None) -> str:
    if setting is None:
        return ""
    return f"{1e3 * setting['step']['median']:,.0f} ms, {setting['times_literal']:.2f} × the reference's speed"


def _driver(content: Mapping[str, Any]) -> str:
    done = {name: point for name, point in content["points"].items() if "records" in point}
    planned = {name: point for name, point in content["points"].items() if "dry_run" in point}

    def ended(point: Mapping[str, Any], key: str) -> str:
        return ", ".join(f"{sample[key]:,.0f}" for sample in point["ended"].values())

    whole = [
        ["until the first trial starts, s", *(f"{point['first_trial']['seconds']:.0f}" for point in done.values())],
        ["driver's CPU until then, s", *(f"{point['first_trial']['cpu_seconds']:.1f}" for point in done.values())],
        ["driver's CPU a trial, ms", *(f"{1e3 * point['cpu_seconds_a_trial']:.0f}" for point in done.values())],
        ["a trial, s", *(f"{point['seconds_a_trial']:.2f}" for point in done.values())],
        ["trials ended", *(", ".join(f"{int(count):,}" for count in point["ended"]) for point in done.values())],
        ["driver's CPU by then, s", *(ended(point, "cpu_seconds") for point in done.values())],
        ["driver's memory then, MiB", *(ended(point, "resident_mib") for point in done.values())],
        ["records, files", *(f"{point['records']['files']:,}" for point in done.values())],
        ["records, MB", *(f"{point['records']['bytes'] / 1e6:,.0f}" for point in done.values())],
        ["`ffsd report`, s (CPU s)", *(_seconds(point["report"]) for point in done.values())],
        ["`ffsd report --html`, s (CPU s)", *(_seconds(point["page"]) for point in done.values())],
        ["page, MB", *(f"{point['page']['bytes'] / 1e6:.1f}" for point in done.values())],
    ]
    begun = [
        ["`--dry-run`, s (CPU s)", *(_seconds(point["dry_run"]) for point in planned.values())],
        ["its memory, MiB", *(f"{point['dry_run']['peak_mib']:,.0f}" for point in planned.values())],
        ["until the first trial starts, s (CPU s)", *(_seconds(point["first_trial"]) for point in planned.values())],
        ["driver's CPU a trial, ms", *(f"{1e3 * point['cpu_seconds_a_trial']:.0f}" for point in planned.values())],
        ["driver's memory, MiB", *(ended(point, "peak_mib") for point in planned.values())],
    ]
    parts = [_table(["trials", *(f"{point['trials']:,}" for point in done.values())], whole)]
    if planned:
        heads = [f"{point['trials']:,}" for point in planned.values()]
        parts += ["Planned, and interrupted when the first few trials had ended:", _table(["trials", *heads], begun)]
    return f"ResNet-8, digits at 8 × 8, two steps a trial, {_when(content)}.\n\n" + "\n\n".join(parts)


def _launch(content: Mapping[str, Any]) -> str:
    heading, lines = launch_rows(content["points"])
    return (
        f"seconds of a whole run by the number of its trials, two steps each, Ray started and stopped each time; "
        f"ResNet-20, digits at 8 × 8, {_when(content)}.\n\n{_table(heading, lines)}"
    )


def _seconds(figures: Mapping[str, float]) -> str:
    return f"{figures['seconds']:.1f} ({figures['cpu_seconds']:.1f})"


#: By the kind of a record, in a file's name.
TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "operations": _operations,
    "cpu-suite": _cpu_suite,
    "gpu-suite": _gpu_suite,
    "driver": _driver,
    "launch": _launch,
}


def _when(content: Mapping[str, Any]) -> str:
    """The machine, what ran on it, and the day."""
    machine, versions, date = content["machine"], content["versions"], datetime.fromisoformat(content["date"])
    gpu = [content["device"]["name"]] if content["device"].get("type") == "cuda" else []
    parts = [
        *gpu,
        f"{content['device']['threads']} threads on {machine['cores']} cores ({machine['processor']}, "
        f"{machine['memory_gib']:g} GiB, load {machine['load']:.1f} before)",
        *(f"{name} {versions[key]}" for name, key in (("torch", "torch"), ("Ray", "ray")) if key in versions),
        f"{date.day} {date:%B %Y}",
    ]
    return ", ".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
