"""The examples of docs/how-to/deploy-kubernetes.md: the chart and the broker accept them."""

import json
from pathlib import PurePosixPath

import pytest
import yaml

from broker.callers.callers_file import parse_callers
from broker.settings import VaultJwtLogin, VaultSource, load_settings
from tests.chart.guide import CALLER, INSTALL, KEYLESS, OTHERS, VAULT, callers_file
from tests.chart.rendering import (
    MONITORING,
    NEWEST,
    Object,
    broker,
    complaints,
    environment,
    merged,
    render,
    the,
)
from tests.chart.switches import TRIAL_VALUES
from tests.support.projected_tokens import AUDIENCE


@pytest.mark.parametrize("values", [INSTALL, KEYLESS, *(merged(INSTALL, one) for one in OTHERS)])
def test_an_example_renders_to_valid_objects(values: Object) -> None:
    objects = render(values, apis=MONITORING)
    assert not [line for one in objects for line in complaints(one, NEWEST)]


@pytest.mark.parametrize("values", [INSTALL, KEYLESS])
def test_the_broker_accepts_the_callers_of_an_example(values: Object) -> None:
    (caller,) = parse_callers(callers_file(render(values))).callers
    assert caller.name == "calendar-sync"


def test_a_workload_s_issuer_is_configured() -> None:
    file = yaml.safe_load(callers_file(render(KEYLESS)))
    workload = file["callers"]["calendar-sync"]["workload"]
    assert workload["issuer"] in file["issuers"]
    (issuer,) = parse_callers(callers_file(render(KEYLESS))).configured_issuers
    assert issuer.url == workload["issuer"]


def test_the_files_for_fetching_the_issuer_s_keys_are_in_the_broker_s_pod() -> None:
    objects = render(KEYLESS)
    file = yaml.safe_load(callers_file(objects))
    (issuer,) = file["issuers"].values()
    mounts = {one["mountPath"]: one["name"] for one in broker(objects)["volumeMounts"]}
    pod = the(objects, "Deployment")["spec"]["template"]["spec"]
    volumes = {one["name"]: one for one in pod["volumes"]}

    ca_file, token_file = PurePosixPath(issuer["ca_file"]), PurePosixPath(issuer["token_file"])
    # Kubernetes creates this ConfigMap, with this key, in every namespace.
    assert volumes[mounts[str(ca_file.parent)]]["configMap"] == {"name": "kube-root-ca.crt"}
    assert ca_file.name == "ca.crt"
    (source,) = volumes[mounts[str(token_file.parent)]]["projected"]["sources"]
    # Without an audience it is the API server's own.
    assert source["serviceAccountToken"].keys() == {"path", "expirationSeconds"}
    assert source["serviceAccountToken"]["path"] == token_file.name


def test_the_broker_may_connect_to_the_api_server() -> None:
    egress = the(render(KEYLESS), "NetworkPolicy", "-egress")["spec"]["egress"]
    assert 6443 in [port["port"] for rule in egress for port in rule["ports"]]


def test_the_second_example_keeps_the_settings_of_the_first() -> None:
    """Helm replaces lists, so the second example must repeat the first one's."""
    objects = render(KEYLESS)
    mounts = [one["mountPath"] for one in broker(objects)["volumeMounts"]]
    assert "/etc/db-ca" in mounts
    ports = the(objects, "NetworkPolicy", "-egress")["spec"]["egress"][1]["ports"]
    assert {443, 5432} <= {port["port"] for port in ports}
    assert environment(broker(objects))["GOOGLE_SCOPES"]


def test_the_caller_s_pod_is_admitted_and_has_the_right_audience() -> None:
    objects = render(KEYLESS)
    template = CALLER["spec"]["template"]
    policy = the(objects, "NetworkPolicy", "-internal")["spec"]["ingress"][0]
    wanted = policy["from"][0]["podSelector"]["matchLabels"]
    assert wanted.items() <= template["metadata"]["labels"].items()
    (volume,) = template["spec"]["volumes"]
    (source,) = volume["projected"]["sources"]
    file = yaml.safe_load(callers_file(objects))
    workload = file["callers"]["calendar-sync"]["workload"]
    assert source["serviceAccountToken"]["audience"] == workload["audience"]
    account = template["spec"]["serviceAccountName"]
    assert workload["subject"] == f"system:serviceaccount:prod:{account}"
    spec = json.loads(json.dumps(CALLER["spec"]))
    spec["selector"] = {"matchLabels": template["metadata"]["labels"]}
    spec["template"]["spec"]["containers"][0]["image"] = "x"
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}}
    assert not complaints(deployment | {"spec": spec}, NEWEST)


def test_vault_s_token_is_where_the_broker_reads_it() -> None:
    objects = render(merged(INSTALL, VAULT))
    pod = the(objects, "Deployment")["spec"]["template"]["spec"]
    (volume,) = (one for one in pod["volumes"] if one["name"] == "vault-token")
    (mount,) = (one for one in broker(objects)["volumeMounts"] if one["name"] == "vault-token")
    (token,) = volume["projected"]["sources"]
    path = PurePosixPath(mount["mountPath"]) / token["serviceAccountToken"]["path"]
    variables = environment(broker(objects))
    given = {name: value for name, value in variables.items() if not name.endswith("_FILE")}
    needed = {name: TRIAL_VALUES[name] for name in ("DATABASE_URL", "SECRET_KEY")}
    needed["BROKER_CALLERS_FILE"] = variables["BROKER_CALLERS_FILE"]
    source = load_settings(given | needed).secret_source
    assert isinstance(source, VaultSource)
    assert isinstance(source.login, VaultJwtLogin)
    assert (path, source.login.role) == (source.login.token_file, VAULT["settings"]["VAULT_ROLE"])
    # As in tests/secret_sources/test_vault_login_kubernetes.py: a real API server reviews it there.
    assert token["serviceAccountToken"]["audience"] == AUDIENCE


def test_all_other_examples_are_present() -> None:
    assert len(OTHERS) == 4
