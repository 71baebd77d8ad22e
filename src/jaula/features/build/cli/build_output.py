"""Progress of a build: from the engine's messages to events of its steps.

``/build?progress=steps`` answers one JSON document for each message. ``jaula`` in it identifies the
step and, when the step starts or ends, its new state. ``stream`` is output of a step, or of the
build itself if ``jaula`` is absent. ``status`` is the progress of a download, ``remark`` a warning
about the Dockerfile, ``aux`` the image and ``error`` the failure of the build.
"""

from __future__ import annotations

from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Protocol

    class View(Protocol):
        """Progress output. ``text`` is output of the build, ``line`` output of a step."""

        def began(self, step: ProgressStep) -> None: ...

        def line(self, step: ProgressStep, text: str) -> None: ...

        def ended(self, step: ProgressStep) -> None: ...

        def text(self, text: str) -> None: ...


_ENGINE_LINES = (" ---> Using cache\n", " ---> Running in a container\n")
_ID = 12  # digits of an image's short id


class ProgressStep:
    """One instruction of a stage. ``state`` is started, cached, done, failed or canceled."""

    def __init__(self, number: int, about: dict[str, Any]) -> None:
        self.number = number
        self.total = int(about.get("total") or 0)
        self.stage = str(about.get("name") or "")
        self.text = str(about.get("text") or "")
        self.state = "started"
        self.error = ""
        self.seconds = 0.0
        self.downloads: dict[str, str] = {}
        self.pending = ""  # the last line, still incomplete
        self.began = monotonic()

    @property
    def title(self) -> str:
        """Return the heading of the step: ``[web 2/7] RUN make``."""
        name = f"{self.stage} " if self.stage else ""
        return f"[{name}{self.number}/{self.total}] {self.text}"

    @property
    def elapsed(self) -> float:
        """Return the seconds since the start of the step, or its duration after it ended."""
        return monotonic() - self.began if self.state == "started" else self.seconds


class ProgressModel:
    """Reads the messages of a build and notifies ``view``.

    ``image`` and ``error`` are set at the end of the build.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._steps: dict[int, ProgressStep] = {}
        self.image = ""
        self.error = ""

    def run(self, messages: Iterable[dict[str, Any]]) -> None:
        """Read all messages."""
        for message in messages:
            self.take(message)

    def take(self, message: dict[str, Any]) -> None:
        """Read one message."""
        about = message.get("jaula") or {}
        error = message.get("error") or (message.get("errorDetail") or {}).get("message")
        if error:
            self.error = str(error)
        elif "state" in about:
            self._state(about)
        elif "aux" in message:
            self.image = str((message["aux"] or {}).get("ID") or self.image)
        elif "remark" in message:
            remark = message["remark"]
            line = (remark.get("location") or {}).get("first", 0)
            self._view.text(f"WARN: {remark['rule']}: {remark['message']} (line {line})")
        elif "status" in message:
            self._download(self._steps.get(about.get("step", 0)), message)
        elif "stream" in message:
            self._stream(self._steps.get(about.get("step", 0)), about, str(message["stream"]))

    def _state(self, about: dict[str, Any]) -> None:
        number = int(about.get("step") or 0)
        if about["state"] == "started":
            step = self._steps[number] = ProgressStep(number, about)
            self._view.began(step)
            return
        step = self._steps.get(number) or ProgressStep(number, about)
        if step.pending:
            self._view.line(step, step.pending)
            step.pending = ""
        step.state = str(about["state"])
        step.seconds = int(about.get("ms") or 0) / 1000
        step.error = str(about.get("error") or "")
        self._view.ended(step)

    def _stream(self, step: ProgressStep | None, about: dict[str, Any], text: str) -> None:
        if step is None:
            if not about or about.get("step", 0) == 0:
                for line in text.splitlines():
                    self._view.text(line)
            return  # a heading of the next step, which its start message repeats
        if text in _ENGINE_LINES or _is_id(text):
            return
        *lines, step.pending = (step.pending + text).split("\n")
        for line in lines:
            self._view.line(step, line.rstrip("\r").rpartition("\r")[2])

    def _download(self, step: ProgressStep | None, message: dict[str, Any]) -> None:
        if step is None:
            return
        layer, status = str(message.get("id") or ""), str(message["status"])
        detail = message.get("progressDetail") or {}
        if detail.get("total"):
            status += f" {100 * (detail.get('current') or 0) // detail['total']} %"
        elif step.downloads.get(layer) != status:
            self._view.line(step, f"{layer}: {status}" if layer else status)
        step.downloads[layer] = status


def _is_id(text: str) -> bool:
    digits = text.removeprefix(" ---> ").rstrip("\n")
    return text.startswith(" ---> ") and len(digits) == _ID and not digits.strip("0123456789abcdef")
