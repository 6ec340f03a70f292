"""The JSON schema of a job file, so that editors complete and check it: `python -m ffsd_ray.schema > job.schema.json`.

A first line `# yaml-language-server: $schema=job.schema.json` in a job file makes editors use it.
"""

import json

from ffsd_ray.spec.job import JobSpec

if __name__ == "__main__":
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    print(json.dumps(dialect | JobSpec.model_json_schema(), indent=2))
