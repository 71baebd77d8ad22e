"""Kubernetes' YAML of a container has its texts, whatever characters they have."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from jaula.kube import generate

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


def inspect(word: str, path: str) -> dict[str, Any]:
    return {
        "Name": "/web",
        "Config": {"Image": "busybox", "Cmd": [word], "Env": [f"A={word}"], "Labels": {"l": word}},
        "HostConfig": {"RestartPolicy": {"Name": "no"}, "Tmpfs": {f"/t{path}": ""}},
        "Mounts": [
            {"Type": "bind", "Source": f"/{path}", "Destination": f"/{path}", "RW": False},
            {"Type": "volume", "Name": "a-b", "Destination": f"/v{path}", "RW": True},
            {"Type": "volume", "Name": "a_b", "Destination": f"/w{path}", "RW": True},
        ],
    }


@settings(deadline=None)
@given(TEXT, TEXT)
def test_texts_read_back(word: str, path: str) -> None:
    made = generate.pod("web-pod", None, [inspect(word, path)])
    (read,) = yaml.safe_load_all(generate.render([made]))
    assert read == made
    container = read["spec"]["containers"][0]
    literal = word.replace("$", "$$") if "$(" in word or "$$" in word else word
    assert container["args"] == [literal]
    assert container["env"] == [{"name": "A", "value": literal}]
    assert container["volumeMounts"][0] == {
        "name": container["volumeMounts"][0]["name"], "mountPath": f"/{path}", "readOnly": True
    }  # fmt: skip
    names = [volume["name"] for volume in read["spec"]["volumes"]]
    assert len(set(names)) == len(names)
