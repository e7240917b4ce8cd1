"""Pods of a real control plane, run by the process node as local processes."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_devcluster import Cluster
from support_pods import (
    Object,
    Space,
    claim,
    config_map,
    job,
    network_namespaces,
    pod,
    processes_with,
    python,
    service,
)
from support_wait import eventually


@pytest.fixture(scope="module")
def module_space(cluster: Cluster) -> Iterator[Space]:
    space = Space(cluster, f"node-{uuid.uuid4().hex[:8]}")
    space.create()
    yield space
    cluster.kubectl("delete", "namespace", space.name, "--wait=false")


@pytest.fixture
def space(module_space: Space) -> Iterator[Space]:
    """All tests share the namespace, so each names its objects differently; what runs is ended after each."""
    yield module_space
    module_space.kubectl("delete", "deployment,job,pod", "--all", "--now", "--wait=false")


SERVER = """
import http.server, os, pathlib
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ready = self.path != "/ready" or pathlib.Path("/flag/ready").exists()
        self.send_response(200 if ready else 503)
        self.end_headers()
        self.wfile.write(os.environ["POD_NAME"].encode())
http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""


def server(**container: Any) -> Object:
    name = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    return python(SERVER, env=[name], ports=[{"name": "web", "containerPort": 8000}], **container)


def test_a_job_reads_its_config_map_and_completes(space: Space) -> None:
    mount = {"name": "config", "mountPath": "/finetune/config"}
    container = python("print(open('/finetune/config/run.json').read())", volumeMounts=[mount])
    space.apply(
        config_map("run", **{"run.json": "from the config map"}),
        job("reads", container, volumes=[{"name": "config", "configMap": {"name": "run"}}]),
    )
    space.kubectl("wait", "--for=condition=Complete", "job/reads", "--timeout=180s")
    assert space.kubectl("logs", "job/reads") == "from the config map\n"


def test_a_job_fails_with_its_exit_code_and_termination_message(space: Space) -> None:
    script = "import sys; open('/dev/termination-log', 'w').write('the disk is full'); sys.exit(7)"
    space.apply(job("fails", python(script)))
    space.kubectl("wait", "--for=condition=Failed", "job/fails", "--timeout=180s")
    # Pods of the tests before may still be ending.
    [name] = [name for name in space.names("pod") if name.startswith("fails-")]
    state = space.container(name)["state"]["terminated"]
    assert (state["exitCode"], state["reason"], state["message"]) == (7, "Error", "the disk is full")


def test_without_a_message_the_last_log_lines_stand_in_when_asked_for(space: Space) -> None:
    container = python("print('why'); raise SystemExit(1)", terminationMessagePolicy="FallbackToLogsOnError")
    space.apply(pod("speaks", container))
    space.await_phase("speaks", "Failed")
    state = space.container("speaks")["state"]["terminated"]
    assert state["message"] == "why\n"


def test_a_command_that_does_not_exist_is_a_start_error(space: Space) -> None:
    space.apply(pod("typo", {"name": "main", "image": "none", "command": ["no-such-program"]}))
    space.await_phase("typo", "Failed")
    state = space.container("typo")["state"]["terminated"]
    assert (state["exitCode"], state["reason"]) == (128, "StartError")
    assert '"no-such-program": executable file not found in $PATH' in state["message"]


def test_a_missing_secret_is_waited_for(space: Space) -> None:
    reference = {"name": "hub", "key": "token"}
    container = python(
        "import os; print(os.environ['TOKEN'])",
        env=[{"name": "TOKEN", "valueFrom": {"secretKeyRef": reference}}],
    )
    space.apply(pod("waits", container))

    def waiting() -> Object:
        return (space.container("waits").get("state") or {}).get("waiting") or {}

    eventually(lambda: waiting().get("reason") == "CreateContainerConfigError")
    assert waiting()["message"] == 'secret "hub" not found'
    space.kubectl("create", "secret", "generic", "hub", "--from-literal=token=hf_secret")
    space.await_phase("waits", "Succeeded")
    assert space.log("waits") == "hf_secret\n"


def test_an_edited_config_map_reaches_the_running_pod(space: Space) -> None:
    script = (
        "import itertools, time; [(print(open('/config/text').read()), time.sleep(0.1)) for _ in itertools.count()]"
    )
    container = python(script, volumeMounts=[{"name": "config", "mountPath": "/config"}])
    volume = {"name": "config", "configMap": {"name": "text"}}
    space.apply(config_map("text", text="before"), pod("reader", container, volumes=[volume]))
    eventually(lambda: space.phase("reader") == "Running" and "before" in space.log("reader", "--tail=1"))
    space.apply(config_map("text", text="after"))
    eventually(lambda: "after" in space.log("reader", "--tail=1"))


