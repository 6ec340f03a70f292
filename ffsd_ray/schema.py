"""The JSON schema of a job file, by which editors complete and check it: `ffsd schema > ffsd.schema.json`."""

import argparse
import json
import sys
from collections.abc import Sequence

from ffsd_ray.command import command
from ffsd_ray.config.job import JobSpec

#: What the schema's file beside job files is called.
FILE = "ffsd.schema.json"

#: The first line of a job file beside it: YAML language servers and JetBrains' editors look for this comment.
EDITORS_LINE = f"# yaml-language-server: $schema={FILE}"


def schema_text() -> str:
    """The schema as JSON, with a line end."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(dialect | JobSpec.model_json_schema(), indent=2) + "\n"


def build_parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog="ffsd schema", description="Print the job file's schema.")


@command
def main(argv: Sequence[str] | None = None) -> int:
    build_parser().parse_args(argv)
    print(schema_text(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
