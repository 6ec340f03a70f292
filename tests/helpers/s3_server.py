"""A real S3 server in a process of its own, on this machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyarrow import fs

from helpers.ports import answers, free_port

#: What the server's users have in their environment; any key is good enough for it.
SECRET = "a-key-that-stays-in-the-environment"


class Server:
    """moto's server with an empty bucket. It keeps its objects in memory."""

    def __init__(self, log: Path) -> None:
        self.bucket = "bucket"
        port = free_port()
        self.environment = {
            "AWS_ACCESS_KEY_ID": "someone",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        self._log = log
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        with log.open("wb") as stream:
            self._process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
        while not answers(f"127.0.0.1:{port}"):
            assert self._process.poll() is None, log.read_text()
            time.sleep(0.1)
        self.filesystem = fs.S3FileSystem(
            access_key="someone",
            secret_key=SECRET,
            region="us-east-1",
            endpoint_override=self.environment["AWS_ENDPOINT_URL"],
            allow_bucket_creation=True,
        )
        self.filesystem.create_dir(self.bucket)

    def requests(self) -> int:
        """Requests so far."""
        return self._log.read_bytes().count(b" HTTP/1.1")

    def names(self, folder: str = "") -> list[str]:
        """The objects in the bucket below a folder; a run may write and delete there meanwhile."""
        root = f"{self.bucket}/{folder}".rstrip("/")
        found = self.filesystem.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
        return [info.path.removeprefix(f"{root}/") for info in found if info.type == fs.FileType.File]

    def objects(self, folder: str = "") -> dict[str, bytes]:
        """What is in the bucket below a folder where nothing is deleted meanwhile, by name."""
        root = f"{self.bucket}/{folder}".rstrip("/")
        return {name: self.filesystem.open_input_file(f"{root}/{name}").read() for name in self.names(folder)}

    def put(self, name: str, content: bytes) -> None:
        with self.filesystem.open_output_stream(f"{self.bucket}/{name}") as stream:
            stream.write(content)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """An outage: connections are taken and nothing is answered."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def unanswered(self) -> int:
        """Connections on which a request waits for the server (as Linux has it)."""
        port = int(self.environment["AWS_ENDPOINT_URL"].rpartition(":")[2])
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        queues = [queues for _, local, _, _, queues, *_ in lines if int(local.rpartition(":")[2], 16) == port]
        return sum(int(queue.partition(":")[2], 16) > 0 for queue in queues)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server, and this process's environment set for it. Skips the test where moto is not installed."""
    pytest.importorskip("moto.server", reason="the S3 server of the tests (moto[server]) is not installed")
    server = Server(folder / "s3.log")
    before = {name: os.environ.get(name) for name in server.environment}
    os.environ.update(server.environment)
    try:
        yield server
    finally:
        server.stop()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
