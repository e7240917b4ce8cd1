"""An upgrade of the chart and the way back, with jobs in every stage: no pod of a job notices."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import still_stages
from chart import CHART, NAMESPACE, RELEASE, helm
from finetune_devcluster import Cluster, operator_chart
from finetune_operator.api import conditions, names
from finetune_operator.api.manifest_yaml import dump_all
from job_driver import Driver, Manifest
from support_wait import eventually
from wrong_manifests import valid_manifest

# The job that retries does not do so while the test looks.
SETTINGS = "settings.resyncSeconds=5,settings.retryDelaySeconds=3600"
STAGES = (
    "queued",
    "preparing",
    "training",
    "retrying",
    "merging",
    "deploying",
    "serving",
    "failed",
    "suspended",
    "completed",
)
SERVED = ("deploying", "serving")
# Those of Ready stand one behind the other in conditions.py.
_REASONS = [value for name, value in vars(conditions).items() if name.isupper()]
STAGE_REASONS = _REASONS[_REASONS.index(conditions.PENDING) : _REASONS.index(conditions.COMPLETED) + 1]


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart as an earlier version of it: lower number, and a definition without the newest fields."""
    chart = tmp_path_factory.mktemp("previous") / CHART.name
    shutil.copytree(CHART, chart)
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    (chart / "Chart.yaml").write_text(yaml.safe_dump(about | {"version": "0.0.9", "appVersion": "0.0.9"}))
    file = chart / "files" / "crds" / "finetunejobs.yaml"
    definition = yaml.safe_load(file.read_text())
    status = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    del status["default"], status["properties"]["attempts"]["items"]["properties"]["seconds"]
    file.write_text(dump_all([definition]))
    return chart


def job(stage: str) -> Manifest:
    """A job that gets as far as its name says, and stays there."""
    does = {
        "preparing": {"prepare": "hold"},
        "training": {"train": "hold"},
        "retrying": {"train": "crash"},
        "suspended": {"train": "hold"},
        "merging": {"merge": "hold"},
        "deploying": {"probe": "hold"},
        "failed": {"prepare": "fail"},
    }
    manifest = valid_manifest(stage)
    manifest["spec"]["datasets"] = [{"source": "hf://org/chat", "placeholders": does.get(stage, {})}]
    manifest["spec"] |= {"storage": {"retention": "Delete"}, "resources": {"gpusPerNode": 0}}
    if stage == "queued":
        manifest["spec"]["resources"]["nodeSelector"] = {"example.com/pool": "no-node-has-it"}
    return manifest if stage not in SERVED else {**manifest, "spec": manifest["spec"] | {"serving": {"gpus": 0}}}


def test_there_is_a_job_in_every_stage_that_lasts() -> None:
    # A Deployment's deadline is too far off for a test.
    lasting = set(STAGE_REASONS) - {conditions.PENDING, conditions.NOT_STARTING}
    assert {stage.capitalize() for stage in STAGES} == lasting | {conditions.FAILED}


@pytest.fixture(scope="module")
def images() -> Iterator[Path]:
    """Programs that hold still. Not below /tmp, which is another one in a pod."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        yield still_stages.install(Path(folder))


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory, previous: Path, images: Path) -> Iterator[Driver]:
    """A cluster that runs the previous version, with a job in every stage."""
    with Cluster(f"upgrade-{os.getpid()}", tmp_path_factory.mktemp("cluster"), images=images) as cluster:
        operator_chart.install(cluster, "--set", SETTINGS, chart=previous)
        driver = Driver(cluster)
        for stage in STAGES:
            driver.apply(job(stage))
        driver.await_stage("suspended", "Training")
        driver.kubectl("patch", "ftj", "suspended", "--type=merge", "-p", json.dumps({"spec": {"suspend": True}}))
        for stage in STAGES:
            driver.await_stage(stage, stage.capitalize())
        eventually(lambda: not processes(driver, "suspended"), message="the suspended job's pod has ended")
        yield driver


def processes(driver: Driver, job: str) -> list[int]:
    return driver.process_ids(f" of {driver.namespace}/{job}-")


def pods_and_jobs(driver: Driver) -> dict[str, Any]:
    """UID of everything that runs for jobs, and how often its containers were started again."""
    kinds = ("get", "jobs,deployments,pods", "-l", names.JOB_NAME_LABEL, "-o", "json")
    return {
        f"{item['kind']}/{item['metadata']['name']}": (item["metadata"]["uid"], restarts(item))
        for item in json.loads(driver.kubectl(*kinds))["items"]
    }


def restarts(item: Manifest) -> int:
    statuses = item["status"].get("containerStatuses", []) if item["kind"] == "Pod" else []
    return sum(status["restartCount"] for status in statuses)


def stages(driver: Driver) -> list[str]:
    return [driver.stage(name).lower() for name in STAGES]


def jobs_that_the_operator_has_seen(driver: Driver) -> int:
    """As its metrics say; a new operator starts from none."""
    path = f"/api/v1/namespaces/{NAMESPACE}/services/{RELEASE}:http/proxy/metrics"
    done = driver.cluster.kubectl("get", "--raw", path)
    lines = [line for line in done.stdout.splitlines() if line.startswith("finetune_jobs{")]
    return int(sum(float(line.rpartition(" ")[2]) for line in lines))


def operator_version(driver: Driver) -> str:
    path = "jsonpath={.items[*].metadata.labels.app\\.kubernetes\\.io/version}"
    return driver.kubectl("get", "deployment", "-n", NAMESPACE, "-o", path)


def test_an_upgrade_and_the_way_back_touch_no_pod_of_any_job(driver: Driver) -> None:
    before = pods_and_jobs(driver)
    assert stages(driver) == list(STAGES)
    assert operator_version(driver) == "0.0.9"
    operator_chart.install(driver.cluster, "--set", f"{SETTINGS},settings.workers=8")
    eventually(lambda: jobs_that_the_operator_has_seen(driver) == len(STAGES), 180, "the new operator saw every job")
    assert operator_version(driver) == yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert (pods_and_jobs(driver), stages(driver)) == (before, list(STAGES))
    done = helm(
        "rollback", RELEASE, "--namespace", NAMESPACE, "--wait", environment=driver.cluster.client_environment()
    )
    assert done.returncode == 0, done.stderr
    eventually(lambda: jobs_that_the_operator_has_seen(driver) == len(STAGES), 180, "the old operator saw every job")
    assert operator_version(driver) == "0.0.9"
    assert (pods_and_jobs(driver), stages(driver)) == (before, list(STAGES))


def test_uninstalling_leaves_what_runs_and_no_job_is_stuck(driver: Driver, images: Path) -> None:
    before = pods_and_jobs(driver)
    done = helm("uninstall", RELEASE, "--namespace", NAMESPACE, environment=driver.cluster.client_environment())
    assert done.returncode == 0, done.stderr
    assert pods_and_jobs(driver) == before
    driver.delete("training")
    eventually(lambda: driver.children("training") == [], 120, "the deleted job is gone")
    operator_chart.install(driver.cluster, "--set", SETTINGS)
    eventually(lambda: jobs_that_the_operator_has_seen(driver) == len(STAGES) - 1, 180, "the operator is back")
    remaining = {child: uid for child, uid in before.items() if "/training-" not in child}
    assert pods_and_jobs(driver) == remaining
    still_stages.release(images)
    for name in ("preparing", "merging"):
        driver.await_stage(name, "Completed")
