"""The documents for the runtime, against the schema of the OCI runtime specification.

The schema is that of Debian's golang-github-opencontainers-specs-dev (runtime-spec 1.2.0).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft4Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from harness import containers
from harness.engine import PrivateEngine

SCHEMAS = Path("/usr/share/gocode/src/github.com/opencontainers/runtime-spec/schema")

pytestmark = pytest.mark.needs(str(SCHEMAS))


@pytest.fixture(scope="module")
def validator() -> Draft4Validator:
    """Return a validator of ``config.json`` that resolves references between files on disk."""

    def read(uri: str) -> Resource[Any]:
        name = uri.rsplit("/", 1)[-1]
        return Resource(contents=json.loads((SCHEMAS / name).read_text()), specification=DRAFT4)

    schema = json.loads((SCHEMAS / "config-schema.json").read_text())
    return Draft4Validator(schema, registry=Registry(retrieve=read))


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("-t", "-i", "--init"),
        ("--privileged",),
        ("--privileged", "--userns", "host", "--pid", "host", "--network", "host"),
        ("--read-only", "--tmpfs", "/tmp:size=1m", "--shm-size", "8m", "--network", "none"),
        ("-m", "64m", "--memory-swap", "-1", "--cpus", "0.5", "--cpuset-cpus", "0"),
        ("--cap-drop", "all", "--cap-add", "net_raw", "--security-opt", "no-new-privileges"),
        ("--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined"),
        ("-v", "/tmp:/host:ro", "-v", "/anonymous", "--device", "/dev/null:/dev/extra:rw"),
        ("--ulimit", "nofile=100:200", "--sysctl", "net.core.somaxconn=99", "-u", "7:8"),
        ("--group-add", "44", "--oom-score-adj", "100", "-h", "name", "-e", "A=b", "-w", "/x"),
    ],
    ids=" ".join,
)
def test_the_spec_of_a_container_is_a_valid_config_json(
    engine: PrivateEngine, busybox: str, validator: Draft4Validator, flags: tuple[str, ...]
) -> None:
    with containers.running(engine, busybox, flags=flags) as name:
        spec = engine.request("GET", f"/jaula/containers/{name}/spec").json()
    problems = [
        f"{'/'.join(map(str, error.absolute_path))}: {error.message}"
        for error in validator.iter_errors(spec)
    ]
    assert not problems
    assert spec["ociVersion"].startswith("1.2")
    assert spec["linux"]["namespaces"]


def test_the_schema_refuses_an_invalid_config_json(validator: Draft4Validator) -> None:
    assert list(validator.iter_errors({"ociVersion": 1, "root": {}}))
