"""Kubernetes' YAML of a container has its texts, whatever characters they have."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jaula.features.kubernetes.kube import generate, kube_documents

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)

# Characters that a reader of YAML may take for a line break, a byte order mark or nothing at all.
SPECIAL = (
    *map(chr, range(1, 0xA1)),
    "\u2028",
    "\u2029",
    "\ufeff",
    "\ufffe",
    "\uffff",
    "\U0010ffff",
)
PLACES = (
    "{}",
    "a{}",
    "{}a",
    "a{}b",
    " {}",
    "{} ",
    "a {} b",
    "a\n{}",
    "{}\nb",
    "a\n {}",
    "- {}",
    "{}{}",
)


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
@example("\x85", "\x85")
@example("a\x85b c\x85", "a \x85\n")
@given(TEXT, TEXT)
def test_texts_read_back(word: str, path: str) -> None:
    made = generate.pod("web-pod", None, [inspect(word, path)])
    text = generate.render([made])
    (read,) = yaml.safe_load_all(text)
    assert read == made
    assert kube_documents.load(text.encode()) == [made]
    container = read["spec"]["containers"][0]
    literal = word.replace("$", "$$") if "$(" in word or "$$" in word else word
    assert container["args"] == [literal]
    assert container["env"] == [{"name": "A", "value": literal}]
    assert container["volumeMounts"][0] == {
        "name": container["volumeMounts"][0]["name"], "mountPath": f"/{path}", "readOnly": True
    }  # fmt: skip
    names = [volume["name"] for volume in read["spec"]["volumes"]]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("place", PLACES)
def test_each_special_character_reads_back(place: str) -> None:
    texts = [place.format(each, each) for each in SPECIAL]
    labels = {text: text for text in texts}
    made = {"kind": "Pod", "metadata": {"labels": labels}, "spec": {"args": texts}}
    text = generate.render([made])
    assert list(yaml.safe_load_all(text)) == [made]
    assert kube_documents.load(text.encode()) == [made]