def test_the_projected_token_is_accepted_for_its_audience_only(space: Space) -> None:
    token = {"path": "token", "audience": "finetune-operator.io/progress", "expirationSeconds": 600}
    volume = {"name": "token", "projected": {"sources": [{"serviceAccountToken": token}]}}
    mount = {"name": "token", "mountPath": "/finetune/token"}
    container = python("print(open('/finetune/token/token').read())", volumeMounts=[mount])
    text = space.output(pod("token-bearer", container, volumes=[volume])).strip()
    review = space.token_review(text, "finetune-operator.io/progress")
    assert review["authenticated"]
    assert review["user"]["username"] == f"system:serviceaccount:{space.name}:default"
    assert not space.token_review(text, "somebody-else").get("authenticated", False)


IN_CLUSTER = """
import json, os, ssl, urllib.error, urllib.request
folder = "/var/run/secrets/kubernetes.io/serviceaccount/"
token, namespace = open(folder + "token").read(), open(folder + "namespace").read()
host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
url = f"https://{host}:{port}/apis/authentication.k8s.io/v1/selfsubjectreviews"
request = urllib.request.Request(url, b"{}", {"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
answer = urllib.request.urlopen(request, context=ssl.create_default_context(cafile=folder + "ca.crt"))
print(namespace, json.load(answer)["status"]["userInfo"]["username"])
"""


def test_a_pod_reaches_the_api_server_with_its_own_service_account(space: Space) -> None:
    expected = f"{space.name} system:serviceaccount:{space.name}:default\n"
    assert space.output(pod("in-cluster", python(IN_CLUSTER))) == expected


def test_a_deployment_answers_through_its_service_by_address_and_by_name(space: Space) -> None:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [server()]}}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template},
    }
    space.apply(service("web"), deployment)
    space.kubectl("rollout", "status", "deployment/web", "--timeout=180s")
    address = space.get("service", "web")["spec"]["clusterIP"]
    hosts = [address, "web", f"web.{space.name}", f"web.{space.name}.svc.cluster.local"]
    script = (
        f"import urllib.request\nfor host in {hosts}: print(urllib.request.urlopen(f'http://{{host}}').read().decode())"
    )
    answers = space.output(pod("client", python(script))).split()
    assert len(answers) == len(hosts)
    assert set(answers) == {name for name in space.names("pod") if name.startswith("web-")}


def test_a_pod_that_is_not_ready_is_no_endpoint(space: Space) -> None:
    probe = {"httpGet": {"path": "/ready", "port": "web"}, "periodSeconds": 1}
    main = server(readinessProbe=probe, volumeMounts=[{"name": "flag", "mountPath": "/flag"}])
    flag = {"name": "flag", "configMap": {"name": "readiness", "optional": True}}
    space.apply(service("late"), pod("late", main, volumes=[flag]))

    def ready_addresses() -> list[str]:
        ready = "{.items[*].endpoints[?(@.conditions.ready==true)].addresses[*]}"
        return space.kubectl(
            "get", "endpointslices", "-l", "kubernetes.io/service-name=late", "-o", f"jsonpath={ready}"
        ).split()

    eventually(lambda: "Readiness probe failed" in space.events("late"))
    assert ready_addresses() == []
    space.apply(config_map("readiness", ready="yes"))
    assert eventually(ready_addresses) == [space.get("pod", "late")["status"]["podIP"]]


def test_a_failing_liveness_probe_restarts_the_container(space: Space) -> None:
    probe = {"exec": {"command": ["test", "!", "-e", "/tmp/sick"]}, "periodSeconds": 1, "failureThreshold": 1}
    script = "import pathlib, time; pathlib.Path('/tmp/sick').touch(); time.sleep(600)"
    main = python(script, livenessProbe=probe)
    space.apply(pod("sick", main, restartPolicy="Always", terminationGracePeriodSeconds=1))

    eventually(lambda: space.restarts("sick") > 0)
    ended = space.container("sick")["lastState"]["terminated"]
    assert ended["exitCode"] == 137
    eventually(lambda: "Liveness probe failed" in space.events("sick"))


