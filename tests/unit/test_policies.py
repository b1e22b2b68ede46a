"""Who may talk to whom in a cluster, computed from the policies as they are rendered."""

from __future__ import annotations

import pytest
from manifests import OVERLAYS, Peer, job, kernel_pod, matrix, of_kind, render, templates

TCP = tuple(("TCP", port) for port in (22, 53, 443, 8877, 8888, 8889, 40000, 40500, 41000, 41001))
EVERY = (*TCP, ("UDP", 53))
OUTSIDE = (
    Peer("model", "198.51.100.7", (("TCP", 443), ("TCP", 80))),
    Peer("metadata", "169.254.169.254", (("TCP", 80), ("TCP", 443))),
    Peer("database", "10.9.8.7", (("TCP", 443), ("TCP", 5432))),
    Peer("api server", "192.0.2.1", (("TCP", 6443),)),
    Peer("dns", "10.96.0.10", (("TCP", 53), ("UDP", 53)), "kube-system", {"k8s-app": "kube-dns"}),
    Peer("another in kube-system", "10.96.0.11", EVERY, "kube-system"),
    Peer(
        "stranger",
        "10.244.9.9",
        EVERY,
        "default",
        # What it calls itself doesn't help it: it is in another namespace.
        {"app.kubernetes.io/component": "orchestrator"},
    ),
)
ANYWHERE = {
    "{} > model TCP/443",
    "{} > dns TCP/53",
    "{} > dns UDP/53",
}
EXPECTED = {
    "remote": {
        *(each.format("orchestrator") for each in ANYWHERE),
        *(each.format("ask") for each in ANYWHERE),
        "orchestrator > gateway TCP/8888",
        "ask > gateway TCP/8888",
    },
    "sidecar": {each.format("orchestrator") for each in ANYWHERE},
    "enterprise": {
        *(each.format("orchestrator") for each in ANYWHERE),
        "orchestrator > gateway TCP/8888",
        "gateway > kernel TCP/40000",
        "gateway > kernel TCP/40500",
        "gateway > kernel TCP/41000",
        "kernel > gateway TCP/8877",
        "gateway > api server TCP/6443",
    },
}


EXPECTED["remote-native"] = EXPECTED["remote"]


def peers(overlay):
    objects = render(overlay)
    if overlay == "enterprise":
        objects.append(kernel_pod())
    if overlay.startswith("remote"):
        objects.append(job())
    pods = []
    for number, (kind, namespace, metadata, spec) in enumerate(templates(objects)):
        name = spec["containers"][0]["name"]
        assert kind
        pods.append(Peer(name, f"10.244.0.{number + 1}", EVERY, namespace, metadata["labels"]))
        # Somebody who got into the namespace, and is none of ours.
        pods.append(Peer(f"stray {number}", f"10.244.1.{number + 1}", EVERY, namespace))
    return (*pods, *OUTSIDE)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_who_may_talk_to_whom(overlay):
    assert matrix(of_kind(render(overlay), "NetworkPolicy"), peers(overlay)) == EXPECTED[overlay]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_policy_is_needed(overlay):
    policies = of_kind(render(overlay), "NetworkPolicy")
    everybody = peers(overlay)
    for gone in policies:
        rest = [each for each in policies if each is not gone]
        assert matrix(rest, everybody) != EXPECTED[overlay], gone["metadata"]["name"]


def test_kernels_of_the_execution_plane_have_no_way_out():
    """The one exception is where Enterprise Gateway has to hear from a kernel."""
    for overlay, who in (("remote", "gateway"), ("enterprise", "kernel")):
        found = {each for each in EXPECTED[overlay] if each.startswith(f"{who} >")}
        assert found <= {"kernel > gateway TCP/8877"}


def allow(**spec):
    return {
        "metadata": {"namespace": "a"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], **spec},
    }


A = Peer("a", "10.0.0.1", (("TCP", 1), ("TCP", 5)), "a", {"x": "1"})
B = Peer("b", "10.0.0.2", (("TCP", 1),), "b", {"x": "1"})
C = Peer("c", "192.0.2.9", (("TCP", 1),))
IN_B = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "b"}}}
NOT_1 = {"podSelector": {"matchExpressions": [{"key": "x", "operator": "NotIn", "values": ["1"]}]}}


def to(*peers, **more):
    return allow(egress=[{"to": list(peers), **more}])


def from_(*peers, **more):
    return allow(ingress=[{"from": list(peers), **more}])


def block(cidr, *but):
    return {"ipBlock": {"cidr": cidr, "except": list(but)}}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (allow(), set()),
        (allow(egress=[{}]), {"a > b TCP/1", "a > c TCP/1"}),
        (allow(egress=[{"ports": [{"protocol": "UDP"}]}]), set()),
        (allow(policyTypes=["Ingress"]), {"a > b TCP/1", "a > c TCP/1"}),
        (from_(), {"b > a TCP/1", "b > a TCP/5", "c > a TCP/1", "c > a TCP/5"}),
        (from_({"podSelector": {}}), set()),
        (from_({"namespaceSelector": {}}, ports=[{"port": 1}]), {"b > a TCP/1"}),
        (from_(block("192.0.2.9/32"), ports=[{"port": 2, "endPort": 9}]), {"c > a TCP/5"}),
        (to(IN_B), {"a > b TCP/1"}),
        (to({**IN_B, **NOT_1}), set()),
        (to(IN_B, block("192.0.2.0/24")), {"a > b TCP/1", "a > c TCP/1"}),
        (to(block("0.0.0.0/0", "10.0.0.0/8")), {"a > c TCP/1"}),
    ],
)
def test_the_evaluator(policy, expected):
    assert matrix([policy], [A, B, C]) == expected
