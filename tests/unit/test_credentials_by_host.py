"""Credentials of the environment go to the servers that the environment names, and to no other."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from ffsd_ray.config.tracking import MlflowSettings, WatchSettings
from ffsd_ray.credentials import same_server
from ffsd_ray.data import load
from ffsd_ray.errors import DataError, RecordsError, StorageError, UserError
from ffsd_ray.evaluate import main as evaluate
from ffsd_ray.launch.tracking.setup import check_services
from ffsd_ray.records.store import Store
from ffsd_ray.run import main as run
from ffsd_ray.storage import open_location

from helpers.images import data_settings
from helpers.small_run import local_job, train, trial

SECRET = "hush0123456789"
AWS = {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": f"session-{SECRET}"}
ELSEWHERE = "https://storage.example"
JOB = local_job(
    "method: {name: baseline}",
    "train: {epochs: 1, batch_size: 32, lr: 0.05, steps_per_epoch: 1}",
    "scale: {threads: 1}",
)


class Stranger:
    """A server on this machine that notes what it is sent, and answers that there is no such thing."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        noted = self.requests

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                noted.append(f"{self.requestline}\n{self.headers}")
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_HEAD = do_PUT = do_POST = answer

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Stranger]:
    """A server that the environment, which has no credentials yet, does not name."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in (*AWS, "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    server = Stranger()
    yield server
    server.stop()


def setenv(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("named", [{}, {"AWS_ENDPOINT_URL": ELSEWHERE}, {"AWS_ENDPOINT_URL_S3": ELSEWHERE}])
def test_keys_of_s3_go_to_no_server_that_a_uri_names(
    stranger: Stranger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: dict[str, str]
) -> None:
    setenv(monkeypatch, AWS | named)
    uri = f"s3://bucket/x?endpoint_override={stranger.address}&region=us-east-1"
    with pytest.raises(RecordsError, match=f"AWS_ACCESS_KEY_ID.*set AWS_ENDPOINT_URL={stranger.address}") as refused:
        Store(uri)
    assert SECRET not in str(refused.value)
    asked: dict[str, dict[str, Any]] = {"image_folder": {"root": uri}, "parquet": {"train": uri, "test": uri}}
    for source, keys in asked.items():
        with pytest.raises(DataError, match="AWS_ENDPOINT_URL"):
            load(data_settings(source, **keys, image_size=8, cache=str(tmp_path / "cache")))
    assert stranger.requests == []


@pytest.mark.thorough
def test_a_job_and_a_weights_file_send_none_either(
    stranger: Stranger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setenv(monkeypatch, AWS)
    uri = f"s3://bucket/x?endpoint_override={stranger.address}&region=us-east-1"
    job = tmp_path / "job.yaml"
    job.write_text(JOB)
    assert run([str(job), "--set", f"records.storage={uri}"]) == 2
    assert "AWS_ENDPOINT_URL" in capsys.readouterr().err
    assert run([str(job), "--storage", uri]) == 2
    folder = train(tmp_path, JOB)
    weights = str(trial(folder, "baseline") / "model_last.safetensors")
    capsys.readouterr()
    assert evaluate([weights, "--data", "name=image_folder", "--data", f"root={uri}"]) == 2
    assert "AWS_ENDPOINT_URL" in capsys.readouterr().err
    assert stranger.requests == []


def test_files_with_keys_count_too(stranger: Stranger, tmp_path: Path) -> None:
    folder = tmp_path / "home" / ".aws"
    folder.mkdir(parents=True)
    (folder / "credentials").write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    with pytest.raises(RecordsError, match=r"~/\.aws/credentials"):
        Store(f"s3://bucket/x?endpoint_override={stranger.address}&region=us-east-1")
    assert stranger.requests == []


def test_a_public_server_is_asked_without_a_signature(stranger: Stranger) -> None:
    store = Store(f"s3://bucket/x?endpoint_override={stranger.address}&region=us-east-1")
    with pytest.raises((FileNotFoundError, StorageError)):
        store.read("a")
    assert stranger.requests
    assert not [said for said in stranger.requests if "authorization" in said.lower()]


def test_the_server_that_the_environment_names_is_asked_with_one(
    stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    setenv(monkeypatch, AWS | {"AWS_ENDPOINT_URL": f"{stranger.address}/"})
    store = Store(f"s3://bucket/y?endpoint_override={stranger.address}&region=us-east-1")
    with pytest.raises((FileNotFoundError, StorageError)):
        store.read("a")
    assert stranger.requests
    assert all("authorization" in said.lower() for said in stranger.requests)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/x?region=storage.example%2F",
        "s3://bucket/x?region=a.b",
        "s3://bucket/x?scheme=http&region=us-east-1",
        "s3://bucket/x?endpoint_override=s3.amazonaws.com%5C@storage.example&region=us-east-1",
        "abfs://account@storage.example:80/x",
        "abfs://container@account.core.windows.net.storage.example/x",
        "gs://bucket/x?endpoint_override=storage.example",
        "fsspec+http://storage.example/x",
        "sftp://storage.example/x",
    ],
)
def test_other_ways_to_name_a_server_are_refused(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, AWS)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with pytest.raises(RecordsError, match=r"expected|AWS_ENDPOINT_URL|credentials"):
        Store(uri)


@pytest.mark.parametrize(
    "uri",
    ["http://{}", "http://{}/prefix", "postgresql://{}/db", "postgresql+psycopg2:///db?host={}", "mysql://me@{}/db"],
)
@pytest.mark.parametrize("named", [None, "http://tracking.example", "https://127.0.0.1"])
def test_credentials_of_mlflow_go_to_no_server_that_a_job_names(
    uri: str, named: str | None, stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    if named is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", named)
    address = uri.format(stranger.address.removeprefix("http://"))
    watch = WatchSettings(mlflow=MlflowSettings(experiment="e", tracking_uri=address))
    for credential in ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD", "PGPASSWORD", "MYSQL_PWD"):
        with monkeypatch.context() as patch:
            patch.setenv(credential, SECRET)
            with pytest.raises(UserError, match=rf"watch\.mlflow: tracking_uri .*\({credential}\)") as refused:
                check_services(watch)
            assert "set MLFLOW_TRACKING_URI=" in str(refused.value)
            assert SECRET not in str(refused.value)
    assert stranger.requests == []


@pytest.mark.thorough
def test_mlflow_where_no_credential_can_be_lost(
    stranger: Stranger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("mlflow")

    def check(uri: str | None) -> None:
        check_services(WatchSettings(mlflow=MlflowSettings(experiment="e", tracking_uri=uri)))

    check(stranger.address)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    for uri in (None, "sqlite:///mlflow.db", "runs/mlflow", f"file://{tmp_path}", "databricks://profile"):
        check(uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{stranger.address}/mlflow")
    check(stranger.address)


@pytest.mark.parametrize(
    ("address", "named", "same"),
    [
        ("https://a.example", "https://A.example:443/x", True),
        ("a.example", "https://a.example.", True),
        ("http://a.example", "https://a.example", False),
        ("https://a.example:8443", "https://a.example", False),
        ("https://a.example", None, False),
        ("https://a.example\\@b.example", "https://a.example", False),
        ("https://a.example@b.example", "https://a.example", False),
        ("https://a.example.b.example", "https://a.example", False),
        ("http://[::1]:80", "http://[::1]", True),
        ("https://a.example\n.b.example", "https://a.example", False),
    ],
)
def test_one_server_or_two(address: str, named: str | None, same: bool) -> None:
    assert same_server(address, named) is same


def test_with_another_environment_there_is_another_client(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (AWS | {"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}).items():
        monkeypatch.setenv(name, value)
    client, _ = open_location("s3://bucket/runs")
    assert open_location("s3://bucket/others")[0] is client, "one for all folders"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:10")
    assert not open_location("s3://bucket/runs")[0].equals(client)
