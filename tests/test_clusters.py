"""The guide's examples for clusters: Kubernetes would take the manifest, and its command makes the right TF_CONFIG."""

import json
import os
import subprocess

import kubernetes_validate
import pytest
import yaml

from tests.conftest import ROOT
from tests.test_docs import check_command, code_blocks

PAGE = ROOT / "docs" / "guides" / "scaling-out.md"
VERSION = "1.31"  # of Kubernetes: the first in which a Job's podFailurePolicy is stable


@pytest.fixture(scope="module")
def documents():
    """All YAML documents of the page, by kind; that of Vertex AI has none."""
    text = PAGE.read_text(encoding="utf-8")
    found = [document for block in code_blocks(text, "yaml") for document in yaml.safe_load_all(block)]
    return {document.get("kind", "Vertex"): document for document in found}


@pytest.mark.parametrize("kind", ["Service", "Job", "PersistentVolumeClaim"])
def test_kubernetes_takes_the_manifest(documents, kind):
    kubernetes_validate.validate(documents[kind], VERSION, strict=True)
    broken = {**documents[kind], "spec": {**documents[kind]["spec"], "completoins": 4}}
    with pytest.raises(kubernetes_validate.ValidationError, match="completoins"):
        kubernetes_validate.validate(broken, VERSION, strict=True)


def pods(documents):
    return documents["Job"]["spec"]["template"]["spec"]


def run_command(documents, folder, index):
    """What the container of a worker calls, and with which TF_CONFIG: `tfcxr` is a program that writes them down."""
    tool = folder / "tfcxr"
    tool.write_text('#!/usr/bin/env bash\necho "$TF_CONFIG"\necho "tfcxr $*"\n')
    tool.chmod(0o755)
    (container,) = pods(documents)["containers"]
    environment = {each["name"]: each["value"] for each in container["env"]}
    environment |= {"PATH": f"{folder}:{os.environ['PATH']}", "JOB_COMPLETION_INDEX": str(index)}
    command = [*container["command"], *container["args"]]
    text = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    config, line = text.splitlines()
    return json.loads(config), line


def test_each_pod_is_told_the_names_of_all(documents, tmp_path):
    """A pod of an indexed Job is called JOB-INDEX, in the subdomain that the service without an address gives it."""
    job, service = documents["Job"], documents["Service"]
    count = job["spec"]["completions"]
    assert count == job["spec"]["parallelism"] == 4
    assert job["spec"]["completionMode"] == "Indexed"
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert pods(documents)["subdomain"] == service["metadata"]["name"]
    (port,) = (each["port"] for each in service["spec"]["ports"])
    hosts = [f"{job['metadata']['name']}-{i}.{service['metadata']['name']}:{port}" for i in range(count)]
    for index in range(count):
        config, _ = run_command(documents, tmp_path, index)
        assert config == {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}


def test_the_workspace_is_the_volume(documents, tmp_path):
    (volume,) = pods(documents)["volumes"]
    claim = documents["PersistentVolumeClaim"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    (mount,) = pods(documents)["containers"][0]["volumeMounts"]
    assert mount["name"] == volume["name"]
    _, line = run_command(documents, tmp_path, 0)
    for flag in ("--records=", "--run_dir="):
        assert f"{flag}{mount['mountPath']}/" in line


def test_what_the_clusters_run_are_commands(documents, tmp_path, monkeypatch):
    from flags import app, common

    def define(fv, name, help_text, *_):  # files need not be there
        app.flags.DEFINE_string(name, None, help_text, flag_values=fv)

    monkeypatch.setattr(common, "_define_path", define)
    _, line = run_command(documents, tmp_path, 0)
    check_command(line)
    first, second = documents["Vertex"]["workerPoolSpecs"]
    assert first["containerSpec"] == second["containerSpec"]
    assert (first["replicaCount"], second["replicaCount"]) == (1, 3)
    container = first["containerSpec"]
    check_command(" ".join([*container["command"], *container["args"]]))
    (mount,) = first["nfsMounts"]
    assert f"--run_dir=/mnt/nfs/{mount['mountPoint']}/" in " ".join(container["args"])
