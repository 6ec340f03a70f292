"""Rows beside one of them: differences paired over seeds, and how likely chance alone makes them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isclose

from ffsd_ray.errors import RecordsError
from ffsd_ray.report.filters import split_conditions, where
from ffsd_ray.report.tables.groups import Group
from ffsd_ray.report.tables.rows import Cell, Difference, Row
from ffsd_ray.report.tables.text import PLUS_MINUS, Notes

#: The columns of a table that compares.
COMPARED = ("Δ", "p", "Pairs")


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


def compared(row: Row, reference: Row, notes: Notes) -> Row:
    """`row` with its difference from `reference`: a pair a seed that both have, by their primary accuracies.

    A p value (Student's paired t-test, two-sided) takes two pairs or more, with differences that are not all the same;
    where there is none, a note says why.
    """
    if row.configuration == reference.configuration and row.spec == reference.spec:
        return replace(row, difference=Difference(None, len(set(row.seeds)), None))
    by_seed, others = ((one.primary.by_seed if one.primary else {}) for one in (row, reference))
    seeds = [seed for seed in by_seed if seed in others]
    ours, theirs = [by_seed[seed] for seed in seeds], [others[seed] for seed in seeds]
    differences = [after - before for before, after in zip(theirs, ours, strict=True)]
    p, why = None, ""
    if len(seeds) < 2:
        why = f"no p value: {len(seeds) or 'no'} seed in common with {reference.configuration}, and it takes 2 or more"
    elif all(isclose(difference, differences[0], abs_tol=1e-9) for difference in differences):
        why = "no p value: the differences are the same for every seed"
    else:
        from scipy.stats import ttest_rel  # takes a second

        p = float(ttest_rel(ours, theirs).pvalue)
    marks = row.notes | ({"p": (notes.number(why),)} if why else {})
    found = Difference(Cell.of(differences) if seeds else None, len(seeds), p)
    return replace(row, difference=found, notes=marks)


def comparison_texts(row: Row) -> tuple[str, str, str]:
    """Texts for the columns of `COMPARED`."""
    assert row.difference is not None
    cell, pairs, p = row.difference
    if cell is None:
        return ("" if "p" in row.notes else "reference"), "", ""
    std = "" if cell.std is None else f"{PLUS_MINUS}{cell.std:.2f}"
    value = "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"
    return f"{cell.mean:+.2f}{std}", value, str(pairs)


def comparison_caption(rows: Sequence[Row], reference: Row) -> str:
    heads = dict.fromkeys(row.primary_column for row in rows if row.primary_column)
    return (
        f"Δ: {' or '.join(heads)} minus {reference.primary_column or 'the same'} of {reference.configuration}, "
        "paired over seeds; p: paired t-test, two-sided, not corrected for the number of comparisons"
    )
