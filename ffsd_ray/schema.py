"""The JSON schema of a job file, so that editors complete and check it: `python -m ffsd_ray.schema > job.schema.json`.

A first line `# yaml-language-server: $schema=job.schema.json` in a job file makes editors use it.
"""

import argparse
import json
import sys
from collections.abc import Sequence

from ffsd_ray.command import command
from ffsd_ray.config.job import JobSpec


@command
def main(argv: Sequence[str] | None = None) -> int:
    argparse.ArgumentParser(prog="ffsd schema", description="Print the job file's schema.").parse_args(argv)
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    print(json.dumps(dialect | JobSpec.model_json_schema(), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
