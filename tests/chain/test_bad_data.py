"""A row that cannot be trained on ends the job in prepare, with file and line, before any training Job."""

import json

from job_driver import Driver, tiny_job

GOOD = json.dumps({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]})


def test_a_broken_line_fails_the_job_from_prepare_with_file_and_line(driver: Driver) -> None:
    rows = "\n".join([GOOD, GOOD, '{"messages": [', GOOD])
    driver.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "broken"}, "data": {"rows.jsonl": rows}}
    )
    manifest = tiny_job("bad-data")
    manifest["spec"]["datasets"] = [{"source": "configmap://broken/rows.jsonl"}]
    with driver.recorded_jobs() as created:
        driver.apply(manifest)
        failed = driver.await_condition("bad-data", "Failed")
    assert failed["reason"] == "InvalidData"
    assert "rows.jsonl:3" in failed["message"]
    assert driver.condition("bad-data", "Prepared")["status"] == "False"
    assert not [name for name, _ in created if "train" in name and name.startswith("bad-data")]
    assert driver.stage("bad-data") == "Failed"
