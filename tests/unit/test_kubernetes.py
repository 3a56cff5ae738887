"""The manifests of infra/kubernetes have valid schemas, run the processes of compose.yaml, and limit their rights."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import promql_parser
import pytest
import yaml  # type: ignore[import-untyped]  # ships no types

from api.server.__main__ import STOP_SECONDS
from infra.doctor.postgresql import WATCHING
from infra.settings import ROOT, Settings, load
from tests.compose.test_compose import OWN

FOLDER = ROOT / "infra" / "kubernetes"
VERSIONS = ("1.30", "1.37")
NAME = "app.kubernetes.io/name"
COMPONENT = "app.kubernetes.io/component"
PROCESSES = ("api", "worker-live", "worker-bulk", "beat")
NOW = 1_800_000_000
ADDRESSES = {"DATABASE_URL": "postgresql://d", "REDIS_URL": "redis://r", "OPENSEARCH_URL": "http://o"}


def documents(*files: Path) -> list[dict[str, Any]]:
    return [document for file in files for document in yaml.safe_load_all(file.read_text("utf-8"))]


BASE = documents(*sorted((FOLDER / "base").glob("[!k]*.yaml")))
KUSTOMIZATIONS = {file.parent.name: documents(file)[0] for file in FOLDER.glob("*/kustomization.yaml")}
WORKLOADS = {
    document["metadata"]["name"].removeprefix("consumers-"): document
    for document in BASE
    if document["kind"] in {"Deployment", "Job"}
}
PODS = {name: document["spec"]["template"] for name, document in WORKLOADS.items()}


def of_kind(kind: str, rows: list[dict[str, Any]] = BASE) -> dict[str, dict[str, Any]]:
    return {row["metadata"]["name"].removeprefix("consumers-"): row for row in rows if row["kind"] == kind}


def validate(document: dict[str, Any]) -> None:
    for version in VERSIONS:
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize(
    "document",
    [*BASE, *documents(FOLDER / "example" / "namespace.yaml")],
    ids=lambda document: f"{document['kind']}-{document['metadata']['name']}",
)
def test_manifest_has_a_valid_schema(document: dict[str, Any]) -> None:
    validate(document)


def test_unknown_field_is_refused() -> None:
    pod = PODS["api"] | {"sepc": {}}
    with pytest.raises(kubernetes_validate.ValidationError, match="sepc"):
        validate(WORKLOADS["api"] | {"spec": WORKLOADS["api"]["spec"] | {"template": pod}})


@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_kustomization_names_its_files(name: str) -> None:
    kustomization = KUSTOMIZATIONS[name]
    named = {*kustomization.get("resources", ()), *kustomization.get("components", ())}
    assert all((FOLDER / name / each).exists() for each in named)
    own = {file.name for file in (FOLDER / name).glob("*.yaml")} - {"kustomization.yaml", "prometheus-adapter.yaml"}
    assert own <= named


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("component", [None, "keda", "external-metric"])
def test_rendered_example_has_valid_schemas(component: str | None, tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "kubernetes")
    example = tmp_path / "kubernetes" / "example"
    if component:
        with (example / "kustomization.yaml").open("a") as file:
            file.write(f"components: [../{component}]\n")
    command = ["kubectl", "kustomize", str(example)]
    rendered = list(yaml.safe_load_all(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    scaled = [document for document in rendered if document["kind"] == "ScaledObject"]
    for document in rendered:
        if document not in scaled:
            validate(document)
        assert document["metadata"].get("namespace", "consumers") == "consumers"
    [settings] = [document for document in rendered if document["kind"] == "ConfigMap"]
    pods = [row["spec"]["template"]["spec"] for row in rendered if row["kind"] in {"Deployment", "Job"}]
    for pod in pods:
        assert pod["containers"][0]["envFrom"][0]["configMapRef"]["name"] == settings["metadata"]["name"]
        assert pod["containers"][0]["image"].startswith("registry.example.com/consumers:")
    scalers = of_kind("HorizontalPodAutoscaler", rendered) | of_kind("ScaledObject", rendered)
    assert set(scalers) == {"api", "worker-bulk"}
    assert len(scaled) == (component == "keda")
    if component == "external-metric":
        assert [metric["type"] for metric in scalers["worker-bulk"]["spec"]["metrics"]] == ["External"]


@pytest.mark.parametrize("name", PROCESSES)
def test_pod_runs_the_command_of_compose(name: str) -> None:
    command, _, _ = OWN[name]["command"].partition(" --loglevel")
    assert PODS[name]["spec"]["containers"][0]["command"] == shlex.split(command)


def test_migration_runs_the_command_of_compose() -> None:
    assert PODS["migrate"]["spec"]["containers"][0]["command"] == OWN["migrate"]["command"]


@pytest.mark.parametrize("name", [*PROCESSES, "migrate"])
def test_pod_has_no_rights(name: str) -> None:
    pod = PODS[name]["spec"]
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is pod["enableServiceLinks"] is False
    assert container["resources"]["limits"]["memory"]
    assert set(container["resources"]["requests"]) == {"cpu", "memory"}
    assert f"USER {pod['securityContext']['runAsUser']}\n" in (ROOT / "infra/docker/Dockerfile").read_text("utf-8")


def test_only_the_migration_has_the_secret_of_the_owner() -> None:
    assert [name for name, pod in PODS.items() if "consumers-owner" in str(pod)] == ["migrate"]


def test_no_manifest_has_a_secret() -> None:
    assert of_kind("Secret") == {}
    assert "postgresql://" not in "".join(file.read_text("utf-8") for file in FOLDER.rglob("*.yaml"))


def test_settings_exist_and_open_the_ports_of_the_pod() -> None:
    [generator] = KUSTOMIZATIONS["base"]["configMapGenerator"]
    values = dict(literal.split("=") for literal in generator["literals"])
    assert {name.lower() for name in values} <= set(Settings.__struct_fields__)
    chosen = load(ADDRESSES | values)
    ports = {port["name"]: port["containerPort"] for port in PODS["api"]["spec"]["containers"][0]["ports"]}
    assert ports == {"http": chosen.port, "operations": chosen.operations_port}
    assert PODS["api"]["metadata"]["annotations"]["prometheus.io/port"] == str(chosen.operations_port)
    assert f" {chosen.liveness_file})" in str(PODS["beat"]["spec"]["containers"][0]["livenessProbe"])


@pytest.mark.parametrize("name", PROCESSES)
def test_process_is_probed_spread_and_may_be_moved(name: str) -> None:
    pod = PODS[name]["spec"]
    labels = {NAME: "consumers", COMPONENT: name}
    assert {"startupProbe", "livenessProbe"} <= set(pod["containers"][0])
    assert pod["terminationGracePeriodSeconds"] > STOP_SECONDS + load(ADDRESSES).stop_delay_seconds
    spread = {each["topologyKey"]: each["labelSelector"]["matchLabels"] for each in pod["topologySpreadConstraints"]}
    assert spread == {"topology.kubernetes.io/zone": labels, "kubernetes.io/hostname": labels}
    budget = of_kind("PodDisruptionBudget")[name]["spec"]
    assert (budget["maxUnavailable"], budget["selector"]["matchLabels"]) == (1, labels)
    assert PODS[name]["metadata"]["labels"] == WORKLOADS[name]["spec"]["selector"]["matchLabels"] == labels
    scaler = of_kind("HorizontalPodAutoscaler").get(name)
    fewest = scaler["spec"]["minReplicas"] if scaler else WORKLOADS[name]["spec"]["replicas"]
    assert fewest >= 2
    assert (scaler is None) == ("replicas" in WORKLOADS[name]["spec"])


@pytest.mark.parametrize(("age", "is_alive"), [(0, True), (9, True), (10, False), (15, False), (None, False)])
@pytest.mark.parametrize("name", PROCESSES[1:])
def test_probe_looks_at_the_age_of_the_file(tmp_path: Path, name: str, age: int | None, *, is_alive: bool) -> None:
    file, clock = tmp_path / "alive", tmp_path / "date"
    # A clock that stands still: the real one can reach the next second before the probe reads it.
    clock.write_text(f"#!/bin/sh\necho {NOW}\n")
    clock.chmod(0o700)
    if age is not None:
        file.touch()
        os.utime(file, (NOW - age,) * 2)
    for probe in ("startupProbe", "livenessProbe"):
        shell, option, script = PODS[name]["spec"]["containers"][0][probe]["exec"]["command"]
        command = [shell, option, script.replace("/tmp/alive", str(file))]
        probed = subprocess.run(command, env={"PATH": f"{tmp_path}:{os.defpath}"}, capture_output=True, check=False)
        assert (probed.returncode == 0) == is_alive


def test_all_pods_need_fewer_connections_than_the_documented_limit() -> None:
    """200, as in compose.yaml and in docs/deploying.md; the figures of docs/deploying.md for each process."""
    scalers = of_kind("HorizontalPodAutoscaler")
    of_api = load(ADDRESSES).database_pool + WATCHING
    most = {"api": of_api, "worker-live": 2, "worker-bulk": 2 * 10, "beat": 8}
    total = sum(
        connections * (scalers[name]["spec"]["maxReplicas"] if name in scalers else WORKLOADS[name]["spec"]["replicas"])
        for name, connections in most.items()
    )
    assert total <= 190


def test_pods_are_reached_by_ingress_and_monitoring_only() -> None:
    policies = of_kind("NetworkPolicy")
    deny = policies.pop("deny")["spec"]
    assert deny == {"podSelector": {"matchLabels": {NAME: "consumers"}}, "policyTypes": ["Ingress", "Egress"]}
    ingress = {name: policy["spec"].get("ingress") for name, policy in policies.items() if "ingress" in policy["spec"]}
    assert [rule["ports"][0]["port"] for rule in ingress.pop("api")] == [8000, 9000]
    assert ingress == {}


def test_scaled_object_scales_the_worker_by_an_existing_metric() -> None:
    [scaled] = documents(FOLDER / "keda" / "worker-bulk.yaml")
    assert scaled["spec"]["scaleTargetRef"]["name"] == WORKLOADS["worker-bulk"]["metadata"]["name"]
    [trigger] = scaled["spec"]["triggers"]
    promql_parser.parse(trigger["metadata"]["query"])
    [rule] = yaml.safe_load((FOLDER / "external-metric" / "prometheus-adapter.yaml").read_text("utf-8"))
    assert rule["metricsQuery"] == trigger["metadata"]["query"]
    assert rule["name"]["as"] in KUSTOMIZATIONS["external-metric"]["patches"][0]["patch"]
