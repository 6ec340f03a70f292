"""The files of cluster/: what Ray, the clouds and KubeRay themselves say about them, and that they fit the project."""

import contextlib
import copy
import http.server
import importlib.util
import itertools
import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import jsonschema
import psutil
import pytest
import ray
import torch
import yaml
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import CloudResourceMonitor
from ray.core.generated.instance_manager_pb2 import Instance, InstanceUpdateEvent
from ray.scripts.scripts import cli

from ffsd_ray.run import build_parser

from helpers.commands import wait_for
from helpers.paths import PROJECT
from helpers.ports import answers, free_port

CLUSTER = PROJECT / "cluster"
README = (CLUSTER / "README.md").read_text()
LAUNCHERS = ("aws", "gcp", "local")
CLOUDS = ("aws", "gcp")
MANIFESTS = ("kuberay", "rayjob")
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())
    return content


def prepared(name: str) -> dict[str, Any]:
    """With the provider's defaults, which Ray's wheel lacks for simulated nodes: local.yaml says everything."""
    return read(name) if name == "local" else prepare_config(read(name))


def pins() -> dict[str, str]:
    lines = (CLUSTER / "constraints.txt").read_text().splitlines()
    return dict(line.lower().split("==") for line in lines if line and not line.startswith("#"))


def problems(value: Any, schema: Mapping[str, Any], others: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """What in `value` the schema (OpenAPI's or Google's; `others`: by name) does not know, or knows otherwise."""
    schema = others[schema["$ref"]] if "$ref" in schema else schema
    if schema.get("x-kubernetes-int-or-string"):
        if not isinstance(value, int | str):
            yield f"{path}: {value!r} is neither a number nor text"
        return
    kinds: dict[str, Any] = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
    kind = kinds.get(schema.get("type", ""), object)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        yield f"{path}: {value!r} is not of type {schema['type']}"
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is none of {schema['enum']}"
    elif isinstance(value, dict):
        known, rest = schema.get("properties", {}), schema.get("additionalProperties")
        yield from (f"{path}: {key} is missing" for key in schema.get("required", []) if key not in value)
        for key, item in value.items():
            if key in known or rest:
                yield from problems(item, known.get(key, rest), others, f"{path}.{key}")
            elif known:  # an object without any is one that the schema leaves open
                yield f"{path}.{key}: no such field"
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from problems(item, schema["items"], others, f"{path}[{index}]")


# Ray's launcher


@pytest.mark.parametrize("name", LAUNCHERS)
def test_launcher_takes_it(name: str) -> None:
    validate_config(prepared(name))


@pytest.mark.parametrize("name", LAUNCHERS)
@pytest.mark.parametrize("place", [(), ("auth",), ("docker",), ("available_node_types", "HEAD")])
def test_launcher_refuses_unknown_keys(name: str, place: tuple[str, ...]) -> None:
    config = prepared(name)
    section = config
    for key in place:
        section = section[config["head_node_type"] if key == "HEAD" else key]
    section["max_wokers"] = 1
    with pytest.raises(jsonschema.ValidationError, match="max_wokers"):
        validate_config(config)


@pytest.mark.parametrize("name", LAUNCHERS)
def test_nodes_come_from_nothing(name: str) -> None:
    """The head trains nothing; every other type starts at 0."""
    config = prepared(name)
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert head["max_workers"] == 0
    assert head["resources"] == {"CPU": 0}
    for node in types.values():
        assert node["min_workers"] == 0
        assert 0 < node["max_workers"] <= config["max_workers"]
    assert 0 < config["idle_timeout_minutes"] <= 10


@pytest.mark.parametrize("name", CLOUDS)
def test_spot_first_on_demand_behind(name: str) -> None:
    types = read(name)["available_node_types"]
    spot, on_demand = types["spot"], types["on_demand"]
    assert spot["resources"] == on_demand["resources"]
    assert spot["resources"]["GPU"] > 0
    assert spot["priority"] > on_demand["priority"]


def test_only_a_node_that_does_not_come_in_time_gives_others_the_turn() -> None:
    """What the README says of Ray: a launch that the cloud refuses changes nothing."""
    seen = CloudResourceMonitor()
    for status, scores in ((Instance.ALLOCATION_FAILED, {}), (Instance.ALLOCATION_TIMEOUT, {"spot": 0})):
        seen.notify([InstanceUpdateEvent(instance_id="1", instance_type="spot", new_instance_status=status)])
        assert seen.get_recoverable_resource_availabilities() == scores


@pytest.mark.parametrize("name", LAUNCHERS)
def test_nodes_say_their_memory(name: str) -> None:
    """Else the autoscaler starts none for a trial that asks for memory."""
    config = read(name)
    types = config["available_node_types"]
    assert all(types[node]["resources"]["memory"] >= 4 * 2**30 for node in types.keys() - {config["head_node_type"]})


@pytest.mark.parametrize("name", CLOUDS)
def test_mounted_files_exist(name: str) -> None:
    config = read(name)
    mounts = config["file_mounts"]
    assert mounts.pop("/home/ubuntu/.ray/auth_token") == "~/.ray/auth_token", "by its path only"
    for there, here in mounts.items():
        assert (PROJECT / here).is_file()
        assert there == f"/home/ubuntu/ffsd_ray/{here}"
    commands = "\n".join(config["setup_commands"] + config["worker_start_ray_commands"])
    used = re.findall(r"~/ffsd_ray/(\S+)", commands)
    assert {"cluster/constraints.txt", "cluster/drain_on_notice.py"} == set(used) <= set(mounts.values())
    assert "RAY_AUTH_MODE=token" in commands


def test_aws_takes_its_instances(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ray's own AWS provider starts one of each type on a simulated AWS, with the roles of aws-roles.yaml."""
    pytest.importorskip("boto3")
    moto = pytest.importorskip("moto")
    pytest.importorskip("openapi_spec_validator")  # which moto wants for CloudFormation
    import boto3
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler.tags import TAG_RAY_LAUNCH_CONFIG, TAG_RAY_NODE_KIND, TAG_RAY_NODE_NAME, TAG_RAY_NODE_STATUS
    from ray.autoscaler.tags import TAG_RAY_USER_NODE_TYPE as TYPE

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "simulated")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray writes an ssh key there
    (tmp_path / ".ssh").mkdir()
    with moto.mock_aws():
        template = (CLUSTER / "aws-roles.yaml").read_text()
        formation = boto3.client("cloudformation")
        formation.create_stack(StackName="ffsd-ray", TemplateBody=template, Capabilities=["CAPABILITY_NAMED_IAM"])
        output = formation.describe_stacks(StackName="ffsd-ray")["Stacks"][0]["Outputs"][0]["OutputValue"]
        assert re.fullmatch(r"s3://ffsd-ray-\d{12}-us-west-2/runs", output), "as the README's command has it"
        iam = boto3.client("iam")
        for policy in iam.list_policies(Scope="Local")["Policies"]:
            version = iam.get_policy_version(PolicyArn=policy["Arn"], VersionId=policy["DefaultVersionId"])
            for statement in version["PolicyVersion"]["Document"]["Statement"]:
                assert "Condition" in statement or "ec2:CreateTags" not in statement["Action"], "tags whatever there is"
        config = AWSNodeProvider.bootstrap_config(prepare_config(read("aws")))
        provider = AWSNodeProvider(config["provider"], config["cluster_name"])
        for name, node in config["available_node_types"].items():
            kind = "head" if name == config["head_node_type"] else "worker"
            tags = {TAG_RAY_NODE_KIND: kind, TYPE: name, TAG_RAY_NODE_NAME: name}
            tags |= {TAG_RAY_LAUNCH_CONFIG: "", TAG_RAY_NODE_STATUS: "uninitialized"}
            provider.create_node(copy.deepcopy(node["node_config"]), tags, 1)
        started = {}
        for reservation in boto3.client("ec2").describe_instances()["Reservations"]:
            for instance in reservation["Instances"]:
                name = next(tag["Value"] for tag in instance["Tags"] if tag["Key"] == TYPE)
                profile = instance["IamInstanceProfile"]["Arn"].rpartition("/")[2]
                started[name] = profile, instance.get("InstanceLifecycle")
    assert started == {
        "head": ("ffsd-ray-head", None),
        "spot": ("ffsd-ray-worker", "spot"),
        "on_demand": ("ffsd-ray-worker", None),
    }


@pytest.mark.parametrize("name", ["head", "spot", "on_demand"])
def test_google_knows_every_field(name: str) -> None:
    api = pytest.importorskip("googleapiclient")
    document = Path(api.__file__).parent / "discovery_cache" / "documents" / "compute.v1.json"
    schemas = json.loads(document.read_text())["schemas"]
    config = read("gcp")["available_node_types"][name]["node_config"]
    assert list(problems(config, schemas["Instance"], schemas)) == []
    zone = read("gcp")["provider"]["availability_zone"]
    assert config["disks"][0]["initializeParams"]["diskType"].startswith(f"zones/{zone}/")
    assert list(problems(config | {"machinType": "x"}, schemas["Instance"], schemas)) == [".machinType: no such field"]


@pytest.fixture
def simulated() -> Iterator[str]:
    """The address of a cluster from local.yaml, as the README starts it, but at ports and in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # sockets' paths must be short
    ip, port = ray.util.get_node_ip_address(), str(free_port())
    address = f"{ip}:{port}"
    config = read("local")
    config["idle_timeout_minutes"] = 0.05
    (folder / "local.yaml").write_text(yaml.safe_dump(config))
    words = shlex.split(next(command for command in readme_commands() if "--autoscaling-config" in command))
    assignments = list(itertools.takewhile(lambda word: "=" in word, words))
    environment = os.environ | dict(word.split("=") for word in assignments) | {"RAY_AUTH_MODE": "disabled"}
    environment |= {"PYTHONPATH": str(PROJECT / environment["PYTHONPATH"]), "TMPDIR": str(folder)}
    options = [f"--port={port}", f"--temp-dir={folder}", "--include-dashboard=false", "--block"]
    options += ["--object-store-memory=100000000"]
    start = [sys.executable, "-m", "ray.scripts.scripts", *words[len(assignments) + 1 : -1], *options]
    start += [f"--autoscaling-config={folder / 'local.yaml'}"]
    head = psutil.Popen(start, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: answers(address) or head.poll() is not None, "a head that answers")
    assert head.poll() is None, "the head did not start"
    yield address
    processes = [head, *head.children(recursive=True)]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.ray
@pytest.mark.slow
def test_simulated_nodes_come_and_go(simulated: str, tmp_path: Path) -> None:

    def nodes() -> int:
        return sum(bool(node["Alive"]) for node in ray.nodes()) - 1

    over = tmp_path / "over"

    def work() -> None:
        while not over.exists():
            time.sleep(0.1)

    ray.init(address=simulated, log_to_driver=False, logging_level=logging.ERROR)
    try:
        assert nodes() == 0
        tasks = [ray.remote(num_cpus=1)(work).remote() for _ in range(2)]
        wait_for(lambda: nodes() == 2, "two nodes besides the head")
        over.touch()
        ray.get(tasks)
        wait_for(lambda: nodes() == 0, "no node besides the head")
    finally:
        ray.shutdown()


# Kubernetes


def crd_schema(shared: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    folder = shared / "kuberay"
    if not folder.is_dir():
        pytest.skip(f"no {folder.name}/ there")
    group, _, version = manifest["apiVersion"].partition("/")
    definition = yaml.load(
        (folder / f"{group}_{manifest['kind'].lower()}s.yaml").read_text(),
        getattr(yaml, "CSafeLoader", yaml.SafeLoader),
    )
    assert definition["spec"]["names"]["kind"] == manifest["kind"]
    versions = {one["name"]: one for one in definition["spec"]["versions"]}
    schema: dict[str, Any] = versions[version]["schema"]["openAPIV3Schema"]
    return schema


@pytest.mark.parametrize("name", MANIFESTS)
def test_kuberay_knows_every_field(name: str, shared: Path) -> None:
    manifest = read(name)
    schema = crd_schema(shared, manifest)
    assert list(problems(manifest, schema, {})) == []
    wrong = copy.deepcopy(manifest)
    cluster = wrong["spec"].get("rayClusterSpec", wrong["spec"])
    cluster["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["imag"] = "x"
    cluster["autoscalerOptions"]["idleTimeoutSeconds"] = "300"
    assert [line.rpartition(".")[2] for line in problems(wrong, schema, {})] == [
        "idleTimeoutSeconds: '300' is not of type integer",
        "imag: no such field",
    ]


def test_the_job_runs_on_the_cluster_of_the_other_file() -> None:
    job, cluster = read("rayjob")["spec"], read("kuberay")["spec"]
    assert job["rayClusterSpec"] == cluster
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"]
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] == 0 < group["maxReplicas"]
        assert group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    check_run(shlex.split(job["entrypoint"])[3:], folder=Path("/ffsd_ray"))


def test_pods_that_are_not_to_be_had_are_given_up() -> None:
    """Ray's autoscaler reads what the resource sets."""
    options = {each["name"]: each["value"] for each in read("kuberay")["spec"]["autoscalerOptions"]["env"]}
    ask = "from ray.autoscaler.v2.instance_manager.config import InstanceReconcileConfig as C; print(C())"
    said = subprocess.check_output([sys.executable, "-c", ask], env=os.environ | options, text=True)
    assert "allocate_status_timeout_s=600," in said
    assert "600 s in both files" in README


def test_no_more_pods_than_is_said() -> None:
    cluster = read("kuberay")
    cluster["metadata"]["namespace"] = "training"
    assert _derive_autoscaling_config_from_ray_cr(cluster)["max_workers"] == 8
    assert "0 to 8 GPU nodes" in README


def test_a_spot_pod_tells_ray_that_it_goes() -> None:
    [spot] = [group for group in read("kuberay")["spec"]["workerGroupSpecs"] if group["groupName"] == "spot"]
    pod = spot["template"]["spec"]
    shell, option, script = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert (shell, option) == ("sh", "-c")
    drain, rest = script.split(" && ")
    timeout, seconds, *told = shlex.split(drain)
    assert timeout == "timeout"
    check(told)
    assert int(seconds) + int(rest.removeprefix("sleep ")) < pod["terminationGracePeriodSeconds"]


# Versions and image


def test_one_ray_everywhere() -> None:
    assert pins()["ray"] == ray.__version__ == read("kuberay")["spec"]["rayVersion"]


def test_every_dependency_is_pinned() -> None:
    project = PYPROJECT["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["cluster"]
    names = {re.split(r"[\[<>=]", line)[0].lower() for line in wanted}
    assert names <= set(pins())


def test_image_copies_what_there_is() -> None:
    text = (CLUSTER / "Dockerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (.*)", text, re.M) for word in line.split()[:-1]]
    assert all((PROJECT / name).exists() for name in copied)
    assert {"ffsd_ray", "jobs", "pyproject.toml"} <= set(copied)
    image = f"REGISTRY/ffsd-ray:{PYPROJECT['project']['version']}"
    containers = [
        container
        for group in [read("kuberay")["spec"]["headGroupSpec"], *read("kuberay")["spec"]["workerGroupSpecs"]]
        for container in group["template"]["spec"]["containers"]
    ]
    assert {container["image"] for container in containers} == {image}
    assert image in text
    assert image in README


def test_image_finds_the_driver_and_compiles() -> None:
    """GKE mounts the driver where a slim image does not look; Triton compiles C, against the image's own Python.h."""
    text = (CLUSTER / "Dockerfile").read_text()
    assert "ENV LD_LIBRARY_PATH=/usr/local/nvidia/lib64\n" in text
    installed = re.search(r"apt-get install -y --no-install-recommends ([^&]*)", text)
    assert installed is not None
    assert {"gcc", "libc6-dev"} <= set(installed[1].split())


def test_readme_has_the_driver_of_the_pinned_torch() -> None:
    """CUDA 13 came with driver 580; a torch of another CUDA needs another one."""
    assert torch.version.cuda is None or torch.version.cuda.startswith("13.")
    assert pins()["torch"] == version("torch").partition("+")[0]
    assert "driver 580" in README


# What a submitted job takes along


def test_working_directory_is_small(tmp_path: Path) -> None:
    project, package = tmp_path / "project", tmp_path / "package.zip"
    project.mkdir()
    for name in (".gitignore", ".rayignore", "README.md", "pyproject.toml"):
        shutil.copy(PROJECT / name, project)
    for name in ("ffsd_ray", "jobs", "cluster"):
        shutil.copytree(PROJECT / name, project / name)
    left_behind = [
        "runs/fig6/trials/0/history.parquet",
        "runs-2/job.json",
        "data/cifar-100-python/train",
        "model_best.safetensors",
        ".git/config",
        ".venv/lib/torch.py",
        "env/bin/activate",
        "tests/test_x.py",
        ".mypy_cache/cache.json",
        ".ruff_cache/cache",
        ".pytest_cache/README.md",
        "ffsd_ray/__pycache__/run.pyc",
        "ffsd_ray.egg-info/PKG-INFO",
        "fig6.pdf",
    ]
    for name in left_behind:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_bytes(bytes(1000))
    create_package(str(project), package, include_gitignore=True, excludes=get_runtime_env_default_excludes())
    packed = set(zipfile.ZipFile(package).namelist())
    assert not packed & set(left_behind)
    for pattern in ("ffsd_ray/**/*.py", "ffsd_ray/**/*.yaml", "jobs/*.yaml", "cluster/*.yaml"):
        assert {str(file.relative_to(PROJECT)) for file in PROJECT.glob(pattern)} <= packed
    assert package.stat().st_size < 2 << 20


# The README's commands


def check_run(arguments: list[str], folder: Path = PROJECT) -> None:
    """That `python -m ffsd_ray.run` takes these, and the job file is there."""
    try:
        given = build_parser().parse_args(arguments)
    except SystemExit:
        pytest.fail(f"not taken: {arguments}")
    assert (PROJECT / given.job.relative_to(folder) if given.job.is_absolute() else PROJECT / given.job).is_file()


def check_ray(arguments: list[str]) -> None:
    """That there is such a `ray` command with such options."""
    command: click.Command = cli
    if arguments[:1] == ["job"]:
        from ray.dashboard.modules.job.cli import job_cli_group

        command, arguments = job_cli_group, arguments[1:]
    context = click.Context(command)
    while isinstance(command, click.Group):
        found = command.get_command(context, arguments[0])
        assert found is not None, arguments
        command, arguments = found, arguments[1:]
    if command.name == "submit":
        check(arguments[arguments.index("--") + 1 :])
    command.make_context(command.name, list(arguments), resilient_parsing=False)


def check(words: list[str]) -> None:
    """One command, as far as it can be checked without a cloud."""
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    if words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2]) is not None
        if words[2] == "ffsd_ray.run":
            check_run(words[3:])
    elif words[:1] == ["ray"]:
        check_ray(words[1:])


