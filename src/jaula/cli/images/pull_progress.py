"""Pull an image, and print the progress messages of long operations."""

from __future__ import annotations

import sys

from jaula.cli.cli_errors import CliError, UsageError
from jaula.cli.output.visible_stream import write_control

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, TextIO

    from jaula.cli.client.api_client import Client
    from jaula.cli.command_parser import Options


BAR_MIN_WIDTH = 110  # columns of a terminal that shows the bar
BAR_CELLS = 50


def split_reference(image: str) -> tuple[str, str]:
    """Split a reference into the repository and the tag (or digest) for the API."""
    name, at, digest = image.partition("@")
    if at:
        return name, digest
    head, slash, last = image.rpartition("/")
    last, _, tag = last.partition(":")
    return head + slash + last, tag or "latest"


def with_tag(image: str) -> str:
    """Return the reference with the default tag if it has neither a tag nor a digest."""
    last = image.rpartition("/")[2]
    return image if ":" in last or "@" in last else f"{image}:latest"


def repository_or_tag(options: Options) -> tuple[str, bool]:
    """Return the image of a pull or push and whether ``--all-tags`` names its whole repository.

    Print the tag that is used if the image has none.

    :raises UsageError: when a tag comes with ``--all-tags``, or content trust is enabled.
    """
    from jaula.cli.images import content_trust

    content_trust.check(options)
    image, all_tags = options.arguments[0], options.on("all-tags")
    tagged = with_tag(image) == image
    if all_tags and tagged:
        raise UsageError("tag can't be used with --all-tags/-a", status=1)
    if not all_tags and not tagged and not options.on("quiet"):
        print(f"Using default tag: {split_reference(image)[1]}", flush=True)
    return image, all_tags


def pull(
    client: Client,
    image: str,
    platform: str = "",
    *,
    quiet: bool,
    output: int,
    all_tags: bool = False,
) -> None:
    """Pull ``image``, or with ``all_tags`` every tag of its repository.

    ``output`` is the descriptor for the progress: 1 or 2.

    :raises CliError: when the pull fails.
    """
    from jaula.cli.images import registry_auth

    name, tag = split_reference(image)
    query = (("fromImage", name), ("tag", "" if all_tags else tag), ("platform", platform))
    messages = client.lines("POST", "/images/create", query, registry_auth.headers(image))
    show_progress(messages, sys.stdout if output == 1 else sys.stderr, quiet=quiet)


def show_progress(
    messages: Iterable[dict[str, Any]], output: TextIO, *, quiet: bool = False
) -> None:
    """Print progress messages (API: CreateImageInfo).

    On a terminal the line of each layer is redrawn. Elsewhere each change is one line.

    :raises CliError: when a message reports an error.
    """
    from jaula.cli.output.ansi import is_dumb

    lines: dict[str, int] = {}
    terminal = output.isatty() and not is_dumb()
    for message in messages:
        error = message.get("error") or (message.get("errorDetail") or {}).get("message")
        if error:
            raise CliError(str(error))
        if quiet:
            continue
        if "stream" in message:
            output.write(str(message["stream"]))
        elif "status" in message:
            _print_status(message, output, lines, terminal)
        output.flush()


def _print_status(
    message: dict[str, Any], output: TextIO, lines: dict[str, int], terminal: bool
) -> None:
    name = str(message.get("id") or "")
    text = (f"{name}: " if name else "") + str(message["status"])
    progress = _progress_text(
        message.get("progressDetail") or {}, _terminal_width(output) if terminal else 0
    )
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
    write_control(output, f"\x1b[{up}A\x1b[2K\r")
    output.write(text)
    write_control(output, f"\x1b[{up}B\r")


def _terminal_width(output: TextIO) -> int:
    from jaula.cli.output.user_terminal import size

    return size(output.fileno())[1] or 80


def _progress_text(detail: dict[str, Any], width: int) -> str:
    """Return Docker's progress bar for a wide terminal, else only the numbers."""
    from jaula.spec.units import human_size

    current, total = detail.get("current") or 0, detail.get("total") or 0
    if not current:
        return ""
    if not total:
        return f"{human_size(current):>8}"
    numbers = f"{human_size(current):>8}" + (f"/{human_size(total)}" if current <= total else "")
    if width <= BAR_MIN_WIDTH:
        return numbers
    cells = min(current * BAR_CELLS // total, BAR_CELLS)
    return f"[{'=' * cells}>{' ' * (BAR_CELLS - cells)}] {numbers}"
