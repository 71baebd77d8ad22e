"""The document of ``jaula edit`` in an editor: TOML of what can be changed, and the change. Pure.

Source of the notation: TOML 1.0; ports as for ``--publish``, sizes as for ``--memory``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaula.cli.cli_errors import CliError
from jaula.cli.containers import publish_option
from jaula.spec import run_options, toml, units
from jaula.spec.quoted_string import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

_OPTIONS = [run_options.BY_NAME[name] for name in run_options.LIMIT_NAMES]
LIMITS = {option.name: option.member for option in _OPTIONS}
"""The API's names of limits, by the names of their flags."""

_SECTIONS = ("publish", "networks", "restart", "limits", "mount", "labels")
_MOUNT_KEYS = ("type", "source", "target", "read-only")
_HEADER = """\
# Container {name}: what can be changed while it exists, also while it runs.
# Lines that begin with # are ignored. The change is made when the editor ends; a file
# without a change cancels. Environment, host name, command and security settings are
# those of the start: create the container again to change them.
"""


def dumps(document: dict[str, Any]) -> str:
    """Return the TOML text of the engine's document."""
    return "\n".join((_HEADER.format(name=document["Name"]), *_lines(document), ""))


def _lines(document: dict[str, Any]) -> Iterator[str]:
    yield "# [ADDRESS:]HOST-PORT:CONTAINER-PORT/PROTOCOL, or CONTAINER-PORT/PROTOCOL for any port"
    yield from _array("publish", _ports(document["PortBindings"]))
    yield from _array("networks", document["Networks"])
    policy = document["RestartPolicy"]
    count = policy.get("MaximumRetryCount") or 0
    name = policy.get("Name") or "no"
    yield f"restart = {quoted(f'{name}:{count}' if count else name)}"
    yield ""
    yield "[limits]"
    shown = tuple(_limits(document["Limits"]))
    yield from shown
    if not shown:
        yield '# memory = "512m"'
        yield "# cpus = 1.5"
    for mount in document["Mounts"]:
        yield ""
        yield "[[mount]]"
        yield f"type = {quoted(mount['Type'])}"
        if mount["Source"]:
            yield f"source = {quoted(mount['Source'])}"
        yield f"target = {quoted(mount['Target'])}"
        yield f"read-only = {'true' if mount['ReadOnly'] else 'false'}"
    yield ""
    yield "[labels]"
    for key, value in sorted(document["Labels"].items()):
        yield f"{quoted(key)} = {quoted(value)}"


def _limits(limits: dict[str, Any]) -> Iterator[str]:
    """Yield the limits that are set: sizes, CPUs, numbers, texts."""
    for kind in ("size", "decimal", "int", "string"):
        for option in _OPTIONS:
            if option.kind == kind and option.member in limits:
                yield f"{option.name} = {_shown(kind, limits[option.member])}"


def _shown(kind: str, value: Any) -> str:
    if kind == "size":
        return _size(value)
    if kind == "decimal":
        return f"{value / 1e9:g}"
    return str(value) if kind == "int" else quoted(value)


