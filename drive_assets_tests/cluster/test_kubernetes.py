"""What Kubernetes is told, by its schema; what its answers mean; and the container's command, as a process here.

No cluster is started: that needs programs which are not packaged. Nothing stands in for its API.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
import yaml

from drive_assets.jobs import JobFolder
from drive_assets.resources.cluster.batch import State
from drive_assets.resources.cluster.kubernetes import KubernetesCompute, PodSize, job_state
from drive_assets_tests.cluster.graph import echoes

kubernetes = pytest.importorskip("kubernetes", reason="extra k8s is not installed")
kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="extra test is not installed")
DEPLOY = Path(__file__).parents[2] / "deploy" / "kubernetes"
VERSION = "1.32"


def as_json(value: Any) -> dict[str, Any]:
    return kubernetes.client.ApiClient().sanitize_for_serialization(value)


class ProcessCompute(KubernetesCompute):
    """Runs the command of each Job's container as a process of this machine, which sees the data root too."""

    echo: PodSize = PodSize()

    def worker(self) -> str:
        return f"{sys.executable} -u -m drive_assets_tests.cluster.worker"

    def submit(self, task: str, name: str, folders: Sequence[JobFolder]) -> list[str]:
        ids = []
        for index, folder in enumerate(folders):
            job = as_json(self.job(task, name, index, folder))
            kubernetes_validate.validate(job, VERSION, strict=True)
            (container,) = job["spec"]["template"]["spec"]["containers"]
            subprocess.Popen(container["command"])
            ids.append(job["metadata"]["name"])
        return ids

    def states(self) -> Mapping[str, State]:
        return {}


def test_a_pods_command_takes_its_work_from_its_folder_and_reports_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    compute = ProcessCompute(data_root=str(tmp_path), image="registry.example.org/drive-assets:1", grace_s=120)
    with dg.instance_for_test() as instance:
        job = dg.Definitions([echoes], resources={"compute": compute}).resolve_implicit_global_asset_job_def()
        ends = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "b"}
        assert job.execute_in_process(instance=instance, tags=ends).success
        assert instance.get_materialized_partitions(echoes.key) == {"a", "b"}
    assert [(tmp_path / f"{key}.txt").read_text() for key in "ab"] == ["a", "b"]
    assert all("begins" in path.read_text() for path in (tmp_path / "jobs").glob("echoes-*/*.log"))


def test_a_job_asks_for_what_its_task_needs_and_begins_anew_only_after_an_early_end(tmp_path: Path) -> None:
    compute = KubernetesCompute(
        data_root="/data",
        image="registry.example.org/drive-assets:1",
        pod_spec={"nodeSelector": {"gpu": "a100"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]},
    )
    job = as_json(compute.job("train", "drive-assets-12", 3, JobFolder(Path("/data/jobs/checkpoint-1"))))
    kubernetes_validate.validate(job, VERSION, strict=True)
    assert job["metadata"]["name"] == "drive-assets-12-3"
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "4", "memory": "32Gi"},
        "limits": {"memory": "32Gi", "nvidia.com/gpu": "1"},
    }
    assert container["volumeMounts"] == [{"name": "data", "mountPath": "/data"}]
    assert pod["nodeSelector"] == {"gpu": "a100"}
    assert pod["automountServiceAccountToken"] is False
    rules = job["spec"]["podFailurePolicy"]["rules"]
    assert [(rule["action"], rule.get("onExitCodes", {}).get("values")) for rule in rules] == [
        ("Ignore", None),
        ("Count", [75]),
        ("FailJob", [75]),
    ]


JOB = {"metadata": {"name": "j"}, "spec": {"activeDeadlineSeconds": 60, "template": {"spec": {"containers": []}}}}
POD = {"spec": {"nodeName": "node-7", "containers": [{"name": "c", "resources": {"limits": {"memory": "32Gi"}}}]}}


def failed(reason: str) -> dict[str, Any]:
    return {"status": {"conditions": [{"type": "Failed", "status": "True", "reason": reason}]}}


def container(**state: Any) -> dict[str, Any]:
    status = {"name": "c", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": state}
    return {"status": {"phase": "Pending", "containerStatuses": [status]}}


def ended(code: int, reason: str) -> dict[str, Any]:
    return container(terminated={"exitCode": code, "reason": reason})


@pytest.mark.parametrize(
    ("job", "pod", "phase", "words", "passing"),
    [
        ({}, None, "waiting", "not made yet", True),
        ({}, {"status": {"phase": "Running"}}, "running", "", True),
        ({}, container(waiting={"reason": "ErrImagePull", "message": "no image"}), "stuck", "no image", False),
        ({}, {"status": {"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "Insufficient gpu"}
        ]}}, "waiting", "Insufficient gpu", True),
        (failed("PodFailurePolicy"), ended(137, "OOMKilled"), "ended", "had asked for 32Gi", False),
        (failed("PodFailurePolicy"), ended(1, "Error"), "ended", "died on node-7 (exit status 1", True),
        (failed("DeadlineExceeded"), None, "ended", "time limit of 60 s", True),
        ({"status": {"conditions": [{"type": "Complete", "status": "True"}]}}, None, "ended", "without a result", True),
    ],
)  # fmt: skip
def test_what_kubernetes_answers_is_told_in_our_words(
    job: dict[str, Any], pod: dict[str, Any] | None, phase: str, words: str, passing: bool
) -> None:
    state = job_state(parsed({"status": {}, **JOB, **job}, "V1Job"), parsed({**POD, **pod}, "V1Pod") if pod else None)
    assert (state.phase, state.passing) == (phase, passing)
    assert words in state.reason


def parsed(content: dict[str, Any], kind: str) -> Any:
    """As the client reads an answer."""
    return kubernetes.client.ApiClient().deserialize(SimpleNamespace(data=json.dumps(content)), kind)


def manifests() -> Iterator[dict[str, Any]]:
    for path in sorted(DEPLOY.glob("*.yaml")):
        if path.name != "kustomization.yaml":
            yield from yaml.safe_load_all(path.read_text())


def test_manifests_are_valid_and_their_settings_are_the_computes() -> None:
    found = list(manifests())
    for content in found:
        kubernetes_validate.validate(content, VERSION, strict=True)
    (files,) = [c for c in found if c["metadata"]["name"] == "drive-assets-files"]
    compute = KubernetesCompute.from_settings({"data_root": "/data", **yaml.safe_load(files["data"]["compute.yaml"])})
    assert (compute.train.memory, compute.annotate.per_task) == ("32Gi", 50)
    named = yaml.safe_load((DEPLOY / "kustomization.yaml").read_text())["resources"]
    assert sorted(named) == sorted(path.name for path in DEPLOY.glob("*.yaml") if path.name != "kustomization.yaml")


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_builds_the_kustomization() -> None:
    built = subprocess.run(["kubectl", "kustomize", str(DEPLOY)], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert "image: registry.example.org/drive-assets:0.1.0" in built.stdout
