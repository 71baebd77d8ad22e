"""Fetching an image, and showing the messages that long operations send while they run."""

from __future__ import annotations

import sys

from jaula.cli.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, TextIO

    from jaula.cli.client import Client


def split(image: str) -> tuple[str, str]:
    """A reference as the repository and the tag (or digest) that the API takes."""
    name, at, digest = image.partition("@")
    if at:
        return name, digest
    head, slash, last = image.rpartition("/")
    last, _, tag = last.partition(":")
    return head + slash + last, tag or "latest"


def pull(client: Client, image: str, platform: str = "", *, quiet: bool, output: int) -> None:
    """Ask the engine to fetch ``image``. Raises Failure with the engine's reason."""
    name, tag = split(image)
    query = (("fromImage", name), ("tag", tag), ("platform", platform))
    messages = client.lines("POST", "/images/create", query)
    show(messages, sys.stdout if output == 1 else sys.stderr, quiet=quiet)


def show(messages: Iterable[dict[str, Any]], output: TextIO, *, quiet: bool = False) -> None:
    """Print progress messages (API: CreateImageInfo). Raises Failure for an error among them.

    On a terminal the line of each layer is drawn over; elsewhere one line is printed a change.
    """
    lines: dict[str, int] = {}
    terminal = output.isatty()
    for message in messages:
        error = message.get("error") or (message.get("errorDetail") or {}).get("message")
        if error:
            raise Failure(str(error))
        if quiet:
            continue
        if "stream" in message:
            output.write(str(message["stream"]))
        elif "status" in message:
            _status(message, output, lines, terminal)
        output.flush()


def _status(message: dict[str, Any], output: TextIO, lines: dict[str, int], terminal: bool) -> None:
    name = str(message.get("id") or "")
    text = (f"{name}: " if name else "") + str(message["status"])
    progress = message.get("progress") or _progress(message.get("progressDetail") or {})
    if not terminal:
        if not progress:
            output.write(text + "\n")
        return
    if progress:
        text += f" {progress}"
    if not name:
        output.write(text + "\n")
        lines.clear()
        return
    if name not in lines:
        lines[name] = len(lines)
        output.write(text + "\n")
        return
    up = len(lines) - lines[name]
    output.write(f"\x1b[{up}A\x1b[2K\r{text}\x1b[{up}B\r")


def _progress(detail: dict[str, Any]) -> str:
    from jaula.cli.units import shown

    current, total = detail.get("current") or 0, detail.get("total") or 0
    if not current:
        return ""
    return f"{shown(current)}/{shown(total)}" if total else shown(current)
