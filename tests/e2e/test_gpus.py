"""GPUs as an extended resource: counted by the real scheduler, stood in for by the CPU."""

from job_driver import Driver, tiny_job


def test_a_job_trains_with_a_process_for_each_gpu_while_another_waits_for_them(driver: Driver) -> None:
    first = tiny_job("two-gpus", "Full", steps=20, serve=False)
    first["spec"]["resources"]["gpusPerNode"] = 2
    second = tiny_job("one-gpu", "Full", steps=4, serve=False)
    second["spec"]["resources"]["gpusPerNode"] = 1
    driver.apply(first)
    driver.await_stage("two-gpus", "Training")
    driver.apply(second)
    driver.await_stage("one-gpu", "Queued")
    assert "nvidia.com/gpu" in driver.condition("one-gpu", "Ready")["message"]
    driver.await_condition("two-gpus", "Complete")
    driver.await_condition("one-gpu", "Complete")
    assert driver.status("two-gpus")["results"]["steps"] == 20
