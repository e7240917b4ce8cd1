"""GPUs as an extended resource: counted by the real scheduler, stood in for by the CPU."""

from job_driver import Driver, tiny_job
from support_pods import Object, Space, pod
from support_wait import eventually


def test_a_job_waits_in_the_queue_while_somebody_else_holds_the_gpus(driver: Driver) -> None:
    space = Space(driver.cluster, driver.namespace)
    held: Object = {"name": "main", "image": "none", "command": ["sleep", "infinity"]}
    held["resources"] = {"limits": {"nvidia.com/gpu": "2"}}
    space.apply(pod("tenant", held, terminationGracePeriodSeconds=0))
    space.await_phase("tenant", "Running")
    job = tiny_job("one-gpu", "Full", steps=4, serve=False)
    job["spec"]["resources"]["gpusPerNode"] = 1
    driver.apply(job)
    # It is queued already before the scheduler has looked at its pods, and then says nothing of GPUs.
    eventually(lambda: _waits_for_gpus(driver, "one-gpu"), 300, "the job is queued for GPUs")
    space.kubectl("delete", "pod", "tenant")
    assert driver.await_condition("one-gpu", "Complete")["status"] == "True"


def _waits_for_gpus(driver: Driver, job: str) -> bool:
    ready = driver.condition(job, "Ready")
    return ready.get("reason") == "Queued" and "nvidia.com/gpu" in ready["message"]


def test_a_job_trains_with_a_process_for_each_gpu(driver: Driver) -> None:
    job = tiny_job("two-gpus", "Full", steps=20, serve=False)
    job["spec"]["resources"]["gpusPerNode"] = 2
    driver.apply(job)
    driver.await_condition("two-gpus", "Complete")
    assert driver.status("two-gpus")["results"]["steps"] == 20
