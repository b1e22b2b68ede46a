"""The manifests of deployments: that a cluster takes them, and what each pod may do."""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import compose_spec
import kubernetes_validate
import pytest
import yaml
from dockerfile_parse import DockerfileParser
from manifests import DEPLOYMENTS, OVERLAYS, job, kernel_pod, kubectl, of_kind, render, templates

VERSIONS = ("1.32", "1.37")
IMAGES = sorted((DEPLOYMENTS / "images").glob("*.Dockerfile"))
# What a cluster's keeper makes, as the pages say.
GIVEN = {"rlm-model", "rlm-gateway", "rlm-orchestrator", "rlm-gateway-tls", "rlm-gateway-tenants"}
GIVEN_MAPS = {"rlm-authorities", "rlm-context"}
OVERLAY = pytest.mark.parametrize("overlay", OVERLAYS)


def everything(overlay):
    """What an overlay is, and what is started beside it."""
    beside = {"enterprise": [kernel_pod()], "sidecar": []}
    return [*render(overlay), *beside.get(overlay, [job()])]


def containers(spec):
    return [*spec.get("initContainers", []), *spec["containers"]]


@pytest.mark.parametrize("version", VERSIONS)
@OVERLAY
def test_a_cluster_takes_them(overlay, version):
    for each in everything(overlay):
        assert kubernetes_validate.validate(each, version, strict=True) == version


def test_validation_finds_what_is_wrong():
    wrong = job()
    wrong["spec"]["template"]["spec"]["containers"][0]["securityContext"]["readOnlyRoot"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


@OVERLAY
def test_pods_have_no_more_rights_than_they_need(overlay):
    found = list(templates(everything(overlay)))
    assert found
    for kind, namespace, metadata, spec in found:
        what = f"{kind} in {namespace} {metadata['labels']}"
        pod = spec["securityContext"]
        assert pod["runAsNonRoot"] is True, what
        assert pod["runAsUser"] >= 1000, what
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}, what
        component = metadata["labels"]["app.kubernetes.io/component"]
        starts_pods = overlay == "enterprise" and component == "gateway"
        assert spec["automountServiceAccountToken"] is starts_pods, what
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), what
        assert not spec.get("shareProcessNamespace"), what
        for volume in spec["volumes"]:
            assert set(volume) - {"name"} <= {"emptyDir", "configMap", "secret"}, what
            assert "emptyDir" not in volume or "sizeLimit" in volume["emptyDir"], what
        for container in containers(spec):
            rights = container["securityContext"]
            assert rights == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, what
            limits = container["resources"]
            assert {"cpu", "memory"} <= set(limits["limits"]), what
            assert {"cpu", "memory"} <= set(limits["requests"]), what
            if kind in ("StatefulSet", "Deployment"):
                assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container), what


@OVERLAY
def test_namespaces_refuse_pods_with_more_rights(overlay):
    objects = render(overlay)
    named = {each["metadata"]["name"]: each["metadata"]["labels"] for each in of_kind(objects, "Namespace")}
    assert {each["metadata"]["namespace"] for each in objects if each["kind"] != "Namespace"} == set(named)
    for labels in named.values():
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@OVERLAY
def test_what_objects_refer_to_is_there(overlay):
    objects = everything(overlay)
    maps = {each["metadata"]["name"] for each in of_kind(objects, "ConfigMap")} | GIVEN_MAPS
    accounts = {each["metadata"]["name"] for each in of_kind(objects, "ServiceAccount")}
    pods = [(namespace, metadata["labels"], spec) for _, namespace, metadata, spec in templates(objects)]
    claims = {"home"}
    for _, _, spec in pods:
        assert spec["serviceAccountName"] in accounts
        volumes = {each["name"] for each in spec["volumes"]} | claims
        for volume in spec["volumes"]:
            assert volume.get("configMap", {}).get("name", "rlm-context") in maps
            assert volume.get("secret", {}).get("secretName", "rlm-model") in GIVEN
        for container in containers(spec):
            assert {each["name"] for each in container["volumeMounts"]} <= volumes
            for variable in container.get("env", ()):
                reference = variable.get("valueFrom", {}).get("secretKeyRef")
                assert reference is None or reference["name"] in GIVEN
    for service in of_kind(objects, "Service"):
        ports = {
            port["name"]
            for namespace, labels, spec in pods
            if namespace == service["metadata"]["namespace"]
            and service["spec"]["selector"].items() <= labels.items()
            for container in containers(spec)
            for port in container.get("ports", ())
        }
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for budget in of_kind(objects, "PodDisruptionBudget"):
        needed = budget["spec"]["selector"]["matchLabels"].items()
        assert any(needed <= labels.items() for _, labels, _ in pods)
    for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        (scaled,) = (
            each for each in of_kind(objects, target["kind"]) if each["metadata"]["name"] == target["name"]
        )
        # A number there would undo the autoscaler's at each `apply`.
        assert "replicas" not in scaled["spec"]