def on_sigterm(reaction: str) -> str:
    return (
        f"import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: {reaction}); print('up'); time.sleep(600)"
    )


def test_the_main_process_is_asked_to_end_and_killed_after_the_grace_period(space: Space) -> None:
    polite = pod("polite", python(on_sigterm("sys.exit(75)")), terminationGracePeriodSeconds=120)
    stubborn = pod("stubborn", python(on_sigterm("print('asked')")), terminationGracePeriodSeconds=2)
    for manifest in (polite, stubborn):  # the finalizer keeps the object, so that its last status can be read
        manifest["metadata"]["finalizers"] = ["finetune-operator.io/test"]
    space.apply(polite, stubborn)
    for name in ("polite", "stubborn"):
        eventually(lambda name=name: space.phase(name) == "Running" and "up" in space.log(name))
    space.kubectl("delete", "pod", "polite", "stubborn", "--wait=false")

    def exit_code(name: str) -> int | None:
        state = space.container(name).get("state", {})
        return state.get("terminated", {}).get("exitCode")

    assert eventually(lambda: exit_code("polite")) == 75
    assert eventually(lambda: exit_code("stubborn")) == 137
    for name in ("polite", "stubborn"):
        space.kubectl("patch", "pod", name, "--type=merge", "-p", '{"metadata": {"finalizers": null}}')


def test_init_containers_run_one_after_the_other_before_the_others(space: Space) -> None:
    mount = {"name": "work", "mountPath": "/work-area"}
    append = "print('{0}', file=open('/work-area/order', 'a'))"
    init = [
        python(f"import time; time.sleep(0.3); {append.format('first')}", volumeMounts=[mount]) | {"name": "first"},
        python(append.format("second"), volumeMounts=[mount]) | {"name": "second"},
    ]
    main = python("print(open('/work-area/order').read())", volumeMounts=[mount])
    volumes = [{"name": "work", "emptyDir": {}}]
    assert space.output(pod("ordered", main, initContainers=init, volumes=volumes)).split() == ["first", "second"]


def test_a_sidecar_serves_the_main_container_and_ends_with_it(space: Space) -> None:
    sidecar = server(restartPolicy="Always", startupProbe={"tcpSocket": {"port": "web"}, "periodSeconds": 1})
    script = "import urllib.request; print(urllib.request.urlopen('http://localhost:8000').read().decode())"
    manifest = pod(
        "pair", python(script), initContainers=[sidecar | {"name": "sidecar"}], terminationGracePeriodSeconds=1
    )
    assert space.output(manifest) == "pair\n"


def test_what_a_pod_writes_to_a_claim_the_next_pod_finds(space: Space) -> None:
    mount = {"name": "data", "mountPath": "/finetune/job"}
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    write = python("print('kept', file=open('/finetune/job/file', 'w'))", volumeMounts=[mount])
    space.output(claim("data"), pod("writer", write, volumes=volumes))
    space.kubectl("delete", "pod", "writer")
    read = python("print(open('/finetune/job/file').read())", volumeMounts=[mount])
    assert "kept" in space.output(pod("next-reader", read, volumes=volumes))


def test_the_folder_of_a_deleted_claim_is_deleted(space: Space) -> None:
    space.apply(claim("freed"))
    volume = eventually(lambda: space.get("pvc", "freed")["spec"].get("volumeName"))
    path = Path(space.get("pv", volume)["spec"]["hostPath"]["path"])
    assert path.is_dir()
    space.kubectl("delete", "pvc", "freed")
    eventually(lambda: volume not in space.names("pv") and not path.exists())


def test_deletion_leaves_no_process_and_no_network_namespace(space: Space) -> None:
    marker = f"marker-{uuid.uuid4().hex}"
    script = f"import subprocess; print('up'); subprocess.run(['sh', '-c', 'trap : TERM; sleep 600; : {marker}'])"
    space.apply(pod("parent", python(script), terminationGracePeriodSeconds=1))
    eventually(lambda: len(processes_with(marker)) >= 2)
    (namespace,) = set(processes_with(marker).values())
    assert namespace in network_namespaces()
    space.kubectl("delete", "pod", "parent")
    assert processes_with(marker) == {}
    assert namespace not in network_namespaces()


def test_force_deletion_kills_at_once(space: Space) -> None:
    marker = f"marker-{uuid.uuid4().hex}"
    space.apply(pod("forced", python(f"import time; time.sleep(600)  # {marker}"), terminationGracePeriodSeconds=300))
    space.await_phase("forced", "Running")
    space.kubectl("delete", "pod", "forced", "--force", "--grace-period=0")
    eventually(lambda: not processes_with(marker))


