"""Plain data whose every part knows where it was said, and how parts are put into it."""

from dataclasses import dataclass, replace
from typing import Any

from ffsd_ray.config.source.problems import Place
from ffsd_ray.config.trial import KINDS


@dataclass(frozen=True)
class LocatedValue:
    """`value`: text, number, boolean or None; a list of nodes; a dict of nodes by key. Never changed in place.

    `at` is where the value stands, `key_at` where its key does (for an item of a list, and for the whole: as `at`).
    """

    value: Any
    at: Place
    key_at: Place

    def get(self, *path: str | int) -> "LocatedValue | None":
        """The node at a path below this one, None where there is none."""
        node = self
        for step in path:
            below = dict(enumerate(node.value)) if isinstance(node.value, list) else node.value
            if not isinstance(below, dict) or step not in below:
                return None
            node = below[step]
        return node

    def plain(self) -> Any:
        """The data alone."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


def from_plain(value: Any, place: Place) -> LocatedValue:
    """Plain data as a node, all of it said at one place."""
    located: Any = value
    if isinstance(value, dict):
        located = {key: from_plain(below, place) for key, below in value.items()}
    elif isinstance(value, list):
        located = [from_plain(below, place) for below in value]
    return LocatedValue(located, place, place)


def same(one: Any, other: Any) -> bool:
    """Whether two plain values are equal as YAML: true is not 1, but 1 is 1.0; a tuple is a list."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def put(tree: LocatedValue, path: tuple[str, ...], new: LocatedValue) -> LocatedValue:
    """`tree` with `new` at `path`; sections on the way are made where they are missing or null.

    Putting another kind into a section's `name` (another method, say) keeps those keys of the section that the new kind
    has too, and those that neither has (so that a slip is still reported): `method.name=dml` on an ffsd section keeps
    students and temperature, and drops the λs. Where there is no section but something else, `tree` is returned as is.
    """
    head, *rest = path
    if not rest:
        return replace(tree, value=tree.value | {head: new})
    section = tree.get(head)
    if section is None or section.value is None:
        section = LocatedValue({}, new.at, new.key_at)
    if not isinstance(section.value, dict):
        return tree
    if rest == ["name"] and head in KINDS:
        section = _without_old_kind(section, head, new.value)
    below = put(section, tuple(rest), new)
    return tree if below is section else replace(tree, value=tree.value | {head: below})


def merge(tree: LocatedValue, section: str, new: LocatedValue) -> LocatedValue:
    """`tree` with the keys of `new` in `section`; with another `name` in it, `new` takes the section's place."""
    old = tree.get(section)
    if old is not None and isinstance(old.value, dict) and isinstance(new.value, dict):
        old_name, new_name = old.get("name"), new.get("name")
        if new_name is None or (old_name is not None and old_name.value == new_name.value):
            new = replace(new, value=old.value | new.value)
    return put(tree, (section,), new)


def _without_old_kind(section: LocatedValue, name: str, kind: Any) -> LocatedValue:
    old = section.get("name")
    known = [KINDS[name].get(value) if isinstance(value, str) else None for value in (old and old.value, kind)]
    if known[0] is None or known[1] is None:
        return section
    dropped = known[0].model_fields.keys() - known[1].model_fields.keys()
    return replace(section, value={key: node for key, node in section.value.items() if key not in dropped})
