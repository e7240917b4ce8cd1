"""A cluster with a real kubelet, the operator installed as the README says, and a hardened namespace with models in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from job_driver import Driver
from real_cluster import Site, site
from real_install import readme_install, values_of
from real_jobs import (
    ASKERS,
    QWEN,
    ROOT,
    TEAM,
    YI,
    as_list,
    deny_everything,
    namespace,
    tiny_model,
    tutorial_job,
    tutorial_models,
)
from support_wait import eventually

OPERATOR = "finetune-operator"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("e2e")) as found:
        yield found


@pytest.fixture(scope="session")
def operator(cluster: Site) -> Iterator[Driver]:
    """The operator's namespace, hardened, with the chart installed by the README's own line."""
    spaces = [namespace(name) for name in (OPERATOR, TEAM, ASKERS)]
    try:
        _apply(cluster, as_list([*spaces, deny_everything(TEAM), deny_everything(OPERATOR)]))
        cluster.helm(*readme_install(), *values_of(cluster), "--wait", "--timeout", "90s")
        yield Driver(cluster, OPERATOR)
    finally:
        # A cluster of the user's own is left as it was found.
        cluster.kubectl("delete", "namespace", OPERATOR, TEAM, ASKERS, "--ignore-not-found")
        cluster.kubectl("delete", "crd", "finetunejobs.finetune-operator.io", "--ignore-not-found")


@pytest.fixture(scope="session")
def team(cluster: Site, operator: Driver) -> Driver:
    """The jobs' namespace: Pod Security `restricted`, everything denied by default, models and data on claims."""
    driver = Driver(cluster, TEAM)
    eventually(lambda: cluster.kubectl("-n", TEAM, "get", "serviceaccount", "default").returncode == 0)
    driver.kubectl("apply", "-k", str(ROOT / "examples/data"))
    image = cluster.image("trainer")
    _apply(cluster, as_list([*tiny_model(image), *tutorial_models(image)]), "--namespace", TEAM)
    for job in ("make-tiny-model", "make-tutorial-models"):
        driver.kubectl("wait", "--for=condition=Complete", f"job/{job}", "--timeout=600s")
    return driver


@pytest.fixture(scope="session")
def tutorials(team: Driver) -> None:
    """Both tutorials' jobs in tiny form, complete and served."""
    team.apply(tutorial_job("qwen2-7b-lora.yaml", "Qwen2-7B-Instruct"))
    team.apply(tutorial_job("yi-1.5-6b-qlora.yaml", "Yi-1.5-6B-Chat"))
    for name in (QWEN, YI):
        team.await_condition(name, "Complete", timeout=1200)


def _apply(cluster: Site, manifests: str, *options: str) -> None:
    done = cluster.kubectl(*options, "apply", "--filename", "-", input=manifests)
    assert done.returncode == 0, done.stderr
