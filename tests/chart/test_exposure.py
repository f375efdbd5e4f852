"""Only the public listener can be published, with any values."""

from pathlib import Path
from typing import Any

import pytest

from tests.chart.rendering import (
    MINIMAL,
    MONITORING,
    Object,
    broker,
    environment,
    merged,
    of_kind,
    refusal,
    render,
    the,
)
from tests.chart.switches import DRILL, EVERYTHING, INGRESS, ROUTE, SWITCHES, at

KINDS = [
    *(
        "Service",
        "Endpoints",
        "EndpointSlice",
        "List",
        "Ingress",
        "IngressRoute",
        "IngressRouteTCP",
    ),
    *("HTTPRoute", "TCPRoute", "TLSRoute", "GRPCRoute", "Route", "VirtualService", "HTTPProxy"),
]
"""Kinds of a user's own objects that could publish a Service."""
PUBLISHED_PATHS = {"/auth/google", "/connections"}
ROUTES = merged(INGRESS, ROUTE)

OTHERS = [
    merged(ROUTES, EVERYTHING),
    *(merged(ROUTES, context, at(path, value)) for path, (context, value) in SWITCHES.items()),
]


def _check(objects: list[Object]) -> None:
    """Check that every route leads to the public Service, and that only that one may have another
    type.
    """
    services = {one["metadata"]["name"]: one["spec"] for one in of_kind(objects, "Service")}
    assert len(services) == 3
    public = {name for name, spec in services.items() if spec["ports"][0]["targetPort"] == "public"}
    assert len(public) == 1
    for name, spec in services.items():
        assert len(spec["ports"]) == 1
        assert name in public or spec["type"] == "ClusterIP"
        assert "externalIPs" not in spec
    backends, paths = set(), set()
    for one in of_kind(objects, "Ingress"):
        assert "defaultBackend" not in one["spec"]
        for rule in one["spec"]["rules"]:
            backends |= {path["backend"]["service"]["name"] for path in rule["http"]["paths"]}
            paths |= {path["path"] for path in rule["http"]["paths"]}
    for one in of_kind(objects, "HTTPRoute"):
        for rule in one["spec"]["rules"]:
            backends |= {ref["name"] for ref in rule["backendRefs"]}
            paths |= {match["path"]["value"] for match in rule["matches"]}
    assert backends == public
    assert paths == PUBLISHED_PATHS


@pytest.mark.parametrize("values", OTHERS)
def test_no_value_publishes_another_listener(values: Object, sampled: Path) -> None:
    _check(render(merged(MINIMAL, values), apis=MONITORING, chart=sampled))


@pytest.mark.parametrize(
    "kind",
    KINDS,
)
@pytest.mark.parametrize("is_text", [False, True])
def test_extra_objects_that_could_publish_one_are_refused(kind: str, is_text: bool) -> None:
    item: Any = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "x"}}
    if is_text:
        item = f'apiVersion: v1\nkind: {{{{ "{kind}" }}}}\nmetadata: {{name: x}}\n'
    message = refusal(merged(MINIMAL, {"extraObjects": [item]}))
    assert f"extraObjects[0] is a {kind}: only the chart's own" in message


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        (
            "nginx.ingress.kubernetes.io/server-snippet",
            "location /v1 {}",
            "could publish",
        ),
        ("haproxy.org/backend-config-snippet", "server x", "could publish"),
        ("haproxy-ingress.github.io/config-backend", "server x 10.0.0.7:80", "could publish"),
        ("nginx.org/location-snippets", "proxy_pass http://x;", "could publish"),
        ("getambassador.io/config", "kind: Mapping", "could publish"),
        ("nginx.ingress.kubernetes.io/mirror-target", "http://10.0.0.7:8001/v1", "names the"),
        ("example.com/backend", "DEMO-TOKEN-BROKER-INTERNAL.brokers.svc", "names the"),
        ("nginx.ingress.kubernetes.io/default-backend", "demo-token-broker-internal", "names the"),
        ("example.com/mirror", "http://demo-token-broker-ops:8002", "names the"),
    ],
)
@pytest.mark.parametrize("place", ["ingress", "httpRoute", "services.public"])
def test_annotations_that_could_publish_one_are_refused(
    place: str, key: str, value: str, why: str
) -> None:
    message = refusal(merged(MINIMAL, ROUTES, at(f"{place}.annotations", {key: value})))
    assert sum(
        f"{place}.annotations: {key}" in line and why in line for line in message.splitlines()
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("service.beta.kubernetes.io/aws-load-balancer-type", "external"),
        ("alb.ingress.kubernetes.io/healthcheck-port", "8002"),
        ("external-dns.alpha.kubernetes.io/hostname", "internal-ops.example.com"),
    ],
)
def test_other_annotations_are_accepted(key: str, value: str) -> None:
    annotations = at("services.public.annotations", {key: value})
    service = the(render(merged(MINIMAL, annotations)), "Service", "")
    assert service["metadata"]["annotations"] == {key: value}


