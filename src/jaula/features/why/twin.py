"""Twin: a copy of a container in which one layer is lifted. Pure.

The command runs again in it, for real. So a twin has never more than a user namespace of its own
gives: with users, devices, network or other namespaces of the host or of another container the
command could change these (set the clock, write a disk, end a process).

If the refusal is gone, that layer refused, and the flag is enough. If not, the proof names the next
layer. As for ``verify --probe``, binds and volumes of the copy are read-only, no port is published,
and the copy is removed afterwards.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from jaula.features.verify.escape.twin import INSIDE, body
from jaula.features.why.diagnosis import Diagnosis

_PLACEHOLDERS = {"N": 65536, "SIZE": 512}  # of a limit; MiB
_MODES = ("UsernsMode", "NetworkMode", "PidMode", "IpcMode", "UTSMode")
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def request(inspect: Mapping[str, Any], words: Sequence[str], user: str) -> dict[str, Any]:
    """Return the request for a copy of a container whose first process is a command."""
    copy = body(inspect, "/dev/null")
    host = copy["HostConfig"]
    host["Binds"] = [each for each in host["Binds"] if f":{INSIDE}:" not in each]
    copy |= {"Entrypoint": list(words), "Cmd": []}
    if user:
        copy["User"] = user
    return copy


def lift(copy: Mapping[str, Any], flag: str, profile: bytes | None = None) -> dict[str, Any] | None:
    """Return the request with the flag of an explanation.

    ``profile`` is the text of the profile that ``seccomp=FILE`` stands for. None: a copy cannot
    show its effect, or the copy could change the host.
    """
    if "seccomp=FILE" in flag:
        if profile is None:
            return None
        flag = "--security-opt seccomp=FILE"
    modes = [str(copy["HostConfig"].get(field) or "") for field in _MODES]
    if any(mode == "host" or mode.startswith("container:") for mode in modes):
        return None
    if copy["HostConfig"].get("Privileged"):
        return None
    result = dict(copy)
    host = result["HostConfig"] = dict(copy["HostConfig"])
    words = iter(shlex.split(flag.replace("'", "")) if flag else ())
    applied = False
    for word in words:
        name, equals, value = word.partition("=")
        apply = _FLAGS.get(name)
        if word == "without":
            apply, value = _remove_option, " ".join(words)
        elif apply is None:
            return None
        elif not equals:
            value = next(words, "")
        if apply is None or not apply(result, host, value, words):
            return None
        applied = True
    if profile is not None and "seccomp=FILE" in flag:
        host["SecurityOpt"] = [
            each if each != "seccomp=FILE" else f"seccomp={profile.decode()}"
            for each in host["SecurityOpt"]
        ]
    return result if applied else None


Apply = Callable[[dict[str, Any], dict[str, Any], str, Iterator[str]], bool]


def _cap_add(_: dict[str, Any], host: dict[str, Any], value: str, __: Iterator[str]) -> bool:
    host["CapAdd"] = [*(host.get("CapAdd") or ()), value]
    host["CapDrop"] = [
        each for each in host.get("CapDrop") or () if each.upper().removeprefix("CAP_") != value
    ]
    return True


def _user(copy: dict[str, Any], _: dict[str, Any], value: str, __: Iterator[str]) -> bool:
    copy["User"] = value
    return True


def _network(_: dict[str, Any], host: dict[str, Any], value: str, __: Iterator[str]) -> bool:
    host["NetworkMode"] = value
    return value != "host"


def _sysctl(_: dict[str, Any], host: dict[str, Any], value: str, __: Iterator[str]) -> bool:
    name, _equals, text = value.partition("=")
    if text == "VALUE":
        return False
    host["Sysctls"] = {**(host.get("Sysctls") or {}), name: text}
    return True


def _ulimit(_: dict[str, Any], host: dict[str, Any], value: str, __: Iterator[str]) -> bool:
    name, _equals, text = value.partition("=")
    unlimited = name in ("as", "data", "fsize", "memlock", "nproc")
    number = -1 if unlimited else _PLACEHOLDERS["N"] if text == "N" else int(text)
    if name == "rtprio":
        number = 50
    others = [each for each in host.get("Ulimits") or () if each.get("Name") != name]
    host["Ulimits"] = [*others, {"Name": name, "Soft": number, "Hard": number}]
    return True


def _pids(_: dict[str, Any], host: dict[str, Any], value: str, __: Iterator[str]) -> bool:
    host["PidsLimit"] = int(value)
    return True


def _memory(_: dict[str, Any], host: dict[str, Any], value: str, __: Iterator[str]) -> bool:
    if value[-1:] not in _UNITS:
        return False
    host["Memory"] = int(value[:-1]) * _UNITS[value[-1]]
    host["MemorySwap"] = host["Memory"]
    return True


def _shm(_: dict[str, Any], host: dict[str, Any], __: str, ___: Iterator[str]) -> bool:
    host["ShmSize"] = _PLACEHOLDERS["SIZE"] << 20
    return True


def _tmpfs(_: dict[str, Any], host: dict[str, Any], value: str, __: Iterator[str]) -> bool:
    target, _colon, options = value.partition(":")
    options = options.replace("SIZE", f"{_PLACEHOLDERS['SIZE']}m")
    host["Tmpfs"] = {**(host.get("Tmpfs") or {}), target: options}
    return True


def _security(_: dict[str, Any], host: dict[str, Any], value: str, rest: Iterator[str]) -> bool:
    options = list(host.get("SecurityOpt") or ())
    if value.startswith("seccomp="):
        options = [each for each in options if not each.startswith(("seccomp=", "seccomp:"))]
    if "PROFILE" in value:
        return False
    host["SecurityOpt"] = [*options, value]
    return True


def _remove_option(_: dict[str, Any], host: dict[str, Any], value: str, __: Iterator[str]) -> bool:
    option = value.removeprefix("--security-opt ")
    host["SecurityOpt"] = [
        each for each in host.get("SecurityOpt") or () if each.partition(":")[0] != option
    ]
    return value.startswith("--security-opt ")


_FLAGS: dict[str, Apply] = {
    "--cap-add": _cap_add,
    "--memory": _memory,
    "--network": _network,
    "--pids-limit": _pids,
    "--security-opt": _security,
    "--shm-size": _shm,
    "--sysctl": _sysctl,
    "--tmpfs": _tmpfs,
    "--ulimit": _ulimit,
    "--user": _user,
}


def proven(diagnosis: Diagnosis, repeated: Sequence[Diagnosis]) -> Diagnosis:
    """Return a diagnosis with what its twin shows. ``repeated`` are the diagnoses of the twin."""
    flag = diagnosis.explanation.flag
    refused = {(each.call, each.object, each.errno) for each in diagnosis.operations}
    again = [
        each.explanation
        for each in repeated
        if any((o.call, o.object, o.errno) in refused for o in each.operations)
    ]
    if not again:
        text = f"twin: in a copy of the container with {flag} the call was not refused"
    elif again[0].layer == diagnosis.explanation.layer:
        text = f"twin: refused in a copy with {flag} too, for the same reason"
    else:
        text = (
            f"twin: in a copy with {flag} the next layer refused: {again[0].layer}, which needs "
            + (again[0].flag or "another remedy")
        )
    proof = f"{diagnosis.explanation.proof}; {text}"
    return msgspec.structs.replace(
        diagnosis, explanation=msgspec.structs.replace(diagnosis.explanation, proof=proof)
    )
