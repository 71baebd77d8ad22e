"""Edit a container in ``$EDITOR``: read, edit, show the difference, change; repeat after an error.

The behaviour is that of ``kubectl edit``: a file without a change cancels, an error is shown at the
top of the file again, and a file that is not changed after an error gives up.
"""

from __future__ import annotations

import difflib
import os
import shlex
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

from jaula.cli.cli_errors import CliError, EngineError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from jaula.cli.client.api_client import Client

_CONFLICT = 409
_FAILED = "# The change failed: "


def run(client: Client, path: str, apply: Callable[[dict[str, Any]], None], *, detach: bool) -> int:
    """Edit the container of an API path; ``apply`` sends the change.

    :raises CliError: when the editor fails, or the change is not valid and is given up.
    """
    from jaula.cli import site_packages

    site_packages.enable()
    from jaula.features.edit.cli import edit_document

    document: dict[str, Any] = client.get(path)
    original = edit_document.dumps(document)
    with tempfile.TemporaryDirectory(prefix="jaula-edit-") as directory:
        file = os.path.join(directory, f"{document['Name']}.toml")
        text, message = original, ""
        while True:
            shown = _with_message(text, message)
            edited = _without_message(_edit(file, shown))
            if _content(edited) == _content(original):
                print("edit cancelled, no changes made")
                return 0
            if message and edited == text:
                _keep(edited, document["Name"])
                raise CliError(f"edit cancelled, no valid change was made: {message}")
            text = edited
            try:
                body = edit_document.change(document, text)
                if not body:
                    print("edit cancelled, no changes made")
                    return 0
                body |= {"Version": document["Version"]} | ({"Detach": True} if detach else {})
                apply(body)
            except EngineError as error:
                if error.code == _CONFLICT and "changed by another client" in error.reason:
                    _keep(text, document["Name"])
                    raise
                message = error.reason
                continue
            except CliError as error:
                message = error.message
                continue
            _print_difference(original, text, document["Name"])
            print(f"container {document['Name']} edited")
            return 0


def _edit(file: str, text: str) -> str:
    """Let the user edit a text and return it.

    :raises CliError: when there is no editor, or it fails.
    """
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not command and not (os.isatty(0) and os.isatty(1)):
        raise CliError("nothing to change: give a flag, or run it in a terminal for an editor")
    command = command or "vi"
    try:
        status = subprocess.run([*shlex.split(command), file], check=False).returncode
    except OSError as error:
        raise CliError(f"cannot run the editor {command!r}: {error.strerror}; set EDITOR") from None
    if status:
        raise CliError(f"the editor {command!r} failed with status {status}; no changes made")
    try:
        with open(file, encoding="utf-8") as stream:
            return stream.read()
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"cannot read the edited file: {error}") from None


def _with_message(text: str, message: str) -> str:
    if not message:
        return text
    return "".join(f"{_FAILED}{line}\n" for line in message.splitlines()) + text


def _without_message(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(_FAILED))


def _content(text: str) -> list[str]:
    """Return the lines of a text that are neither comments nor empty."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _keep(text: str, name: str) -> None:
    """Keep an edited text that was not applied, and tell where it is."""
    descriptor, path = tempfile.mkstemp(prefix=f"jaula-edit-{name}-", suffix=".toml")
    with open(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    sys.stderr.write(f"A copy of your file is in {path}\n")


def _print_difference(before: str, after: str, name: str) -> None:
    lines = difflib.unified_diff(
        _content(before), _content(after), f"{name} (before)", f"{name} (now)", lineterm="", n=1
    )
    for line in lines:
        print(line)