LISTENERS = {
    "BROKER_PUBLIC_LISTEN": "0.0.0.0:8000",
    "BROKER_INTERNAL_LISTEN": "0.0.0.0:8001",
    "BROKER_OPS_LISTEN": "0.0.0.0:8002",
    "BROKER_CALLERS_FILE": "/etc/token-broker/callers/callers.yaml",
}
"""The variables that determine the internal API's address and its callers."""


@pytest.mark.parametrize("name", LISTENERS)
@pytest.mark.parametrize("entry", [{"value": "0.0.0.0:8000"}, {"valueFrom": {}}, {}])
def test_extra_env_can_not_move_a_listener_or_the_callers(name: str, entry: Object) -> None:
    message = refusal(merged(MINIMAL, {"extraEnv": [{"name": name, **entry}]}))
    assert message.splitlines()[-1] == f"extraEnv: {name} is refused: the chart sets it"


def test_extra_env_from_can_not_move_a_listener_or_the_callers_either() -> None:
    """Kubernetes prefers a variable of `env` to the same name in `envFrom`."""
    values = {"extraEnvFrom": [{"configMapRef": {"name": "hostile"}}]}
    variables = environment(broker(render(merged(MINIMAL, values))))
    assert variables.items() >= LISTENERS.items()


PORT = {"containerPort": 8001}
HOSTILE: list[tuple[str, Any, str]] = [
    *(
        (place, [{"name": "x", "image": "x", "ports": [PORT | {key: value}]}], key)
        for place in ("extraContainers", "extraInitContainers", "drill.initContainers")
        for key, value in (("hostPort", 8001), ("hostIP", "0.0.0.0"))
    ),
    ("services.internal.annotations", {"tailscale.com/expose": "true"}, "annotations"),
    ("services.internal.labels", {"mirror.linkerd.io/exported": "true"}, "labels"),
    ("services.internal.type", "LoadBalancer", "type"),
    ("services.internal.externalIPs", ["198.51.100.7"], "externalIPs"),
    ("services.internal.loadBalancerIP", "198.51.100.7", "loadBalancerIP"),
    ("services.internal.nodePort", 30001, "nodePort"),
    ("services.internal.targetPort", 8000, "targetPort"),
    ("services.ops", {"port": 80}, "ops"),
    ("services.public.targetPort", "internal", "targetPort"),
    ("services.public.ports", [{"port": 81, "targetPort": 8001}], "ports"),
    ("services.public.extraPorts", [{"port": 81, "targetPort": 8001}], "extraPorts"),
    ("services.public.externalIPs", ["198.51.100.7"], "externalIPs"),
    ("services.public.selector", {"a": "b"}, "selector"),
    ("ingress.paths", ["/v1"], "paths"),
    ("ingress.defaultBackend", {"service": {"name": "x"}}, "defaultBackend"),
    ("httpRoute.filters", [{"type": "URLRewrite"}], "filters"),
    ("hostNetwork", True, "hostNetwork"),
    ("podSecurityContext.hostNetwork", True, "hostNetwork"),
    ("drill.hostNetwork", True, "hostNetwork"),
    ("hostAliases", [{"ip": "10.0.0.1"}], "hostAliases"),
    ("dnsPolicy", "ClusterFirstWithHostNet", "dnsPolicy"),
    ("listenAddress", "0.0.0.0:8001", "listenAddress"),
]