def readme_commands() -> list[str]:
    blocks = re.findall(r"^```\n(.*?)^```", README, re.M | re.S)
    inline = re.findall(r"`((?:ray|python|kubectl) [^`]+)`", README)
    lines = [line for block in blocks for line in block.splitlines()] + inline
    parts = [part.strip(" &") for line in lines for part in re.split(r"&& |; |> /dev/null", line)]
    return [part for part in parts if "ray" in part or "python" in part]


@pytest.mark.parametrize("command", readme_commands())
def test_readme_command(command: str) -> None:
    words = shlex.split(command)
    check(words)
    for word in words:
        if re.fullmatch(r"(cluster|jobs)/\S+", word):
            assert (PROJECT / word).exists()


def test_readme_has_every_file() -> None:
    mentioned = README + "".join(file.read_text() for file in CLUSTER.glob("*.yaml"))
    assert all(file.name in mentioned for file in CLUSTER.iterdir() if file.is_file() and file.name != "README.md")


def test_readme_has_the_cost_of_the_job_file() -> None:
    found = re.search(r"# Cost: (\d+ trials, (\d+) PFLOP)", (PROJECT / "jobs" / "fig6.yaml").read_text())
    assert found is not None
    assert found[1] in README
    assert f"{int(found[2]) * 1000 / 3600:.0f} / (TFLOP/s" in README


