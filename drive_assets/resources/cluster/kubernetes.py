"""A Kubernetes cluster as compute: each job is a Job of one pod, with dagster-k8s's pod and the official client.

PipesK8sClient itself waits in the op's process and deletes its pod when that ends. Jobs here outlive it, so the pod's
body is taken from there, and the rest from what all clusters have in common.
"""

import hashlib
import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field

from drive_assets.jobs import JobFolder
from drive_assets.resources.cluster.batch import NotNow, State
from drive_assets.resources.cluster.compute import ClusterCompute, JobSize
from drive_assets.tasks import RESUME_STATUS
from model.common.errors import DataError

if TYPE_CHECKING:
    from kubernetes.client import V1Job, V1Pod

T = TypeVar("T")
ROOT, SUBMISSION, INDEX = "drive-assets/root", "drive-assets/submission", "drive-assets/index"
STUCK = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError")
"""Reasons for which a container waits until somebody puts something right."""
KEPT_S = 86400
"""Seconds after its end for which a Job can be asked about."""


class PodSize(JobSize):
    """What a job's pod asks for."""

    memory: str = Field(default="16Gi", description="Memory a job, as Kubernetes writes it: asked for, and the limit.")
    gpus: int = Field(default=1, ge=0, description="GPUs a job (nvidia.com/gpu).")
    time_s: int = Field(default=86400, ge=1, description="Seconds that a job may run.")


class KubernetesCompute(ClusterCompute):
    """Jobs of a Kubernetes cluster whose pods mount the data root at the path at which this machine does."""

    image: str = Field(default="", description="Container image with this version of the package.")
    claim: str = Field(default="drive-assets-data", description="Persistent volume claim of the data root.")
    namespace: str = "drive-assets"
    service_account: str = Field(default="", description="Of the pods; they need no access to the cluster.")
    python: str = "python"
    end_early_s: int = Field(
        default=120, ge=0, description="Seconds that a pod gets to save and end when its node is drained or taken away."
    )
    restarts: int = Field(default=50, ge=0, description="How often a job that ended early goes on by itself.")
    pod_spec: dict[str, Any] = Field(
        default={}, description="More of the pod's spec, such as nodeSelector, tolerations or priorityClassName."
    )
    train: PodSize = PodSize(memory="32Gi")
    train_detector: PodSize = PodSize(cpus=8, memory="32Gi")
    evaluate: PodSize = PodSize(time_s=3600)
    annotate: PodSize = PodSize(time_s=3600, per_task=20)

    def size(self, task: str) -> PodSize:
        size = super().size(task)
        assert isinstance(size, PodSize)
        return size

    def worker(self) -> str:
        """The command of the worker, for the shell."""
        return f"{self.python} -u -m drive_assets.worker"

    # The four verbs

    def submit(self, task: str, name: str, folders: Sequence[JobFolder]) -> list[str]:
        jobs = [self.job(task, name, index, folder) for index, folder in enumerate(folders)]
        made: list[str] = []
        for job in jobs:
            try:
                self._ask(lambda job=job: _api().batch.create_namespaced_job(self.namespace, job))  # type: ignore[misc]
            except (NotNow, DataError):
                self.cancel(made)
                raise
            made.append(str(job.metadata.name))
        return made

    def states(self) -> Mapping[str, State]:
        chosen = f"{ROOT}={self._root}"
        jobs = self._ask(lambda: _api().batch.list_namespaced_job(self.namespace, label_selector=chosen)).items
        pods = self._ask(lambda: _api().core.list_namespaced_pod(self.namespace, label_selector=chosen)).items
        pods.sort(key=lambda pod: pod.metadata.creation_timestamp)
        newest = {pod.metadata.labels.get("job-name", ""): pod for pod in pods}
        return {job.metadata.name: job_state(job, newest.get(job.metadata.name)) for job in jobs}

    def cancel(self, ids: Sequence[str]) -> None:
        from kubernetes.client import ApiException

        for job in ids:
            try:
                self._ask(
                    lambda job=job: _api().batch.delete_namespaced_job(  # type: ignore[misc]
                        job, self.namespace, propagation_policy="Background"
                    )
                )
            except DataError as error:
                if not (isinstance(error.__cause__, ApiException) and error.__cause__.status == 404):
                    raise

    def adopt(self, name: str) -> dict[int, str]:
        chosen = f"{SUBMISSION}={name}"
        jobs = self._ask(lambda: _api().batch.list_namespaced_job(self.namespace, label_selector=chosen)).items
        return {int(job.metadata.labels[INDEX]): str(job.metadata.name) for job in jobs}

    # What Kubernetes is told

    @property
    def _root(self) -> str:
        return hashlib.sha256(self.data_root.encode()).hexdigest()[:16]

    def script(self, name: str, folder: JobFolder) -> str:
        """What the container runs: the worker, as the process that gets the pod's signals, with a log in its folder."""
        return (
            f"cd {shlex.quote(str(folder.path))} && exec > >(tee -a {name}.log) 2>&1 && echo >> {name}.messages.jsonl "
            f"&& . ./{name}.env && exec {self.worker()}"
        )

    def pod(self, task: str, name: str, index: int, folder: JobFolder) -> "V1Pod":
        from dagster_k8s.pipes import build_pod_body

        size = self.size(task)
        asked = {"cpu": str(size.cpus), "memory": size.memory}
        limits = {"memory": size.memory} | ({"nvidia.com/gpu": str(size.gpus)} if size.gpus else {})
        # Ahead of the end of a drained node: the worker saves, and ends with a status after which the Job begins anew.
        early = ["sh", "-c", "kill -USR1 1; while kill -0 1 2>/dev/null; do sleep 1; done"]
        container = {
            "resources": {"requests": asked, "limits": limits},
            "volumeMounts": [{"name": "data", "mountPath": self.data_root}],
            "lifecycle": {"preStop": {"exec": {"command": early}}},
        }
        spec: dict[str, Any] = {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": self.end_early_s,
            "automountServiceAccountToken": False,
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": self.claim}}],
            "containers": [container],
            **({"serviceAccountName": self.service_account} if self.service_account else {}),
            **self.pod_spec,
        }
        labels = {ROOT: self._root, SUBMISSION: name, INDEX: str(index)}
        command = ["bash", "-c", self.script(name, folder)]
        return build_pod_body(f"{name}-{index}", self.image or None, command, {}, {"labels": labels}, spec)

    def job(self, task: str, name: str, index: int, folder: JobFolder) -> "V1Job":
        """The Job of one folder. It begins anew after an eviction or an early end, and after nothing else."""
        from kubernetes import client

        if not self.image:
            raise DataError("The compute resource names no `image`: build one from deploy/container, and push it.")
        pod = self.pod(task, name, index, folder)
        anew = client.V1PodFailurePolicyRule(
            action="Count",
            on_exit_codes=client.V1PodFailurePolicyOnExitCodesRequirement(operator="In", values=[RESUME_STATUS]),
        )
        lost = client.V1PodFailurePolicyRule(
            action="Ignore",
            on_pod_conditions=[client.V1PodFailurePolicyOnPodConditionsPattern(type="DisruptionTarget", status="True")],
        )
        failed = client.V1PodFailurePolicyRule(
            action="FailJob",
            on_exit_codes=client.V1PodFailurePolicyOnExitCodesRequirement(operator="NotIn", values=[RESUME_STATUS]),
        )
        spec = client.V1JobSpec(
            backoff_limit=self.restarts,
            active_deadline_seconds=self.size(task).time_s,
            ttl_seconds_after_finished=KEPT_S,
            pod_failure_policy=client.V1PodFailurePolicy(rules=[lost, anew, failed]),
            template=client.V1PodTemplateSpec(metadata=client.V1ObjectMeta(labels=pod.metadata.labels), spec=pod.spec),
        )
        meta = client.V1ObjectMeta(name=pod.metadata.name, labels=pod.metadata.labels)
        return client.V1Job(api_version="batch/v1", kind="Job", metadata=meta, spec=spec)

    # What Kubernetes says

    def _ask(self, do: Callable[[], T]) -> T:
        from kubernetes.client import ApiException
        from kubernetes.config import ConfigException
        from urllib3.exceptions import HTTPError

        try:
            return do()
        except ApiException as error:
            said = f"{error.status} {error.reason}: {_message(error)}"
            if error.status in (0, 408, 409, 429) or (error.status or 0) >= 500:
                raise NotNow(f"Kubernetes does not take this at the moment: {said}.") from error
            raise DataError(f"Kubernetes refused this in namespace {self.namespace}: {said}.") from error
        except HTTPError as error:
            raise NotNow(f"Kubernetes cannot be reached ({type(error).__name__}).") from error
        except ConfigException as error:
            raise DataError(f"There is no access to Kubernetes ({error}): set KUBECONFIG.") from error


