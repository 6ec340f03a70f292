"""Folders of the project."""

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PROJECT = TESTS.parent
PACKAGE = PROJECT / "ffsd_ray"
JOBS = PROJECT / "jobs"
GOLDEN = TESTS / "golden"
