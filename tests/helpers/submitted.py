"""Submitting jobs as users do, from a copy of the project that is found nowhere else."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ray.job_submission import JobStatus, JobSubmissionClient

from helpers.commands import wait_for
from helpers.paths import PROJECT

_BACKBONE = """\
from ffsd_ray.backbones import cifar_resnet

BUILDERS = {"only_uploaded": cifar_resnet.BUILDERS["resnet20"]}
"""


def copied(folder: Path) -> Path:
    """The project, in a folder that is not there yet, with a backbone more, which no installed package has."""
    for name in ("ffsd_ray", "jobs"):
        shutil.copytree(PROJECT / name, folder / name)
    for name in (".gitignore", ".rayignore"):
        shutil.copy(PROJECT / name, folder)
    (folder / "ffsd_ray" / "backbones" / "only_uploaded.py").write_text(_BACKBONE)
    return folder


class Submitted:
    """`ray job submit --working-dir . -- python -m ffsd_ray.run ...` in a project's folder."""

    def __init__(self, project: Path, address: str, *arguments: str) -> None:
        """`address`: of the cluster's dashboard."""
        self._client = JobSubmissionClient(address)
        submit = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", address, "--no-wait"]
        submit += ["--submission-id", "small", "--working-dir", ".", "--", sys.executable, "-m", "ffsd_ray.run"]
        submitted = subprocess.run([*submit, *arguments], cwd=project, capture_output=True, text=True, check=False)
        assert submitted.returncode == 0, submitted.stdout + submitted.stderr

    def log(self) -> str:
        return self._client.get_job_logs("small")

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        def seen() -> object:
            assert not self._client.get_job_status("small").is_terminal(), self.log()
            return condition()

        wait_for(seen, what, 240)

    def succeeded(self) -> str:
        """Its log, once it has."""
        return self._ended(JobStatus.SUCCEEDED)

    def failed(self) -> str:
        """Its log, once it has."""
        return self._ended(JobStatus.FAILED)

    def _ended(self, expected: JobStatus) -> str:
        while not (status := self._client.get_job_status("small")).is_terminal():
            time.sleep(1)
        assert status == expected, self.log()
        return self.log()