def test_gateways_keep_their_orchestrators():
    (service,) = (
        each for each in of_kind(render("remote"), "Service") if each["metadata"]["name"] == "gateway"
    )
    assert service["spec"]["sessionAffinity"] == "ClientIP"
    kinds = {each["kind"] for each in render("remote")}
    assert {"HorizontalPodAutoscaler", "PodDisruptionBudget"} <= kinds


def test_native_kernels_are_one_tenants():
    """They run as the gateway's user, who can read what opens the gateway."""
    (spec,) = (spec for kind, _, _, spec in templates(render("remote-native")) if kind == "Deployment")
    (gateway,) = spec["containers"]
    assert gateway["image"].startswith("rlm-gateway-native:")
    assert "RLM_GATEWAY_TENANTS_FILE" not in {each["name"] for each in gateway["env"]}


def test_the_sidecar_listens_on_loopback_only():
    (spec,) = (spec for _, _, _, spec in templates(render("sidecar")))
    (gateway,) = spec["initContainers"]
    assert gateway["restartPolicy"] == "Always"
    variables = {each["name"]: each.get("value") for each in gateway["env"]}
    assert variables["KG_IP"] == "127.0.0.1"
    assert "ports" not in gateway
    (orchestrator,) = spec["containers"]
    url = next(each["value"] for each in orchestrator["env"] if each["name"] == "RLM_GATEWAY_URL")
    assert url == f"http://127.0.0.1:{variables['KG_PORT']}"
    # Its network is the orchestrator's: nothing but the sandbox of WebAssembly is between code and that.
    assert gateway["image"].startswith("rlm-gateway-pyodide:")


def test_plain_http_stays_on_loopback():
    for overlay in OVERLAYS:
        for _, _, _, spec in templates(everything(overlay)):
            for container in containers(spec):
                for variable in container.get("env", ()):
                    value = str(variable.get("value", ""))
                    assert not value.startswith("http://") or value.startswith("http://127.0.0.1:")
                    assert variable["name"] != "RLM_GATEWAY_INSECURE"


def test_enterprise_gateway_may_start_pods_in_one_namespace_and_nothing_else():
    objects = render("enterprise")
    assert not of_kind(objects, "ClusterRole", "ClusterRoleBinding")
    (role,) = of_kind(objects, "Role")
    (binding,) = of_kind(objects, "RoleBinding")
    assert role["metadata"]["namespace"] == binding["metadata"]["namespace"] == "rlm-kernels"
    (rule,) = role["rules"]
    assert rule == {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "create", "delete"]}
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": "enterprise-gateway", "namespace": "rlm"}
    ]


def test_a_client_of_enterprise_gateway_changes_nothing_of_a_kernels_pod():
    given = {
        "kernel_image": "evil:1.0",
        "kernel_namespace": "kube-system",
        "kernel_service_account_name": "admin",
        "kernel_uid": "0",
        "kernel_volumes": [{"name": "root", "hostPath": {"path": "/"}}],
        "kernel_volume_mounts": [{"name": "root", "mountPath": "/host"}],
        "kernel_working_dir": "/host",
        "kernel_memory_limit": "1Ti",
    }
    assert kernel_pod(**given) == kernel_pod()


@OVERLAY
def test_images_are_pinned(overlay):
    images = {
        container["image"]
        for _, _, _, spec in templates(everything(overlay))
        for container in containers(spec)
    }
    for image in images:
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+", image), image


def composed():
    return yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text())


def test_the_compose_file_is_one():
    compose_spec.PyCompose.from_yaml((DEPLOYMENTS / "compose.yaml").read_text()).validate()
    with pytest.raises(ValueError, match="networs"):
        compose_spec.PyCompose.from_yaml("services:\n  a:\n    image: a:1\n    networs: [b]\n")


def test_the_composed_gateway_has_no_way_out():
    file = composed()
    services, networks = file["services"], file["networks"]
    assert networks["inside"] == {"internal": True}
    assert services["gateway"]["networks"] == ["inside"]
    assert "ports" not in services["gateway"]
    assert set(services["orchestrator"]["networks"]) == {"inside", "outside"}
    for port in services["orchestrator"]["ports"]:
        assert port.startswith("127.0.0.1:")