def _size(number: int) -> str:
    """Return bytes with the largest unit that divides them."""
    for unit, factor in (("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10)):
        if number > 0 and number % factor == 0:
            return f'"{number // factor}{unit}"'
    return str(number)


def _ports(bindings: dict[str, list[dict[str, str]]]) -> list[str]:
    words = []
    for port, each in sorted(bindings.items()):
        for binding in each or [{}]:
            address, number = binding.get("HostIp", ""), binding.get("HostPort", "")
            if ":" in address:
                address = f"[{address}]"
            host = f"{address}:{number}:" if address else f"{number}:" if number else ""
            words.append(host + port)
    return words


def _array(name: str, words: Iterable[str]) -> Iterator[str]:
    listed = list(words)
    if len(listed) < 2:
        yield f"{name} = [{', '.join(map(quoted, listed))}]"
        return
    yield f"{name} = ["
    yield from (f"    {quoted(word)}," for word in listed)
    yield "]"


# -- the change ----------------------------------------------------------------------------------


def change(document: dict[str, Any], text: str) -> dict[str, Any]:
    """Return the body of the change that turns a document into an edited text; {} for none.

    :raises CliError: when the text is not valid.
    """
    try:
        edited = toml.loads(text.encode())
    except ValueError as error:
        raise CliError(f"the file is not TOML: {error}") from None
    if unknown := sorted(set(edited) - set(_SECTIONS)):
        raise CliError(f"{unknown[0]!r} is not one of {', '.join(_SECTIONS)}")
    former = toml.loads(dumps(document).encode())
    body: dict[str, Any] = {}
    _change_ports(former, edited, body)
    _change_networks(former, edited, body)
    _change_limits(former, edited, body)
    _change_mounts(former, edited, body)
    _change_labels(former, edited, body)
    return body


def _strings(edited: dict[str, Any], key: str) -> list[str]:
    value = edited.get(key, [])
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise CliError(f"{key} must be an array of strings")
    return value


def _change_ports(former: dict[str, Any], edited: dict[str, Any], body: dict[str, Any]) -> None:
    old, new = _strings(former, "publish"), _strings(edited, "publish")
    for member, words in (
        ("Publish", [w for w in new if w not in old]),
        ("Unpublish", [w for w in old if w not in new]),
    ):
        if words:
            body[member] = publish_option.documents(words, [])[1]


def _change_networks(former: dict[str, Any], edited: dict[str, Any], body: dict[str, Any]) -> None:
    old, new = _strings(former, "networks"), _strings(edited, "networks")
    if added := [name for name in new if name not in old]:
        body["Connect"] = {name: {} for name in added}
    if removed := [name for name in old if name not in new]:
        body["Disconnect"] = removed


def _change_limits(former: dict[str, Any], edited: dict[str, Any], body: dict[str, Any]) -> None:
    update: dict[str, Any] = {}
    if (policy := edited.get("restart", "no")) != former.get("restart", "no"):
        if not isinstance(policy, str):
            raise CliError("restart must be a string")
        update["RestartPolicy"] = restart_policy(policy)
    old, new = former.get("limits", {}), edited.get("limits", {})
    if not isinstance(new, dict):
        raise CliError("limits must be a table")
    for key, value in new.items():
        if key not in LIMITS:
            raise CliError(f"limits: {key!r} is not one of {', '.join(sorted(LIMITS))}")
        if old.get(key) != value:
            member, number = _limit(key, value)
            update[member] = number
    if removed := [LIMITS[key] for key in old if key not in new]:
        body["RemoveLimits"] = removed
    if update:
        body["Update"] = update


def restart_policy(text: str) -> dict[str, Any]:
    """Return the API's document of a restart policy such as ``on-failure:3``.

    :raises CliError: when the count is not a number.
    """
    name, colon, count = text.partition(":")
    if colon and not count.isdigit():
        raise CliError(f"restart: the count of {text!r} is not a number")
    return {"Name": name or "no"} | ({"MaximumRetryCount": int(count)} if colon else {})


def _limit(key: str, value: Any) -> tuple[str, Any]:
    option = run_options.BY_NAME[key]
    try:
        if option.kind == "size":
            return option.member, value if isinstance(value, int) else units.size(value)
        if option.kind == "decimal":
            return option.member, units.nano_cpus(str(value))
        if option.kind == "int":
            return option.member, int(value)
    except (ValueError, TypeError, AttributeError):
        raise CliError(f"limits: {value!r} is not a value for {key}") from None
    if not isinstance(value, str):
        raise CliError(f"limits: {key} must be a string")
    return option.member, value


def _change_mounts(former: dict[str, Any], edited: dict[str, Any], body: dict[str, Any]) -> None:
    old = _mounts_of(former)
    new = _mounts_of(edited)
    added = [mount for target, mount in new.items() if old.get(target) != mount]
    removed = [target for target, mount in old.items() if new.get(target) != mount]
    if added:
        body["Mounts"] = added
    if removed:
        body["Unmount"] = removed


def _mounts_of(edited: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the mounts of a file as the API's documents, by target."""
    listed = edited.get("mount", [])
    if not isinstance(listed, list):
        raise CliError("mount must be an array of tables: [[mount]]")
    mounts: dict[str, dict[str, Any]] = {}
    for each in listed:
        for key in each:
            if key not in _MOUNT_KEYS:
                raise CliError(f"mount: {key!r} is not one of {', '.join(_MOUNT_KEYS)}")
        target = each.get("target")
        if not isinstance(target, str) or not target:
            raise CliError("mount: target must be a path")
        if target in mounts:
            raise CliError(f"mount: {target} is there twice")
        mounts[target] = {
            "Type": each.get("type", "volume"),
            "Source": each.get("source", ""),
            "Target": target,
            "ReadOnly": bool(each.get("read-only", False)),
        }
    return mounts


def _change_labels(former: dict[str, Any], edited: dict[str, Any], body: dict[str, Any]) -> None:
    old, new = former.get("labels", {}), edited.get("labels", {})
    if not isinstance(new, dict) or not all(isinstance(value, str) for value in new.values()):
        raise CliError("labels must be a table of strings")
    if added := {key: value for key, value in new.items() if old.get(key) != value}:
        body["Labels"] = added
    if removed := [key for key in old if key not in new]:
        body["RemoveLabels"] = removed
