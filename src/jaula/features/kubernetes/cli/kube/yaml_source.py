"""The text of Kubernetes' YAML: a file, standard input or a URL."""

from __future__ import annotations

import sys

from jaula.cli import site_packages
from jaula.cli.cli_errors import CliError
from jaula.features.kubernetes.kube.kube_documents import MAX_SIZE, InvalidDocument, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TIMEOUT = 20.0  # seconds of one wait for the server of a URL
_TOTAL_TIMEOUT = 60.0  # seconds of a download
_CHUNK = 65536  # bytes of one read


def read(path: str) -> list[dict[str, Any]]:
    """Return the objects of a file, ``-`` for standard input, or of a URL.

    :raises CliError: when it cannot be read, or is invalid.
    """
    site_packages.enable()
    try:
        if path == "-":
            text = sys.stdin.buffer.read(MAX_SIZE + 1)
        elif "://" in path:
            text = _download(path)
        else:
            with open(path, "rb") as file:
                text = file.read(MAX_SIZE + 1)
        return load(text)
    except OSError as error:
        raise CliError(f"open {path}: {(error.strerror or '').lower()}", status=125) from None
    except InvalidDocument as error:
        raise CliError(f"{path}: {error}", status=125) from None


def _download(url: str) -> bytes:
    """Return the body of a URL, at most one byte more than a file may have.

    :raises CliError: when the server does not answer, or with an error.
    """
    from http.client import HTTPException
    from time import monotonic
    from urllib import request

    if not url.startswith(("http://", "https://")):
        raise CliError(f"cannot read {url}: a URL begins with http:// or https://", status=125)
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(),
        request.HTTPHandler(),
        request.HTTPSHandler(),
        request.HTTPRedirectHandler(),
        request.HTTPDefaultErrorHandler(),
        request.HTTPErrorProcessor(),
        request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    end = monotonic() + _TOTAL_TIMEOUT
    text = b""
    try:
        with opener.open(request.Request(url), timeout=_TIMEOUT) as response:
            while len(text) <= MAX_SIZE and (chunk := response.read1(_CHUNK)):
                text += chunk
                if monotonic() > end:
                    raise TimeoutError(f"no end after {_TOTAL_TIMEOUT:.0f} seconds")
    except (OSError, HTTPException, ValueError) as error:
        raise CliError(f"cannot read {url}: {error}", status=125) from None
    return text
