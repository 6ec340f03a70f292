"""Differences of a trial from the paper's protocol, over every key that is part of a trial's identity."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ffsd_ray.config.source.problems import format_value
from ffsd_ray.config.trial import KINDS, TrialSpec, identifies, identifying
from ffsd_ray.report.paper.values import PaperRow, PaperTable

#: What tells the runs of one row apart.
_OF_THE_RUN = "seed"


def protocol_of(paper: PaperTable, row: PaperRow) -> dict[str, Any]:
    """Every identifying setting of the row's trials, by dotted key, less those that make a trial one of the row.

    A key that `values.yaml` does not name has its section's default; one that has none (where one's own images lie)
    is left out.
    """
    wanted: dict[str, Any] = {}
    for section, field in _identifying(TrialSpec).items():
        if section == _OF_THE_RUN:
            continue
        said = dict(paper.protocol.get(section, {}))
        if section == "method":
            said = said.get(row.match["method.name"], {}) | {"name": row.match["method.name"]}
        settings: Any = field.annotation
        if section in KINDS:
            settings = KINDS[section][said["name"]]
        for key, setting in _identifying(settings).items():
            if key in said or not setting.is_required():
                wanted[f"{section}.{key}"] = said.get(key, setting.get_default(call_default_factory=True))
    return {key: value for key, value in wanted.items() if key not in row.match}


def differences(spec: TrialSpec, paper: PaperTable, row: PaperRow) -> dict[str, tuple[str, str]]:
    """The trial's value and the protocol's, as text, by the dotted key in which they differ."""
    wanted = protocol_of(paper, row)
    found: dict[str, tuple[str, str]] = {}
    for section in _identifying(TrialSpec):
        settings = getattr(spec, section)
        if section == _OF_THE_RUN:
            continue
        for key, field in _identifying(type(settings)).items():
            dotted = f"{section}.{key}"
            value = spec.train.decay_epochs if dotted == "train.milestones" else getattr(settings, key)
            if dotted in wanted:
                if value != wanted[dotted]:
                    found[dotted] = _text(value), _text(wanted[dotted])
            elif dotted not in row.match and not field.is_required():
                # Of another kind of section than the protocol's.
                found[dotted] = _text(value), "no such key"
    return found


def _identifying(model: type[BaseModel]) -> Mapping[str, FieldInfo]:
    return {name: field for name, field in model.model_fields.items() if identifies(field)}


def _text(value: object) -> str:
    return format_value(identifying(value) if isinstance(value, BaseModel) else value)
