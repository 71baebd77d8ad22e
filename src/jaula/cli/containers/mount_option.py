"""``--mount type=bind,source=/host,target=/inside,readonly``: a mount as comma-separated fields."""

from __future__ import annotations

from jaula.cli.cli_errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TYPES = ("bind", "volume", "tmpfs", "image", "engine-socket")
NAMES = {
    "source": "Source",
    "src": "Source",
    "target": "Target",
    "dst": "Target",
    "destination": "Target",
}
BOOLEAN_KEYS = ("readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src")


def document(word: str) -> dict[str, Any]:
    """Return the API's Mount for one ``--mount``.

    :raises UsageError: when it is invalid.
    """
    mount: dict[str, Any] = {"Type": "volume"}
    for field in fields(word):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if not equals and key not in BOOLEAN_KEYS:
            raise _bad(word, f"invalid field '{field}' must be a key=value pair")
        _set_field(mount, key, value if equals else "true", word)
    kind = mount["Type"]
    if "Target" not in mount and kind != "engine-socket":  # which has a default
        raise _bad(word, "target is required")
    if kind == "image" and "Source" not in mount:
        raise _bad(word, "source is required for an image mount")
    if kind == "bind":
        if "Source" not in mount:
            raise _bad(word, "source is required for a bind mount")
        if mount["Source"].startswith("."):
            import os

            mount["Source"] = os.path.abspath(mount["Source"])
    for key, owner in (
        ("VolumeOptions", "volume"),
        ("BindOptions", "bind"),
        ("TmpfsOptions", "tmpfs"),
        ("ImageOptions", "image"),
    ):
        if key in mount and kind != owner:
            raise _bad(word, f"cannot mix '{owner}-*' options with mount type '{kind}'")
    _check_recursion(mount, word)
    return mount


def _check_recursion(mount: dict[str, Any], word: str) -> None:
    """Check which options the values of bind-recursive require (docker/cli ``opts/mount.go``)."""
    options = mount.get("BindOptions", {})
    for key, value in (
        ("ReadOnlyNonRecursive", "writable"),
        ("ReadOnlyForceRecursive", "readonly"),
    ):
        if options.get(key) and not mount.get("ReadOnly"):
            raise _bad(
                word,
                f"option 'bind-recursive={value}' requires 'readonly' to be specified in"
                " conjunction",
            )
    if options.get("ReadOnlyForceRecursive") and options.get("Propagation") != "rprivate":
        raise _bad(
            word,
            "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be"
            " specified in conjunction",
        )


def _set_field(mount: dict[str, Any], key: str, value: str, word: str) -> None:
    if key == "type":
        if value.lower() not in TYPES:
            raise _bad(word, f"invalid mount type '{value}': must be one of {', '.join(TYPES)}")
        mount["Type"] = value.lower()
    elif key in NAMES:
        mount[NAMES[key]] = value
    elif key in ("readonly", "ro"):
        mount["ReadOnly"] = _boolean(key, value, word)
    elif key == "consistency":
        mount["Consistency"] = value.lower()
    elif key == "bind-propagation":
        mount.setdefault("BindOptions", {})["Propagation"] = value.lower()
    elif key == "bind-nonrecursive":
        mount.setdefault("BindOptions", {})["NonRecursive"] = _boolean(key, value, word)
    elif key == "bind-create-src":
        mount.setdefault("BindOptions", {})["CreateMountpoint"] = _boolean(key, value, word)
    elif key == "bind-recursive":
        _set_recursive(mount.setdefault("BindOptions", {}), value, word)
    elif key == "volume-nocopy":
        mount.setdefault("VolumeOptions", {})["NoCopy"] = _boolean(key, value, word)
    elif key == "volume-label":
        name, _, text = value.partition("=")
        mount.setdefault("VolumeOptions", {}).setdefault("Labels", {})[name] = text
    elif key == "volume-subpath":
        mount.setdefault("VolumeOptions", {})["Subpath"] = value
    elif key == "volume-driver":
        mount.setdefault("VolumeOptions", {}).setdefault("DriverConfig", {})["Name"] = value
    elif key == "volume-opt":
        name, _, text = value.partition("=")
        driver = mount.setdefault("VolumeOptions", {}).setdefault("DriverConfig", {})
        driver.setdefault("Options", {})[name] = text
    elif key == "image-subpath":
        mount.setdefault("ImageOptions", {})["Subpath"] = value
    elif key == "tmpfs-size":
        from jaula.spec import units

        try:
            mount.setdefault("TmpfsOptions", {})["SizeBytes"] = units.size(value)
        except ValueError as error:
            raise _bad(word, f"invalid value for {key}: {error}") from None
    elif key == "tmpfs-mode":
        try:
            mount.setdefault("TmpfsOptions", {})["Mode"] = int(value, 8)
        except ValueError:
            raise _bad(word, f"invalid value for {key}: {value}") from None
    else:
        raise _bad(word, f"unexpected key '{key}' in '{key}={value}'")


def _set_recursive(options: dict[str, Any], value: str, word: str) -> None:
    if value == "disabled":
        options["NonRecursive"] = True
    elif value == "writable":
        options["ReadOnlyNonRecursive"] = True
    elif value == "readonly":
        options["ReadOnlyForceRecursive"] = True
    elif value != "enabled":
        raise _bad(
            word,
            f"invalid value for bind-recursive: {value} "
            "(must be 'enabled', 'disabled', 'writable' or 'readonly')",
        )


def _boolean(key: str, value: str, word: str) -> bool:
    from jaula.cli.command_parser import FALSE_WORDS, TRUE_WORDS

    if value in TRUE_WORDS or value in FALSE_WORDS:
        return value in TRUE_WORDS
    raise _bad(word, f"invalid value for {key}: {value}")


def fields(text: str, flag: str = "--mount") -> list[str]:
    """Split the value of a flag, one line of comma-separated values (RFC 4180 quoting).

    :raises UsageError: when a quote is misplaced.
    """
    result, current, quoted, position = [], "", False, 0
    while position < len(text):
        character = text[position]
        if quoted:
            if character == '"' and text[position + 1 : position + 2] == '"':
                current += '"'
                position += 1
            elif character == '"':
                quoted = False
            else:
                current += character
        elif character == '"':
            if current:
                raise _bad(text, "a quote inside an unquoted field", flag)
            quoted = True
        elif character == ",":
            result.append(current)
            current = ""
        else:
            current += character
        position += 1
    if quoted:
        raise _bad(text, "a quote is not closed", flag)
    return [*result, current]


def _bad(word: str, reason: str, flag: str = "--mount") -> UsageError:
    return UsageError(f'invalid argument "{word}" for "{flag}" flag: {reason}')
