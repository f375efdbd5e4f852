"""Migrations run before the new release's pods, and depend on nothing of the release."""

from pathlib import Path

import pytest

from tests.chart.rendering import (
    MINIMAL,
    Object,
    environment,
    merged,
    of_kind,
    render,
    the,
)
from tests.chart.switches import EVERYTHING, TRIAL, at

HOOK = "helm.sh/hook"


def _is_hook(one: Object, phase: str = "pre-upgrade") -> bool:
    return phase in one["metadata"].get("annotations", {}).get(HOOK, "").split(",")


@pytest.mark.parametrize("values", [{}, TRIAL, EVERYTHING], ids=["existing", "trial", "everything"])
def test_the_hook_needs_nothing_of_its_own_release(values: Object) -> None:
    objects = render(merged(MINIMAL, values))
    hooks = [one for one in objects if _is_hook(one)]
    own = {one["metadata"]["name"] for one in objects if HOOK not in str(one["metadata"])}
    job = the(hooks, "Job")
    spec = job["spec"]["template"]["spec"]
    assert "serviceAccountName" not in spec
    sources = [
        source
        for volume in spec["volumes"]
        for source in volume.get("projected", {}).get("sources", [])
    ]
    needed = {source["secret"]["name"] for source in sources}
    assert needed
    assert not needed & own
    for one in hooks:
        policy = one["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
        assert one["metadata"]["annotations"][HOOK] == "pre-install,pre-upgrade"
        assert policy == "before-hook-creation,hook-succeeded"
        weight = int(one["metadata"]["annotations"]["helm.sh/hook-weight"])
        assert (weight < 0) is (one is not job)
    assert {one["metadata"]["name"] for one in hooks} == {"demo-token-broker-migrate"}


def test_the_hook_migrates_with_the_new_image_and_one_secret_only() -> None:
    objects = render(merged(MINIMAL, {"image": {"tag": "9.9.9"}}))
    (container,) = the(objects, "Job")["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["migrate"]
    assert container["image"] == "registry.example.com/token-broker:9.9.9"
    assert environment(container) == {"DATABASE_URL_FILE": "/etc/token-broker/secrets/DATABASE_URL"}


def test_the_hook_has_egress_in_a_namespace_that_denies_all() -> None:
    objects = render(MINIMAL)
    policy = the([one for one in objects if _is_hook(one)], "NetworkPolicy")
    labels = the(objects, "Job")["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["spec"]["ingress"] == []
    assert policy["spec"]["egress"] == the(objects, "NetworkPolicy", "-egress")["spec"]["egress"]


def test_as_an_init_container_it_comes_before_all_others() -> None:
    values = merged(
        at("migrations.mode", "initContainer"),
        {"extraInitContainers": [{"name": "mine", "image": "x"}]},
    )
    objects = render(merged(MINIMAL, values))
    spec = the(objects, "Deployment")["spec"]["template"]["spec"]
    assert [one["name"] for one in spec["initContainers"]] == ["migrate", "mine"]
    assert spec["initContainers"][0]["args"] == ["migrate"]
    assert not [one for one in objects if _is_hook(one)]


def test_without_migrations_there_is_no_hook_and_no_init_container() -> None:
    objects = render(merged(MINIMAL, at("migrations.mode", "none")))
    assert not of_kind(objects, "Job")
    assert "initContainers" not in the(objects, "Deployment")["spec"]["template"]["spec"]


def test_argo_cd_hooks_are_left_to_its_mapping_of_helm_s(sampled: Path) -> None:
    """An annotation of Argo CD would make it ignore Helm's."""
    objects = render(merged(MINIMAL, EVERYTHING), chart=sampled)
    assert "argocd.argoproj.io" not in str(objects)
