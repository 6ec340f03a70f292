"""YAML with the place of every key and value.

YAML 1.2's core schema, which is what people expect: 1e-5 is a number, `on` and `no` are text. Anchors work; merge keys
(`<<`), which YAML 1.2 has not, do not. A key that comes twice and a tag (`!!python/...`) are errors.
"""

import re
from collections.abc import Callable
from typing import Any

import yaml
from yaml.nodes import MappingNode, ScalarNode, SequenceNode

from ffsd_ray.config.source.located import LocatedValue
from ffsd_ray.config.source.problems import Place, Problems, format_value

#: Beyond any job file; aliases of aliases (a "billion laughs") get there from a few lines.
_MOST_NODES, _MOST_CHARACTERS, _DEEPEST = 50_000, 1_000_000, 100

_TOO_DEEP = f"nested more than {_DEEPEST} deep"

_TAG = "tag:yaml.org,2002:"


def _integer(text: str) -> int:
    number = int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if abs(number) >= 2**63:
        raise ValueError
    return number


def _float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


#: Section 10.3.2 of the YAML 1.2 specification.
_SCALARS: dict[str, tuple[str, Callable[[str], Any]]] = {
    f"{_TAG}null": (r"null|Null|NULL|~|", lambda text: None),
    f"{_TAG}bool": (r"true|True|TRUE|false|False|FALSE", lambda text: text.lower() == "true"),
    f"{_TAG}int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", _integer),
    f"{_TAG}float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?(\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN",
        _float,
    ),
    f"{_TAG}str": (r"(?s:.*)", str),
}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own attribute); None: whatever the first character
        None: [(tag, re.compile(rf"(?:{pattern})\Z")) for tag, (pattern, _) in _SCALARS.items()]
    }
    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > _DEEPEST:  # long before Python's own limit
            raise yaml.composer.ComposerError(None, None, _TOO_DEEP, self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers  # quotes what would be read as something else than text


def dump(content: dict[str, Any]) -> str:
    """Plain data as a document that `parse` reads as the same data, keys in their order."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def parse(text: str, place: Callable[[int, int], Place], problems: Problems) -> LocatedValue | None:
    """The document in `text`; an empty one is null. `place` makes a place of a line and a column (from 1).

    What is wrong goes into `problems`; where nothing can be read, the result is None.
    """
    try:
        root = yaml.compose(text, Loader=_Loader)
        if root is None:
            return LocatedValue(None, place(1, 1), place(1, 1))
        return _Construction(place, problems).node(root, None)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = place(mark.line + 1, mark.column + 1) if mark else place(1, 1)
        description = ", ".join(part for part in (error.context, error.problem) if part)
        hint = "; lines are indented with spaces" if "'\\t'" in description else ""
        problems.add(at, "", f"Not valid YAML: {description}{hint}.")
    except yaml.reader.ReaderError as error:
        before = text[: error.position].split("\n")
        problems.add(place(len(before), len(before[-1]) + 1), "", "Not valid YAML: a control character.")
    except _TooLarge as error:
        problems.add(*error.args)
    return None


def _is_text(text: str) -> bool:
    """Whether `text` can be written; an escape such as "\\ud800" says half of a surrogate pair."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


class _TooLarge(Exception):
    """Its arguments are the problem."""


class _Construction:
    def __init__(self, place: Callable[[int, int], Place], problems: Problems) -> None:
        self._place, self._problems = place, problems
        self._nodes = self._characters = self._depth = 0

    def node(self, node: yaml.Node, key: yaml.Node | None, path: str = "") -> LocatedValue:
        at = self._at(node)
        self._measure(node, key, at, path)
        self._depth += 1
        value: Any
        if isinstance(node, ScalarNode):
            value = self._scalar(node, path)
        elif isinstance(node, SequenceNode):
            self._expect_tag(node, "seq", path)
            value = [self.node(item, None, f"{path}[{index}]") for index, item in enumerate(node.value)]
        else:
            assert isinstance(node, MappingNode)
            self._expect_tag(node, "map", path)
            value = self._mapping(node, path)
        self._depth -= 1
        return LocatedValue(value, at, self._at(key) if key else at)

    def _measure(self, node: yaml.Node, key: yaml.Node | None, at: Place, path: str) -> None:
        self._nodes += 1
        self._characters += sum(len(part.value) for part in (node, key) if isinstance(part, ScalarNode))
        if self._depth > _DEEPEST:
            raise _TooLarge(at, path, f"Not valid YAML: {_TOO_DEEP}, aliases followed.")
        if self._nodes > _MOST_NODES or self._characters > _MOST_CHARACTERS:
            limit = f"From here on there are more than {_MOST_NODES:,} values or {_MOST_CHARACTERS:,} characters"
            raise _TooLarge(at, path, f"{limit}, each alias counted in full.")

    def _mapping(self, node: MappingNode, path: str) -> dict[str, LocatedValue]:
        by_key: dict[str, LocatedValue] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode) or not _is_text(key.value):
                self._problems.add(self._at(key), path, "A key should be one word, not a list or a mapping.")
                continue
            below = f"{path}.{key.value}" if path else key.value
            if key.value in by_key:
                first = by_key[key.value].key_at
                where = f"on line {first.line}" if first.line else "before"
                self._problems.add(self._at(key), below, f"This key comes twice; it is already {where}.")
                continue
            by_key[key.value] = self.node(value, key, below)
        return by_key

    def _scalar(self, node: ScalarNode, path: str) -> Any:
        text = node.value
        if node.tag not in _SCALARS:
            self._refuse_tag(node, path)
            return None
        pattern, construct = _SCALARS[node.tag]
        try:
            if re.fullmatch(pattern, text) and _is_text(text):
                return construct(text)
        except ValueError:  # more digits than Python reads
            pass
        kind = node.tag.removeprefix(_TAG)
        self._problems.add_unreadable(self._at(node), path, f"Cannot be read as !!{kind}.", format_value(text[:100]))
        return None

    def _expect_tag(self, node: yaml.Node, kind: str, path: str) -> None:
        if node.tag != _TAG + kind:
            self._refuse_tag(node, path)

    def _refuse_tag(self, node: yaml.Node, path: str) -> None:
        tag = node.tag.replace(_TAG, "!!")
        self._problems.add_unreadable(self._at(node), path, f"Tags such as {tag} have no meaning in a job file.")

    def _at(self, node: yaml.Node) -> Place:
        return self._place(node.start_mark.line + 1, node.start_mark.column + 1)
