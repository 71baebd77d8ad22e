"""Translate the engine's progress messages to the vertexes of BuildKit's progress.

A vertex is a step that has a digest, which the client only compares. Steps that change no file
(``ENV``, ``CMD``) are not shown, as in BuildKit; a failure of one is.

Pure, except for the clock that the caller passes. Source: moby/buildkit ``client/solve`` and
``util/progress/progressui`` (what a client shows).
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import msgspec

from jaula.features.build.buildkit.proto.control_pb2 import StatusResponse, Vertex, VertexStatus
from jaula.images.dockerfile.ast import rule_url

Document = dict[str, Any]
_ENGINE_LINES = (" ---> Using cache\n", " ---> Running in a container\n")
_STDOUT = 1
_STORED_LIMIT = 128 << 10  # bytes of one build
_ID = 12  # digits of an image's short id


class BuildStatus:
    """The progress of one build. ``ref`` makes its digests unique."""

    def __init__(self, ref: str) -> None:
        self._ref = ref
        self._vertexes: dict[str, Vertex] = {}
        self._current: dict[int, str] = {}  # the key of the vertex that a stage is at
        self._hidden: dict[int, Document] = {}  # steps that are not shown, by stage
        self._open: dict[str, dict[str, VertexStatus]] = {}  # transfers, by digest of the vertex
        self._internal = ""  # the key of the last internal vertex
        self._dockerfile = ("Dockerfile", b"")
        self._several = False  # stages
        self.failed = (0, 0)  # the lines of the step that failed
        self.steps = self.cached = self.warnings = 0

    def take(self, message: Document, now: int) -> StatusResponse | None:
        """Return what a message means to the client at a time in nanoseconds; None if nothing."""
        response = StatusResponse()
        about = message.get("jaula") or {}
        if "internal" in message:
            self._internal_step(response, message, now)
        elif "state" in about:
            self._step(response, about, now)
        elif "dockerfile" in message:
            self._dockerfile = message["dockerfile"], message["text"].encode()
            self._several = message["stages"] > 1
        elif "remark" in message:
            self._warning(response, message["remark"])
        elif "status" in message:
            self._transfer(response, self._vertex_of(about), message, now)
        elif "stream" in message:
            self._log(response, about, str(message["stream"]), now)
        return response if response.ByteSize() else None

    def source_detail(self) -> bytes:
        """Return the place of the failure in the Dockerfile, which clients print; empty without.

        Source: moby/buildkit ``solver/errdefs`` (``Source``, as JSON).
        """
        first, last = self.failed
        if not first:
            return b""
        name, text = self._dockerfile
        lines = {"start": {"line": first}, "end": {"line": last}}
        source = {"info": {"filename": name, "data": text}, "ranges": [lines]}
        return msgspec.json.encode(source)

    def close(self, now: int) -> StatusResponse:
        """Return the end of all vertexes that have not ended, after a failure or cancellation.

        A vertex that failed has ended with its error. Clients print this text as CANCELED.
        """
        response = StatusResponse()
        for vertex in self._vertexes.values():
            if not vertex.HasField("completed"):
                self._complete(response, vertex, now, error="context canceled")
        return response

    # -- vertexes --------------------------------------------------------------------------------

    def _begin(self, response: StatusResponse, key: str, name: str, now: int) -> Vertex:
        digest = hashlib.sha256(f"{self._ref}\0{key}".encode()).hexdigest()
        vertex = Vertex(digest=f"sha256:{digest}", name=name)
        vertex.started.FromNanoseconds(now)
        self._vertexes[key] = vertex
        response.vertexes.append(vertex)
        return vertex

    def _complete(
        self,
        response: StatusResponse,
        vertex: Vertex,
        now: int,
        *,
        error: str = "",
        cached: bool = False,
    ) -> None:
        if vertex.HasField("completed"):
            return
        for status in self._open.pop(vertex.digest, {}).values():
            status.timestamp.FromNanoseconds(now)
            status.completed.FromNanoseconds(now)
            response.statuses.append(status)
        vertex.completed.FromNanoseconds(now)
        vertex.error, vertex.cached = error, cached
        response.vertexes.append(vertex)

    def _internal_step(self, response: StatusResponse, message: Document, now: int) -> None:
        title = message["internal"]
        platform = message.get("platform") or ""
        key = f"internal {platform} {title}"
        vertex = self._vertexes.get(key)
        state = message.get("state")
        if vertex is None:
            prefix = f"[{platform} internal]" if platform else "[internal]"
            named = title.startswith(("exporting", "importing", "["))
            name = title if named else f"{prefix} {title}"
            vertex = self._begin(response, key, name, now)
            self._internal = key
        if state in ("done", "failed"):
            self._complete(response, vertex, now, error=message.get("error") or "")
        elif state is None:
            self._transfer(response, vertex, message, now)

    def _step(self, response: StatusResponse, about: Document, now: int) -> None:
        stage, state = about.get("stage", 0), about["state"]
        if state == "started":
            self._hidden.pop(stage, None)
            place, count = about.get("position") or (0, 0)
            if not place:
                self._hidden[stage] = about
                return
            stage_name = about.get("name") or (
                f"stage-{about.get('index', stage)}" if self._several else ""
            )
            words = (about.get("platform"), stage_name)
            stage_name = "".join(f"{word} " for word in words if word)
            key = f"step {stage} {about['step']}"
            self._current[stage] = key
            text = str(about["text"])
            if about.get("word") == "FROM":
                text = re.sub(r" AS \S+\Z", "", text, flags=re.IGNORECASE)
                text = f"FROM {about['image']}" if about.get("image") else text
            self._begin(response, key, f"[{stage_name}{place}/{count}] {text}", now)
            self.steps += 1
            return
        error = str(about.get("error") or "")
        if about.get("command"):
            error = exit_text(str(about["command"]), int(about["code"]))
        if lines := about.get("location"):
            self.failed = int(lines["first"]), int(lines["last"])
        hidden = self._hidden.pop(stage, None)
        if hidden is not None:
            if state != "failed":
                return
            key = f"step {stage} {hidden['step']}"
            self._current[stage] = key
            self._begin(response, key, str(hidden["text"]), now)
        vertex = self._vertexes.get(self._current.get(stage, ""))
        if vertex is not None:
            self.cached += state == "cached"
            self._complete(response, vertex, now, error=error, cached=state == "cached")

    def _vertex_of(self, about: Document) -> Vertex | None:
        key = self._current.get(about.get("stage", -1), self._internal)
        return self._vertexes.get(key)

    # -- what vertexes have ----------------------------------------------------------------------

    def _transfer(
        self, response: StatusResponse, vertex: Vertex | None, message: Document, now: int
    ) -> None:
        if vertex is None or "status" not in message:
            return
        detail = message.get("progressDetail") or {}
        name = str(message["status"])
        id = str(message.get("id") or "")
        current, total = message.get("current"), message.get("total")
        if current is None:
            current, total = detail.get("current"), detail.get("total")
        status = response.statuses.add(
            ID=f"{name} {id}".strip(),
            vertex=vertex.digest,
            current=int(current or 0),
            total=int(total or 0),
        )
        status.timestamp.FromNanoseconds(now)
        status.started.CopyFrom(vertex.started)
        transfers = self._open.setdefault(vertex.digest, {})
        if current is None or (total and current >= total) or message.get("complete"):
            status.completed.FromNanoseconds(now)
            transfers.pop(status.ID, None)
        else:
            transfers[status.ID] = status

    def _log(self, response: StatusResponse, about: Document, text: str, now: int) -> None:
        stage = about.get("stage", -1)
        if stage < 0 or not text or text in _ENGINE_LINES or _is_engine_line(text):
            return
        vertex = self._vertexes.get(self._current.get(stage, ""))
        if vertex is None or stage in self._hidden or vertex.HasField("completed"):
            return
        log = response.logs.add(vertex=vertex.digest, stream=_STDOUT, msg=text.encode())
        log.timestamp.FromNanoseconds(now)

    def _warning(self, response: StatusResponse, remark: Document) -> None:
        rule, lines = str(remark["rule"]), remark.get("location") or {}
        line = f" (line {lines['first']})" if lines.get("first") else ""
        self.warnings += 1
        definition = next(
            (v for k, v in self._vertexes.items() if k.startswith("internal  load build def")), None
        )
        name, text = self._dockerfile
        warning = response.warnings.add(
            vertex=definition.digest if definition is not None else "",
            level=1,
            short=f"{rule}: {remark['message']}{line}".encode(),
            url=rule_url(rule),
        )
        warning.info.filename, warning.info.data = name, text
        warning.info.language = "Dockerfile"
        place = warning.ranges.add()
        place.start.line = int(lines.get("first") or 0)
        place.end.line = int(lines.get("last") or 0)


class StoredProgress:
    """The progress of a build for its record, in ``data``, as one serialized message.

    The output of steps has a limit. Steps and warnings are kept until twice that limit.
    """

    def __init__(self, limit: int = _STORED_LIMIT) -> None:
        self._limit = limit
        self._data = bytearray()
        self._clipped = False

    @property
    def data(self) -> bytes:
        return bytes(self._data)

    def add(self, response: StatusResponse) -> None:
        """Add progress. Serialized messages that follow each other are one merged message."""
        if len(self._data) + response.ByteSize() > self._limit:
            kept = StatusResponse(vertexes=response.vertexes, warnings=response.warnings)
            if response.logs and not self._clipped:
                self._clipped = True
                text = f"\n[output clipped, log limit {self._limit >> 10}KiB reached]\n"
                kept.logs.append(response.logs[0])
                kept.logs[0].msg = text.encode()
            response = kept
        if len(self._data) + response.ByteSize() <= 2 * self._limit:
            self._data += response.SerializeToString()


def exit_text(command: str, code: int) -> str:
    """Return BuildKit's words for a program that failed."""
    return f'process "{command}" did not complete successfully: exit code: {code}'


def _is_engine_line(text: str) -> bool:
    """Return whether a line is the headline of a step or a short id, which other clients print."""
    if text.startswith(" ---> "):
        digits = text.removeprefix(" ---> ").rstrip("\n")
        return len(digits) == _ID and not digits.strip("0123456789abcdef")
    step, _, rest = text.partition("/")
    number, colon, _ = rest.partition(" : ")
    return step[:5] == "Step " and step[5:].isdecimal() and bool(colon) and number.isdecimal()