@pytest.mark.parametrize(("path", "value", "named"), HOSTILE)
def test_values_that_would_publish_one_do_not_exist(path: str, value: Any, named: str) -> None:
    message = refusal(merged(MINIMAL, DRILL, at(path, value)))
    lines = [line for line in message.splitlines() if line.startswith("- at")]
    assert len(lines) == 1
    assert named in lines[0]


@pytest.mark.parametrize(
    "key",
    [
        "k8s.v1.cni.cncf.io/networks",
        "v1.multus-cni.io/default-network",
        "cni.projectcalico.org/floatingIPs",
        "networking.gke.io/interfaces",
        "k8s.ovn.org/pod-networks",
    ],
)
def test_a_pod_cannot_be_attached_to_another_network(key: str) -> None:
    """No NetworkPolicy applies to such a network, and the listeners bind to every address."""
    message = refusal(merged(MINIMAL, {"podAnnotations": {key: "lan"}}))
    assert f"podAnnotations: {key} is refused" in message


@pytest.mark.parametrize("listener", ["internal", "ops"])
@pytest.mark.parametrize("cidr", ["0.0.0.0/0", "::/0"])
def test_not_every_address_can_be_admitted(listener: str, cidr: str) -> None:
    peers = [{"podSelector": {}}, {"ipBlock": {"cidr": cidr}}]
    message = refusal(merged(MINIMAL, at(f"networkPolicy.{listener}.from", peers)))
    assert f"networkPolicy.{listener}.from: {cidr} is refused: it admits every address" in message


@pytest.mark.parametrize("suffix", ["-internal", "-ops"])
def test_no_label_or_annotation_of_the_user_is_on_the_other_services(suffix: str) -> None:
    """Linkerd, for example, publishes a Service to other clusters by a label."""
    label = {"mirror.linkerd.io/exported": "true"}
    objects = render(merged(MINIMAL, EVERYTHING, {"commonLabels": label}))
    metadata = the(objects, "Service", suffix)["metadata"]
    assert "annotations" not in metadata
    own = ("app.kubernetes.io/", "helm.sh/", "token-broker-listener")
    assert not [name for name in metadata["labels"] if not name.startswith(own)]
    assert label.items() <= the(objects, "Service", "")["metadata"]["labels"].items()


def test_ports_of_other_containers_do_not_replace_those_of_the_services() -> None:
    """A Service finds a port by its name in the first container that has it."""
    side = {"name": "a", "image": "x", "ports": [{"name": "public", "containerPort": 8001}]}
    values = {"extraContainers": [side], "extraInitContainers": [side | {"name": "b"}]}
    spec = the(render(merged(MINIMAL, values)), "Deployment")["spec"]["template"]["spec"]
    assert spec["containers"][0]["name"] == "broker"


def test_hosts_are_those_of_the_redirect_uris() -> None:
    path = "/auth/google/callback"
    uris = f"https://a.example.com{path}, https://b.example.com:8443{path}"
    objects = render(merged(MINIMAL, ROUTES, at("settings.GOOGLE_REDIRECT_URI", uris)))
    hosts = ["a.example.com", "b.example.com"]
    assert [rule["host"] for rule in the(objects, "Ingress")["spec"]["rules"]] == hosts
    assert the(objects, "Ingress")["spec"]["tls"][0]["hosts"] == hosts
    assert the(objects, "HTTPRoute")["spec"]["hostnames"] == hosts


def test_each_listener_has_a_policy_of_its_own() -> None:
    objects = render(MINIMAL)
    pods = the(objects, "Deployment")["spec"]["selector"]["matchLabels"]
    for listener, port, everybody in (
        ("public", 8000, True),
        ("internal", 8001, False),
        ("ops", 8002, False),
    ):
        spec = the(objects, "NetworkPolicy", f"-{listener}")["spec"]
        assert spec["podSelector"]["matchLabels"] == pods
        assert spec["policyTypes"] == ["Ingress"]
        (rule,) = spec["ingress"]
        assert rule["ports"] == [{"protocol": "TCP", "port": port}]
        assert ("from" not in rule) is everybody


def test_egress_is_dns_and_the_ports_that_are_needed() -> None:
    spec = the(render(MINIMAL), "NetworkPolicy", "-egress")["spec"]
    ports = [[port["port"] for port in rule["ports"]] for rule in spec["egress"]]
    assert ports == [[53, 53], [443, 5432, 8200]]
