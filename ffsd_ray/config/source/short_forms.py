"""Short forms of job files: a section's name in place of the section, as in `method: ffsd`."""

from collections.abc import Callable
from dataclasses import replace

from ffsd_ray.config.source.located import LocatedValue

#: Sections of trials that have a name.
_OF_TRIALS = {"data", "backbone", "method"}
_OF_SEARCH = {"scheduler", "searcher"}


def spelled_out(job: LocatedValue) -> LocatedValue:
    """The job with every section that is given by its name alone written as a section, wherever it may stand."""
    job = _in_values(job, _OF_TRIALS, _section)

    def search(node: LocatedValue) -> LocatedValue:
        node = _in_values(node, _OF_SEARCH, _section)
        node = _in_values(node, {"grid", "sweep", "random"}, lambda axes: _in_values(axes, _OF_TRIALS, _values))
        node = _in_values(node, {"variants"}, lambda variants: _in_values(variants, None, _of_a_trial))
        return _in_values(node, {"also"}, lambda also: _in_items(also, _of_a_trial))

    return _in_values(job, {"search"}, search)


def _section(node: LocatedValue) -> LocatedValue:
    return replace(node, value={"name": node}) if isinstance(node.value, str) else node


def _of_a_trial(changes: LocatedValue) -> LocatedValue:
    return _in_values(changes, _OF_TRIALS, _section)


def _values(node: LocatedValue) -> LocatedValue:
    """The values of an axis, or what they are drawn from."""
    return _in_values(_in_items(node, _section), {"choice"}, lambda choice: _in_items(choice, _section))


def _in_items(node: LocatedValue, change: Callable[[LocatedValue], LocatedValue]) -> LocatedValue:
    """A list with its items changed; anything else as it is."""
    return replace(node, value=[change(item) for item in node.value]) if isinstance(node.value, list) else node


def _in_values(
    node: LocatedValue, keys: set[str] | None, change: Callable[[LocatedValue], LocatedValue]
) -> LocatedValue:
    """A section with the values of `keys` (None: of all) changed; anything else as it is."""
    if not isinstance(node.value, dict):
        return node
    changed = {key: change(below) if keys is None or key in keys else below for key, below in node.value.items()}
    return replace(node, value=changed)