@dataclass(frozen=True)
class _Api:
    batch: Any
    core: Any


@cache
def _api() -> _Api:
    """The official client, inside of a cluster or by KUBECONFIG."""
    from kubernetes import client, config

    if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
        config.load_incluster_config()
    else:
        config.load_kube_config()
    return _Api(client.BatchV1Api(), client.CoreV1Api())


def _message(error: Any) -> str:
    """Kubernetes's own sentence of an answer."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.body)[:300]


def job_state(job: "V1Job", pod: "V1Pod | None") -> State:
    """How a Job stands, with what its newest pod tells of the reason."""
    conditions = {condition.type: condition for condition in job.status.conditions or [] if condition.status == "True"}
    if "Complete" in conditions:
        return State("ended", "ended without a result.")
    if "Failed" in conditions:
        return _failed(conditions["Failed"].reason or "", job, pod)
    status = pod.status if pod is not None else None
    for container in (status.container_statuses or []) if status else []:
        waiting = container.state.waiting if container.state else None
        if waiting and waiting.reason in STUCK:
            said = f"{waiting.reason}: {waiting.message or ''}".strip(": ")
            return State("stuck", f"was deleted, as its pod cannot start: {said}. Put `image` right.", passing=False)
    if status and status.phase == "Running":
        return State("running")
    placed = (
        [c for c in (status.conditions or []) if c.type == "PodScheduled" and c.status == "False"] if status else []
    )
    return State("waiting", f"{placed[0].reason}: {placed[0].message}" if placed else "its pod is not made yet")


def _failed(reason: str, job: "V1Job", pod: "V1Pod | None") -> State:
    if reason == "DeadlineExceeded":
        limit = job.spec.active_deadline_seconds
        return State(
            "ended", f"reached its time limit of {limit} s; run again it resumes. Raise `time_s` for this task."
        )
    for container in (pod.status.container_statuses or []) if pod is not None else []:
        ended = container.state.terminated if container.state else None
        if ended and ended.reason == "OOMKilled":
            limit = pod.spec.containers[0].resources.limits["memory"]  # type: ignore[union-attr]
            text = f"was out of memory: it had asked for {limit}. Raise `memory` for this task."
            return State("ended", text, passing=False, memory=True)
        if ended:
            node = pod.spec.node_name or "its node"  # type: ignore[union-attr]
            return State("ended", f"died on {node} (exit status {ended.exit_code}, {ended.reason}).")
    return State("ended", f"failed ({reason}).")
