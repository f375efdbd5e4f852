"""Only the public listener can be published, whatever the values say."""

from pathlib import Path
from typing import Any

import pytest

from tests.chart.rendering import (
    MINIMAL,
    MONITORING,
    Object,
    merged,
    of_kind,
    refusal,
    render,
    the,
)
from tests.chart.switches import EVERYTHING, INGRESS, ROUTE, SWITCHES, at

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
"""By which an object of the user's own could publish a Service."""
PUBLISHED_PATHS = {"/auth/google", "/connections"}
ROUTES = merged(INGRESS, ROUTE)

OTHERS = [
    merged(ROUTES, EVERYTHING),
    *(merged(ROUTES, context, at(path, value)) for path, (context, value) in SWITCHES.items()),
]


def _check(objects: list[Object]) -> None:
    """Every route leads to the public Service, and only that one may have another type."""
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
            "a snippet could publish",
        ),
        ("haproxy.org/backend-config-snippet", "server x", "a snippet could publish"),
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
