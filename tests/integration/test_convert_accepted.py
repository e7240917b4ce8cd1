"""What `finetune convert` makes of the tutorials' files is accepted by the real API server, once the sources are a cluster's."""

import json
import re
from pathlib import Path

from finetune_devcluster import Cluster
from finetune_operator.cli.convert.convert import convert
from finetune_operator.cli.convert.options import Options

FILES = Path(__file__).parents[1] / "unit" / "data" / "tutorials"


def test_the_converted_tutorials_are_accepted(cluster_with_crd: Cluster) -> None:
    manifests = convert([str(path) for path in sorted(FILES.glob("*.yaml"))], Options(gpus=8)).manifests
    assert len(manifests) == 4
    text = re.sub(
        r"file:///[^\"]*/", "pvc://inputs/", json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
    )
    done = cluster_with_crd.kubectl(
        "create", "--validate=strict", "--dry-run=server", "-o", "name", "-f", "-", input=text
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 4