def test_logs_are_followed_until_the_container_ends(space: Space) -> None:
    script = "import time; [(print('line', number), time.sleep(0.2)) for number in range(5)]"
    space.apply(pod("talks", python(script)))
    eventually(lambda: space.phase("talks") != "Pending")
    assert space.log("talks", "--follow") == "".join(f"line {number}\n" for number in range(5))
    assert space.log("talks", "--tail=2") == "line 3\nline 4\n"


def test_the_log_of_the_run_before_is_kept(space: Space) -> None:
    script = "import socket, os; print(os.environ['HOSTNAME'], os.getpid()); raise SystemExit(3)"
    space.apply(pod("again", python(script), restartPolicy="OnFailure"))
    eventually(lambda: space.restarts("again") >= 1)
    assert space.log("again", "--previous") == "again 1\n"


def test_a_second_gpu_pod_waits_until_the_first_has_ended(space: Space) -> None:
    gpu = {"limits": {"nvidia.com/gpu": 1}}
    script = """
import os, pathlib, time
print(os.environ["NVIDIA_VISIBLE_DEVICES"])
while not pathlib.Path("/flag/go").exists():
    time.sleep(0.1)
"""
    flag = {"name": "flag", "configMap": {"name": "flag", "optional": True}}
    first = python(script, resources=gpu, volumeMounts=[{"name": "flag", "mountPath": "/flag"}])
    space.apply(pod("first", first, volumes=[flag]))
    space.await_phase("first", "Running")
    space.apply(pod("second", python("print('done')", resources=gpu)))
    eventually(lambda: "Insufficient nvidia.com/gpu" in space.events("second"))
    assert space.phase("second") == "Pending"
    space.apply(config_map("flag", go="yes"))
    space.await_phase("first", "Succeeded")
    space.await_phase("second", "Succeeded")
    assert space.log("first") == "0\n"


def test_a_pod_past_its_deadline_fails(space: Space) -> None:
    sleeper = python("import time; time.sleep(600)")
    space.apply(pod("overdue", sleeper, activeDeadlineSeconds=1, terminationGracePeriodSeconds=1))
    space.await_phase("overdue", "Failed")
    assert space.get("pod", "overdue")["status"]["reason"] == "DeadlineExceeded"


def test_mount_points_are_made_without_touching_the_host(space: Space) -> None:
    mounts = [
        {"name": "work", "mountPath": "/new/deep/folder"},
        {"name": "work", "mountPath": "/usr/share/node-test", "subPath": "part/of"},
        {"name": "text", "mountPath": "/etc/node-test/text", "subPath": "text", "readOnly": True},
    ]
    script = """
import os, pathlib
pathlib.Path("/usr/share/node-test/file").write_text("through the sub path")
print(pathlib.Path("/new/deep/folder/part/of/file").read_text())
print(pathlib.Path("/etc/node-test/text").read_text())
print(os.access("/etc/node-test/text", os.W_OK), pathlib.Path("/etc/passwd").exists(), os.getpid())
"""
    volumes = [{"name": "work", "emptyDir": {"medium": "Memory"}}, {"name": "text", "configMap": {"name": "text"}}]
    lines = space.output(
        config_map("text", text="words"), pod("mounts", python(script, volumeMounts=mounts), volumes=volumes)
    )
    assert lines.splitlines() == ["through the sub path", "words", "False True 1"]
    assert not any(Path(path).exists() for path in ("/new", "/usr/share/node-test", "/etc/node-test"))


def test_commands_in_a_pod_are_refused_with_a_reason(space: Space) -> None:
    space.apply(pod("still", python("import time; time.sleep(600)"), terminationGracePeriodSeconds=0))
    space.await_phase("still", "Running")
    done = space.cluster.kubectl("-n", space.name, "exec", "still", "--", "true")
    assert done.returncode != 0
    assert "the process node does not do exec" in done.stderr


def test_the_node_says_what_it_is(cluster: Cluster) -> None:
    node = json.loads(
        cluster.kubectl("get", "nodes", "-l", "finetune-operator.io/process-node=true", "-o", "json").stdout
    )
    (only,) = node["items"]
    assert "no images are pulled" in only["metadata"]["annotations"]["finetune-operator.io/process-node-is-not"]
    assert only["status"]["allocatable"]["nvidia.com/gpu"] == "1"
