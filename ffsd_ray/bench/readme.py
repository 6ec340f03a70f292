"""`python -m ffsd_ray.bench.readme [RECORD ...]`: make the tables of this folder's README from the records in it.

Each RECORD, a file that a benchmark has written, is taken into the folder first, without what no table shows. In the
README a table stands between `<!-- records: KIND -->` and `<!-- end -->`, and is the newest record's of this kind.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ffsd_ray.bench.record_tables import TABLES
from ffsd_ray.command import command
from ffsd_ray.errors import RecordsError
from ffsd_ray.records.measurement import read

RECORDS = Path(__file__).parent / "records"
README = Path(__file__).parent / "README.md"

_BLOCK = re.compile(r"(?<=<!-- records: )(?P<kind>[a-z-]+) -->\n(?P<text>.*?)(?=<!-- end -->)", re.S)
#: Of a setting's spec, what is read here.
_TRAIN = ("precision", "execution", "batch_size")


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ffsd_ray.bench.readme", description=__doc__)
    parser.add_argument("record", nargs="*", type=Path, help="a record to be taken into the folder")
    for file in parser.parse_args(argv).record:
        print(f"Taken: {take(file, RECORDS)}")
    README.write_text(with_tables(README.read_text(), RECORDS))
    print(f"Written: {README}")
    return 0


def take(file: Path, folder: Path) -> Path:
    """Write a record into the folder, named after its kind and date, and return where.

    Raises:
        RecordsError: there are no tables of its kind.
    """
    content = read(file)
    kind = _kind(content)
    if kind not in TABLES:
        raise RecordsError(f"{file}: is of the kind {kind}; expected one of {', '.join(TABLES)}")
    content["command"] = re.sub(r" --out \S+", "", content["command"])
    for point in content["points"].values():
        for setting in point.get("settings", {}).values():
            train = setting["spec"]["train"]
            setting["spec"] = {"train": {key: value for key, value in train.items() if key in _TRAIN}}
    taken = folder / f"{kind}-{datetime.fromisoformat(content['date']):%Y%m%dT%H%M}.json"
    taken.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return taken


def newest(kind: str, folder: Path) -> Path | None:
    """The newest record of a kind; None where there is none."""
    return max(folder.glob(f"{kind}-????????T????.json"), default=None)


def with_tables(text: str, folder: Path) -> str:
    """A README with the tables of the folder's records. What there is no record of stays as it is.

    Raises:
        RecordsError: the text wants tables of an unknown kind, or a record is damaged.
    """

    def filled(block: re.Match[str]) -> str:
        kind = block["kind"]
        if kind not in TABLES:
            raise RecordsError(f"records: {kind}: expected one of {', '.join(TABLES)}")
        file = newest(kind, folder)
        return f"{kind} -->\n{block['text'] if file is None else tables(read(file))}"

    return _BLOCK.sub(filled, text)


def tables(content: Mapping[str, Any]) -> str:
    """The text that a record makes in the README, which ends with a line's end."""
    return f"`{content['command']}`: {TABLES[_kind(content)](content)}\n"


def _kind(content: Mapping[str, Any]) -> str:
    """The kind of a record, as a file's name has it."""
    return str(content.get("kind")).replace(" ", "-")


if __name__ == "__main__":
    sys.exit(main())
