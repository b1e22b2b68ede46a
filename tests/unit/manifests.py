"""The deployments' manifests as kubectl renders them, and who may talk to whom by their network policies."""

from __future__ import annotations

import ipaddress
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import jinja2
import pytest
import yaml

DEPLOYMENTS = Path(__file__).parents[2] / "remote_kernel_gateway"
OVERLAYS = ("remote", "remote-native", "sidecar", "enterprise")
# The one in C, where there is one, takes a tenth of the time.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
KERNEL_POD = DEPLOYMENTS / "k8s/overlays/enterprise/gateway/kernel-pod.yaml.j2"


def kubectl():
    """The path of a kubectl that knows today's kustomize; Debian 12's own does not."""
    found = shutil.which("kubectl")
    if found is None:
        pytest.skip("kubectl is not installed (Debian: kubernetes-client)")
    said = subprocess.run([found, "version", "--client"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"Kustomize Version: v(\d+)", said)
    if version is None or int(version[1]) < 5:
        pytest.skip(f"kubectl has a kustomize before 5.0: {said.strip()!r}")
    return found


@cache
def _rendered(overlay):
    done = subprocess.run(
        [kubectl(), "kustomize", DEPLOYMENTS / "k8s/overlays" / overlay],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def render(overlay):
    """The objects of an overlay."""
    return list(yaml.load_all(_rendered(overlay), Loader=LOADER))


def job():
    """The Job of one question."""
    return yaml.safe_load((DEPLOYMENTS / "k8s/jobs/ask.yaml").read_text())


def kernel_pod(**given):
    """A kernel's pod as Enterprise Gateway starts it, with what a client may give."""
    text = KERNEL_POD.read_text()
    return yaml.safe_load(jinja2.Template(text).render(kernel_pod_name="rlm-1", kernel_id="1-2", **given))


def of_kind(objects, *kinds):
    return [each for each in objects if each["kind"] in kinds]


def templates(objects):
    """The pods that the objects start: (kind, namespace, metadata, spec) of each."""
    for each in objects:
        if each["kind"] == "Pod":
            yield each["kind"], each["metadata"]["namespace"], each["metadata"], each["spec"]
        elif "template" in each.get("spec", {}):
            pod = each["spec"]["template"]
            yield each["kind"], each["metadata"]["namespace"], pod["metadata"], pod["spec"]


@dataclass(frozen=True)
class Peer:
    """Something with an address: a pod, or what is outside. ``ports`` are (protocol, port)."""

    name: str
    ip: str
    ports: tuple = ()
    namespace: str = ""
    labels: dict = field(default_factory=dict, hash=False)


def _matches(selector, labels):
    for need in selector.get("matchExpressions", ()):
        value = labels.get(need["key"])
        known = {
            "In": lambda: value in need["values"],  # noqa: B023  called here
            "NotIn": lambda: value not in need["values"],  # noqa: B023
            "Exists": lambda: value is not None,  # noqa: B023
            "DoesNotExist": lambda: value is None,  # noqa: B023
        }
        if not known[need["operator"]]():
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def _is(peer, said, home):
    """Whether a policy in the namespace ``home`` means this peer."""
    if "ipBlock" in said:
        address = ipaddress.ip_address(peer.ip)
        inside = address in ipaddress.ip_network(said["ipBlock"]["cidr"])
        return inside and not any(
            address in ipaddress.ip_network(each) for each in said["ipBlock"].get("except", ())
        )
    if not peer.namespace:
        return False
    if "namespaceSelector" in said:
        name = {"kubernetes.io/metadata.name": peer.namespace}
        if not _matches(said["namespaceSelector"], name):
            return False
    elif peer.namespace != home:
        return False
    return _matches(said.get("podSelector", {}), peer.labels)


def _open(said, protocol, port):
    assert isinstance(said.get("port", 0), int), "a named port"
    if said.get("protocol", "TCP") != protocol:
        return False
    return "port" not in said or said["port"] <= port <= said.get("endPort", said["port"])


def _lets(policies, peer, other, way, protocol, port):
    """Whether what holds for ``peer`` lets ``other`` through, in the direction ``way``."""
    if not peer.namespace:
        return True
    rules, closed = [], False
    for policy in policies:
        spec = policy["spec"]
        here = policy["metadata"]["namespace"] == peer.namespace
        types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in spec else [])]
        if here and way in types and _matches(spec["podSelector"], peer.labels):
            closed = True
            rules += spec.get(way.lower()) or []
    if not closed:
        return True
    side = "from" if way == "Ingress" else "to"
    return any(
        (not rule.get(side) or any(_is(other, said, peer.namespace) for said in rule[side]))
        and (not rule.get("ports") or any(_open(said, protocol, port) for said in rule["ports"]))
        for rule in rules
    )


def matrix(policies, peers):
    """Who may talk to whom, where a namespace of ours is at an end: ``source > target protocol/port``."""
    ours = {policy["metadata"]["namespace"] for policy in policies}
    return {
        f"{source.name} > {target.name} {protocol}/{port}"
        for source in peers
        for target in peers
        if source is not target and ours & {source.namespace, target.namespace}
        for protocol, port in target.ports
        if _lets(policies, source, target, "Egress", protocol, port)
        and _lets(policies, target, source, "Ingress", protocol, port)
    }