def test_composed_containers_have_no_more_rights_than_they_need():
    for service in composed()["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["user"] == "10001:10001"
        assert {"mem_limit", "cpus", "pids_limit", "healthcheck"} <= set(service)
        assert "privileged" not in service
        assert re.fullmatch(r"[\w-]+:\d+\.\d+\.\d+", service["image"])
        for name, value in service["environment"].items():
            if re.search("KEY|TOKEN", name):
                assert value.startswith("${"), name


def instructions(path):
    parser = DockerfileParser(fileobj=io.BytesIO(path.read_bytes()))
    return [
        (each["instruction"], each["value"]) for each in parser.structure if each["instruction"] != "COMMENT"
    ]


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_a_read_only_root_leaves_room_where_it_is_written_to(path):
    found = instructions(path)
    (volumes,) = (yaml.safe_load(value) for name, value in found if name == "VOLUME")
    users = [value for name, value in found if name == "USER"]
    assert users == ["10001:10001"]
    image = f"rlm-{path.stem}:0.1.0"
    seen = False
    for overlay in OVERLAYS:
        for _, _, _, spec in templates(everything(overlay)):
            read_only = {each["name"] for each in spec["volumes"] if set(each) & {"configMap", "secret"}}
            for container in containers(spec):
                if container["image"] == image:
                    seen = True
                    room = {
                        each["mountPath"]
                        for each in container["volumeMounts"]
                        if each["name"] not in read_only
                    }
                    assert room == set(volumes)
                    assert spec["securityContext"]["runAsUser"] == 10001
    for service in composed()["services"].values():
        if service["image"] == image:
            seen = True
            room = [each.partition(":")[0] for each in service["tmpfs"]]
            room += [each.partition(":")[2] for each in service.get("volumes", ())]
            assert sorted(room) == sorted(volumes)
    assert seen


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_images_are_made_of_pinned_parts(path):
    found = instructions(path)
    for name, value in found:
        if name == "FROM":
            assert re.match(r"python:3\.11\.\d+-slim-bookworm( AS \w+)?$", value)
        assert name != "ADD"
        if name == "RUN" and "pip install" in value:
            for part in value.split("&&"):
                if "pip install" in part:
                    assert "--requirement" in part or "--no-index" in part
        assert not re.search("KEY|TOKEN|PASSW|SECRET", value) or name == "COMMENT", value
    for name, value in found:
        if name == "COPY" and not value.startswith("--from"):
            # No `COPY . .`: what lies around in a checkout stays out.
            assert value.split()[0] != "."
            for source in value.split()[:-1]:
                assert (DEPLOYMENTS.parent / source).exists(), source


def test_requirements_are_pinned():
    for path in (DEPLOYMENTS / "images/requirements").glob("*.txt"):
        lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
        assert lines
        for line in lines:
            assert re.fullmatch(r"[a-z0-9.-]+==[\w.]+", line), f"{path.name}: {line}"


SECRETS = re.compile(
    r"sk-[\w-]{8,}|-----BEGIN|ghp_\w{20,}|AKIA[A-Z0-9]{12,}|eyJ[\w-]{20,}|kind:\s*Secret\b"
    r"|(?:token|key|password)[\"']?\s*[:=]\s*[\"']?[A-Za-z0-9_/+-]{20,}",
    re.IGNORECASE,
)


def test_no_key_stands_in_any_file():
    for path in DEPLOYMENTS.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            found = SECRETS.search(path.read_text())
            assert found is None, f"{path}: {found}"
    for planted in ("kind: Secret", "token: c2VjcmV0LXRva2VuLXZhbHVl", "sk-canary-00000000"):
        assert SECRETS.search(planted)


PAGES = [
    DEPLOYMENTS.parent / f"docs/{name}.md" for name in ("remote", "sidecar", "enterprise-gateway", "security")
]


def lines(page, tag):
    blocks = re.findall(rf"^```{tag}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_pages_commands_run(page, tmp_path):
    """Those in `sh` blocks, one after the other; `jupyter rlm` has tests/test_docs.py."""
    kubectl()
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(DEPLOYMENTS, tmp_path / "remote_kernel_gateway", ignore=ignored)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    commands = [line for line in lines(page, "sh") if "jupyter rlm" not in line]
    assert commands or page.stem == "security"
    for command in commands:
        done = subprocess.run(
            ["sh", "-ec", command],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_the_pages_would_ask_a_cluster_for(page, tmp_path):
    """Objects that kubectl makes from arguments are made, and not sent; folders and files are there."""
    for name in ("tls.crt", "tls.key", "bundle.crt", "report.txt", "tenants.json"):
        (tmp_path / name).write_text("{}")
    for command in [line for line in lines(page, "text") if re.search(r"\bkubectl\b.*\bcreate (?!--)", line)]:
        # A certificate is looked into; the one of the page is made in the other test.
        if "create secret tls" not in command:
            done = subprocess.run(
                ["sh", "-ec", f"{command} --dry-run=client --output=name"],
                cwd=tmp_path,
                env={**os.environ, "KUBECONFIG": os.devnull, "OPENAI_API_KEY": "sk-canary-docs"},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stderr}"
            assert done.stdout.strip().rpartition("/")[2] in {*GIVEN, *GIVEN_MAPS, "rlm"}
    for word in [
        word for line in lines(page, "text") for word in shlex.split(line) if word.startswith("remote_")
    ]:
        assert (DEPLOYMENTS.parent / word).exists(), word


def test_every_secret_is_told_of():
    told = "\n".join(page.read_text() for page in PAGES)
    for name in GIVEN | GIVEN_MAPS:
        assert f" {name} " in told, f"how to make {name}"
