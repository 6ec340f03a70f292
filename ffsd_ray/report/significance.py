"""Rows beside one of them: differences paired over seeds, and what chance alone makes of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import isclose

from ffsd_ray.errors import RecordsError
from ffsd_ray.report.filters import split_conditions, where
from ffsd_ray.report.results import Epoch
from ffsd_ray.report.tables.groups import Group
from ffsd_ray.report.tables.rows import Cell, Difference, Row
from ffsd_ray.report.tables.text import PLUS_MINUS, Notes

#: Of a difference's interval.
CONFIDENCE = 0.95
#: The difference in points, and the chance of finding it, that seeds are counted for.
SMALL_DIFFERENCE, POWER = 0.5, 0.8

#: The columns of a table that compares.
COMPARED = ("Δ", f"{CONFIDENCE:.0%} interval", "p", "p (Holm)", "Pairs", f"Seeds for {SMALL_DIFFERENCE}")


def reference_of(shown: Sequence[Group], everything: Callable[[], Sequence[Group]], conditions: str) -> Group:
    """The group of the table, else of the whole run, that meets `key=value,...`.

    Raises:
        JobError: see `where`.
        RecordsError: no group does, or several do.
    """
    met: list[Group] = []
    for groups in (shown, everything()) if conditions else ():
        met = [group for group in groups if _meets(group, conditions)]
        if met:
            break
    if not met:
        where(
            [trial.spec for group in everything() for trial in group.trials], split_conditions(conditions), "--against"
        )
        raise RecordsError(f"--against {conditions}: no row has this in all its trials")
    if len(met) > 1:
        names = "; ".join(group.name for group in met)
        raise RecordsError(f"--against {conditions}: {len(met)} rows meet this; say what tells them apart: {names}")
    return met[0]


def _meets(group: Group, conditions: str) -> bool:
    specs = [trial.spec for trial in group.trials]
    try:
        return len(where(specs, split_conditions(conditions), "--against")) == len(specs)
    except RecordsError:
        return False


def compared(rows: Sequence[Row], references: Mapping[Epoch, Row], notes: Notes) -> list[Row]:
    """The rows with their differences from the reference of their epoch."""
    found = [_compared(row, references[row.epoch], notes) for row in rows]
    for epoch in references:
        ps = {
            index: row.difference.p
            for index, row in enumerate(found)
            if row.epoch == epoch and row.difference is not None and row.difference.p is not None
        }
        for index, corrected in zip(ps, holm([*ps.values()]), strict=True):
            row = found[index]
            assert row.difference is not None
            found[index] = replace(row, difference=row.difference._replace(p_corrected=corrected))
    return found


def _compared(row: Row, reference: Row, notes: Notes) -> Row:
    """`row` with its difference from `reference`: a pair a seed that both have, by their primary accuracies.

    What chance makes of it takes two pairs or more, with differences that are not all the same; where there is no p
    value, a note says why.
    """
    if row.configuration == reference.configuration and row.spec == reference.spec:
        return replace(row, difference=Difference(None, len(set(row.seeds))))
    by_seed, others = ((one.primary.by_seed if one.primary else {}) for one in (row, reference))
    differences = [by_seed[seed] - others[seed] for seed in by_seed if seed in others]
    found = Difference(Cell.of(differences) if differences else None, len(differences))
    if len(differences) < 2:
        common = f"{len(differences) or 'no'} seed in common with {reference.configuration}"
        why = f"no p value: {common}, and it takes 2 or more"
    elif all(isclose(difference, differences[0], abs_tol=1e-9) for difference in differences):
        why = "no p value: the differences are the same for every seed"
    else:
        return replace(row, difference=_tested(found))
    return replace(row, difference=found, notes=row.notes | {"p": (notes.number(why),)})


def _tested(found: Difference) -> Difference:
    assert found.cell is not None
    assert found.cell.std is not None
    p, interval = paired_test(found.cell, found.pairs)
    return found._replace(p=p, interval=interval, seeds_needed=seeds_needed(found.cell.std))


def paired_test(differences: Cell, pairs: int) -> tuple[float, tuple[float, float]]:
    """Student's t-test of paired differences, given by their mean and deviation: two-sided p, and their interval.

    `pairs`: how many there are, two or more, not all the same.
    """
    from scipy.stats import t  # takes a second

    assert differences.std is not None
    error = differences.std / pairs**0.5
    low, high = t.interval(CONFIDENCE, pairs - 1, differences.mean, error)
    return float(2 * t.sf(abs(differences.mean) / error, pairs - 1)), (float(low), float(high))


def holm(ps: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm, 1979): the chance of any false finding among all of them."""
    corrected, at_least = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        at_least = max(at_least, min(1.0, (len(ps) - rank) * ps[index]))
        corrected[index] = at_least
    return corrected


def seeds_needed(std: float) -> int | None:
    """The fewest seeds with which a paired t-test at 5 % finds `SMALL_DIFFERENCE` with a chance of `POWER`.

    `std`: of the differences seed by seed. None: more than a thousand.
    """
    import numpy as np
    from scipy.stats import nct, t

    seeds = np.arange(2, 1001)
    critical = t.ppf((1 + CONFIDENCE) / 2, seeds - 1)
    power = nct.sf(critical, seeds - 1, SMALL_DIFFERENCE / std * np.sqrt(seeds))
    enough = seeds[power >= POWER]
    return int(enough[0]) if len(enough) else None


def comparison_texts(row: Row) -> tuple[str, ...]:
    """Texts for the columns of `COMPARED`."""
    assert row.difference is not None
    cell, pairs, p, p_corrected, interval, seeds = row.difference
    if cell is None:
        return ("" if "p" in row.notes else "reference"), *[""] * (len(COMPARED) - 1)
    std = "" if cell.std is None else f"{PLUS_MINUS}{cell.std:.2f}"
    bounds = "" if interval is None else f"{interval[0]:+.2f} to {interval[1]:+.2f}"
    needed = "" if p is None else "> 1000" if seeds is None else str(seeds)
    return f"{cell.mean:+.2f}{std}", bounds, _p_text(p), _p_text(p_corrected), str(pairs), needed


def _p_text(p: float | None) -> str:
    return "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def comparison_caption(rows: Sequence[Row], reference: Row) -> str:
    heads = dict.fromkeys(row.primary_column for row in rows if row.primary_column)
    return (
        f"Δ: {' or '.join(heads)} minus {reference.primary_column or 'the same'} of {reference.configuration}, "
        f"paired over seeds; {CONFIDENCE:.0%} interval and p: paired t-test, two-sided; p (Holm): corrected for the "
        f"number of comparisons; seeds for {SMALL_DIFFERENCE}: with which a difference of {SMALL_DIFFERENCE} points "
        f"would be found at p < 0.05 with a chance of {POWER:.0%}, its spread being this row's"
    )
