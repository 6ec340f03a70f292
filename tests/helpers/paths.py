"""Folders of the project."""

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PROJECT = TESTS.parent
PACKAGE = PROJECT / "ffsd_ray"
JOBS = PROJECT / "jobs"
#: Every job file that is shipped.
JOB_FILES = sorted(JOBS.rglob("*.yaml"))
GOLDEN = TESTS / "golden"
