"""I14: values of a request or an image are data: they cannot add lines or leave their directory."""

from __future__ import annotations

from typing import Any

import pytest

from harness.engine import PrivateEngine


@pytest.mark.parametrize(
    ("cve", "member", "value"),
    [
        ("CVE-2022-4318", "Hostname", "a\n6.6.6.6 bank"),
        ("CVE-2022-4318", "Domainname", "a\n6.6.6.6 bank"),
        ("CVE-2022-4318", "ExtraHosts", ["a\nb:1.2.3.4"]),
        ("CVE-2022-4318", "ExtraHosts", ["a:1.2.3.4\n6.6.6.6 bank"]),
        ("CVE-2022-4318", "DnsSearch", ["a\nnameserver 6.6.6.6"]),
        ("CVE-2022-4318", "DnsOptions", ["a\nnameserver 6.6.6.6"]),
        ("CVE-2022-0811", "Sysctls", {"kernel.shm_rmid_forced": "1\n0"}),
        ("CVE-2022-0811", "Sysctls", {"net/../kernel/core_pattern": "|x"}),
        ("CVE-2022-0492", "CgroupParent", "/../../elsewhere"),
        ("CVE-2022-0492", "CgroupParent", "/a\nb"),
        ("CVE-2022-0492", "CgroupParent", "/"),
        ("CVE-2025-64507", "LogConfig", {"Type": "json-file", "Config": {"path": "/etc/x"}}),
        ("CVE-2025-64507", "Devices", [{"PathOnHost": "/dev/null", "PathInContainer": "/../x"}]),
    ],
)
def test_a_value_with_control_characters_is_refused_at_create(
    engine: PrivateEngine, busybox: str, cve: str, member: str, value: Any
) -> None:
    body: dict[str, Any] = {"Image": busybox, "Cmd": ["true"]}
    if member in ("Hostname", "Domainname"):
        body[member] = value
    else:
        body["HostConfig"] = {member: value}
    reply = engine.request("POST", "/containers/create", body)
    if reply.status == 201:
        container = reply.json()["Id"]
        start = engine.request("POST", f"/containers/{container}/start")
        engine.request("DELETE", f"/containers/{container}?force=1")
        assert start.status in (400, 500), "taken, and started"
        pytest.fail("refused only at the start")
    assert reply.status == 400, reply