# Spot notices


@pytest.fixture
def notice() -> ModuleType:
    spec = importlib.util.spec_from_file_location("drain_on_notice", CLUSTER / "drain_on_notice.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Metadata(http.server.BaseHTTPRequestHandler):
    """Both clouds' metadata services, as their documentation has them."""

    notified = False

    def do_PUT(self) -> None:
        asked = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self.answer(200 if asked else 400, "the token")

    def do_GET(self) -> None:
        if self.path == "/computeMetadata/v1/instance/preempted":
            known = self.headers["Metadata-Flavor"] == "Google"
            self.answer(200 if known else 403, "TRUE" if Metadata.notified else "FALSE")
        elif self.headers["X-aws-ec2-metadata-token"] != "the token":
            self.answer(401, "")
        elif self.path == "/latest/meta-data/spot/instance-action" and Metadata.notified:
            self.answer(200, '{"action": "terminate", "time": "2026-01-01T00:00:00Z"}')
        else:
            self.answer(404, "")

    def answer(self, code: int, text: str) -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def metadata() -> Iterator[str]:
    Metadata.notified = False
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("cloud", CLOUDS)
def test_notice_is_read(cloud: str, notice: ModuleType, metadata: str) -> None:
    _, noticed, seconds = notice.CLOUDS[cloud]
    assert not noticed(metadata)
    Metadata.notified = True
    assert noticed(metadata)
    assert 10 < seconds < 120


def test_ray_can_be_told() -> None:
    source = (CLUSTER / "drain_on_notice.py").read_text()
    options = {option for parameter in cli.commands["drain-node"].params for option in parameter.opts}
    assert set(re.findall(r'"(--(?!metadata)[a-z-]+)"', source)) <= options
