"""The report of one container as one HTML page: no external resource, no script, printable. Pure.

The order is that of an auditor's questions: is it as requested, what did it do, what may it do, how
is that known, and what does the benchmark say. ContainerReport is folded.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from jaula import __version__
from jaula.features.audit.benchmark.assessment import ORDER, Outcome, counts, score
from jaula.features.audit.benchmark.catalog import CIS
from jaula.features.audit.benchmark.control import State
from jaula.features.record.record_reader import Record
from jaula.features.report import activity as activities
from jaula.features.report import html, timeline
from jaula.features.report.activity import Activity, Item
from jaula.features.report.container_report import (
    PROBES,
    ContainerReport,
    Standing,
    attempts,
    judge,
)
from jaula.features.report.html import Html, code, details, join, text, word
from jaula.features.report.permission import Comparison, compare
from jaula.features.verify.model.result import Result, Verdict
from jaula.features.verify.reports import svg
from jaula.features.verify.reports.report import check_info
from jaula.spec.confinement_profile import Profile

TITLES = {
    Standing.HOLDS: "Confined as requested",
    Standing.RELAXED: "Confined, with exceptions",
    Standing.FAILS: "Not as requested",
    Standing.UNKNOWN: "Not proved",
}
_VERDICTS = {
    Verdict.HOLDS: "holds",
    Verdict.RELAXED: "relaxed",
    Verdict.FAILS: "fails",
    Verdict.UNKNOWN: "unknown",
}
_STATES = {
    State.PASS: "holds",
    State.FAIL: "fails",
    State.EXCEPTED: "relaxed",
    State.MANUAL: "relaxed",
    State.UNKNOWN: "unknown",
    State.NOT_APPLICABLE: "unknown",
}
_SHOWN = 8  # rows of a table that is followed by a folded one with all


def render(report: ContainerReport) -> tuple[str, Standing, str]:
    """Return the page, the verdict, and the sentence that explains it."""
    activity = (
        activities.summarize(each.record for each in report.records) if report.records else None
    )
    comparisons = compare(activity, report.profile, report.spec)
    beyond = sum(len(each.beyond) for each in comparisons) if report.profile else 0
    standing, sentence = judge(report, beyond)
    title = f"{report.name}: {TITLES[standing]}"
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{html.POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{html.STYLE}</style></head><body>"
        f"{_header(report, standing, sentence, activity, comparisons)}<main>"
        f"{_did(report, activity)}{_may(report, comparisons)}"
        f"{_proof(report)}{_audit(report)}</main>{_footer(report)}</body></html>\n"
    )
    return page, standing, sentence


# -- the first screen ------------------------------------------------------------------------


def _header(
    report: ContainerReport,
    standing: Standing,
    sentence: str,
    activity: Activity | None,
    comparisons: Sequence[Comparison],
) -> Html:
    inspect = report.inspect
    config, state = inspect.get("Config") or {}, inspect.get("State") or {}
    rows = [
        ("Image", code(config.get("Image") or "")),
        ("Digest", join(map(code, report.digests or (inspect.get("Image") or "",)), "<br>")),
        ("Container", code(inspect.get("Id") or "")),
        ("State", f"{state.get('Status') or 'unknown'}, created {_moment(inspect.get('Created'))}"),
        ("Host", f"{report.host}, Linux {report.kernel}, read at {report.time}"),
    ]
    identity = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in rows)
    figures = (
        _figure_did(report, activity),
        _figure_may(comparisons),
        _figure_refused(report),
        _figure_audit(report),
    )
    return Html(
        f'<header><p class="kicker">Container report</p><h1>{text(report.name)}</h1>'
        f'<dl class="identity">{identity}</dl>'
        f'<div class="verdict-box {standing}"><strong>{text(TITLES[standing])}</strong>'
        f"<span>{text(sentence)}</span></div>"
        f'<div class="figures">{"".join(figures)}</div>'
        '<nav><a href="#did">What it did</a><a href="#may">What it may do</a>'
        '<a href="#proof">Proof</a><a href="#audit">Audit</a></nav></header>'
    )


def _moment(value: object) -> str:
    """Return a time of RFC 3339 in UTC without its fraction."""
    return f"{str(value)[:19]}Z" if value else "at an unknown time"


def _figure_did(report: ContainerReport, activity: Activity | None) -> Html:
    if activity is None:
        why = report.missing.get("record", "no record was given")
        return html.figure("did", "It did", "–", "", why)
    note = (
        f"{_count(len(activity.programs), 'program')} executed, "
        f"{_count(len(activity.written), 'file')} written, "
        f"{_count(len(activity.destinations), 'address', 'addresses')} contacted"
    )
    return html.figure("did", "It did", len(activity.syscalls), "system calls", note)


def _figure_may(comparisons: Sequence[Comparison]) -> Html:
    if not comparisons:
        return html.figure("may", "It may use", "–", "", "no profile, and no container that runs")
    calls, capabilities = comparisons[:2]
    held = len(capabilities.allowed or ())
    note = _count(held, "capability", "capabilities")
    if calls.used or capabilities.used:
        beyond = len(calls.beyond) + len(capabilities.beyond)
        note += f", {len(calls.unused)} calls unused"
        if beyond:
            note += f"; {beyond} uses without permission"
    number = "all" if calls.allowed is None else len(calls.allowed)
    return html.figure("may", "It may use", number, "system calls", note)


def _figure_refused(report: ContainerReport) -> Html:
    rows = report.proof.rows if report.proof else ()
    tried = attempts(rows)
    if tried:
        held = sum(row.verdict is Verdict.HOLDS for row in tried)
        note = "groups of escape attempts; "
        others = [row for row in rows if row.layer != PROBES]
        note += f"{sum(r.verdict is Verdict.HOLDS for r in others)} of {len(others)} rows hold"
        return html.figure("proof", "Refused in the proof", held, f"of {len(tried)}", note)
    if rows:
        held = sum(row.verdict is Verdict.HOLDS for row in rows)
        tried_not = report.missing.get("probes", "no escape was attempted")
        note = f"rows read from the kernel hold; {tried_not}"
        return html.figure("proof", "Proved", held, f"of {len(rows)}", note)
    why = report.missing.get("proof", "there is no proof")
    return html.figure("proof", "Refused in the proof", "–", "", why)


def _figure_audit(report: ContainerReport) -> Html:
    if not report.outcomes:
        why = report.missing.get("audit", "there is no audit")
        return html.figure("audit", "Audit score", "–", "", why)
    result = score(report.outcomes)
    numbers = counts(report.outcomes)
    words = [f"{numbers[state]} {state}" for state in ORDER if state in numbers]
    return html.figure(
        "audit", "Audit score", result.holding, f"of {result.applicable}", ", ".join(words)
    )


# -- what it did -----------------------------------------------------------------------------


def _did(report: ContainerReport, activity: Activity | None) -> Html:
    head = '<h2 id="did">What it did</h2>'
    if activity is None:
        why = report.missing.get("record", "no record was given")
        return Html(
            f'{head}<p class="lead">{text(why[:1].upper() + why[1:])}. A record is made by '
            f"{code('jaula record')} and given by {code('--record FILE')}.</p>"
        )
    number = _count(len(report.records), "record")
    lead = f"Counted by the kernel in {number} of {activity.seconds:.1f} seconds."
    parts = [f'{head}<p class="lead">{lead}{_lost(activity)}</p>']
    for each in report.records:
        rows = activities.lanes(each.record)
        duration = each.record.end.duration if each.record.end else 0
        if rows:
            parts.append(f"<h3>{text(each.name)}</h3>{timeline.draw(rows, duration)}")
    parts.append(_items("Programs", activity.programs, "Program", "Result"))
    parts.append(_items("Network", activity.network, "Address", "Operation"))
    parts.append(_items("Files written", activity.written, "File", "Mode"))
    refused = (*activity.refused_files, *activity.refused_syscalls)
    parts.append(_items("Refused by the kernel", refused, "Subject", "Reason"))
    parts.append(_items("Capabilities used", activity.capabilities, "Capability", "For"))
    parts.append(_peaks(activity.peaks))
    parts.append(_items("Other", activity.other, "Subject", "Kind"))
    parts.append(_folded("Files read", activity.read, "File", "Mode"))
    parts.append(
        _folded("Capabilities refused", activity.refused_capabilities, "Capability", "For")
    )
    parts.append(_folded("Files not found", activity.absent_files, "File", "Reason"))
    parts.append(_folded("System calls", activity.syscalls, "System call", "ABI"))
    parts.append(_chain(report))
    return Html("".join(parts))


def _lost(activity: Activity) -> str:
    if not activity.lost:
        return " Nothing was lost."
    return f" {activity.lost} events or texts were lost, as the records say themselves."


def _items(title: str, items: Sequence[Item], subject: str, detail: str) -> Html:
    """Return a table of the most frequent items, and all of them folded if there are more."""
    if not items:
        return Html("")
    shown = _item_table(items[:_SHOWN], subject, detail)
    rest = (
        details(f"All {len(items)}", _item_table(items, subject, detail))
        if len(items) > _SHOWN
        else ""
    )
    return Html(f"<h3>{text(title)}</h3>{shown}{rest}")


def _peaks(items: Sequence[Item]) -> Html:
    if not items:
        return Html("")
    rows = [(item.subject, item.detail) for item in items if item.detail]
    return Html(f"<h3>Resources</h3>{html.table(('Resource', 'Peak'), rows)}")


def _folded(title: str, items: Sequence[Item], subject: str, detail: str) -> Html:
    if not items:
        return Html("")
    return details(title, _item_table(items, subject, detail), note=len(items))


def _item_table(items: Sequence[Item], subject: str, detail: str) -> Html:
    has_detail = any(item.detail for item in items)
    rows = [
        (
            code(item.subject),
            *((item.detail,) if has_detail else ()),
            _programs(item),
            item.occurrences,
        )
        for item in items
    ]
    columns = (subject, *((detail,) if has_detail else ()), "By", "Count")
    return html.table(columns, rows, numbers="Count")


def _programs(item: Item) -> Html:
    more = len(item.programs) - 3
    return Html(
        join(map(code, item.programs[:3]), ", ") + (f" and {more} more" if more > 0 else "")
    )


def _chain(report: ContainerReport) -> Html:
    rows = []
    for each in report.records:
        record = each.record
        header = record.header
        state = word("intact", "holds") if not record.errors else word("not intact", "fails")
        rows.append(
            (
                each.name,
                header.time if header else "",
                record.end.reason if record.end else "no end",
                f"{record.head.n} lines, head {record.head.hash}",
                state,
            )
        )
        rows += [("", "", "", error, word("error", "fails")) for error in record.errors[:20]]
    return details(
        "Where this comes from",
        html.table(("Record", "Start", "End", "Chain", "State"), rows),
        note=_mechanism(report.records[0].record),
        opened=any(each.record.errors for each in report.records),
    )


def _mechanism(record: Record) -> str:
    header = record.header
    return f"{header.mechanism}, Linux {header.kernel.release}" if header else ""


# -- what it may do --------------------------------------------------------------------------


def _may(report: ContainerReport, comparisons: Sequence[Comparison]) -> Html:
    parts = ['<h2 id="may">What it may do</h2>']
    profile = report.profile
    if profile is not None:
        made = _count(len(profile.sources), "record") if profile.sources else "no record"
        origin = "guessed from the files of the image" if profile.guessed else f"made from {made}"
        parts.append(
            f'<p class="lead">By the profile {code(report.profile_name or profile.name)}, '
            f"{origin}. Everything that it does not name is refused.</p>"
        )
    elif comparisons:
        parts.append(
            '<p class="lead">By the spec of the running container; no profile was given '
            f"({code('--profile FILE')}).</p>"
        )
    else:
        parts.append(
            '<p class="lead">Unknown: the container does not run, and no profile was given '
            f"({code('--profile FILE')}).</p>"
        )
    used = bool(report.records)
    parts += [_comparison(each, used) for each in comparisons]
    if profile is not None:
        parts.append(_profile(profile))
    return Html("".join(parts))


def _comparison(each: Comparison, used: bool) -> Html:
    if each.allowed is None:
        return Html(
            f"<h3>{text(each.title)}</h3><p>{word('Not restricted', 'relaxed')}: all are allowed."
            f" {_count(len(each.used), 'one was', 'were')} used.</p>"
        )
    title = f"<h3>{text(each.title)}: {len(each.allowed)} allowed</h3>"
    if not used:
        return Html(title + details("Allowed", html.names(sorted(each.allowed))))
    within = each.allowed & each.used
    parts = [
        ("holds", len(within), "allowed and used"),
        ("unknown", len(each.unused), "allowed and unused"),
        ("fails", len(each.beyond), "used without permission"),
    ]
    beyond = (
        f"<p>{word('Used without permission', 'fails')}:</p>"
        f"{html.names(sorted(each.beyond), 'fails')}"
        if each.beyond
        else ""
    )
    return Html(
        f"{title}{html.bar(parts)}{beyond}"
        + (details("Allowed and used", html.names(sorted(within)), note=len(within)) * bool(within))
        + details("Allowed and unused", html.names(sorted(each.unused)), note=len(each.unused))
        * bool(each.unused)
    )


def _profile(profile: Profile) -> Html:
    """Return the values of a profile beside system calls and capabilities, section by section."""
    rows: list[tuple[object, ...]] = []
    for section in profile.__struct_fields__:
        value = getattr(profile, section)
        if isinstance(value, msgspec.Struct) and section != "seccomp":
            rows += [
                (section, name.replace("_", "-"), _value(getattr(value, name)))
                for name in value.__struct_fields__
            ]
        elif section in ("devices", "image"):
            rows.append(("", section, _value(value)))
    folded = [
        details(f"Reasons in {text(section)}", html.table(
            ("Item", "Reason", "By", "Count"),
            [(code(name), each.reason, join(map(code, each.programs[:3]), ", "), each.count)
             for name, each in items.items()],
            numbers="Count",
        ), note=len(items))
        for section, items in profile.evidence.items()
    ]  # fmt: skip
    return Html(
        "<h3>Other permissions</h3>"
        + html.table(("Section", "Permission", "Value"), rows)
        + "".join(folded)
    )


def _value(value: object) -> Html:
    if value is True or value is False:
        return text("yes" if value else "no")
    if value is None:
        return word("not restricted", "relaxed")
    if isinstance(value, dict):
        return join((code(f"{name} {more}".strip()) for name, more in value.items()), ", ")
    if isinstance(value, tuple):
        return join(map(code, value), ", ") if value else text("none")
    return text("the default" if value in (0, "") else value)


# -- proof -----------------------------------------------------------------------------------


def _proof(report: ContainerReport) -> Html:
    head = '<h2 id="proof">Proof</h2>'
    if report.proof is None:
        why = report.missing.get("proof", "there is no proof")
        return Html(f'{head}<p class="lead">Missing: {text(why)}.</p>')
    rows = report.proof.rows
    numbers = report.proof.counts()
    parts = [
        (_VERDICTS[v], n, "hold" if v is Verdict.HOLDS else str(v))
        for v, n in reversed(numbers.items())
    ]
    exceptions = [row for row in rows if row.verdict is not Verdict.HOLDS]
    table = (
        f"<h3>Rows that do not hold or are relaxed</h3>{_rows(exceptions)}" if exceptions else ""
    )
    drawn = [layer for layer, _, _ in svg.LAYERS]
    layers = sorted(
        {row.layer for row in rows},
        key=lambda layer: (drawn.index(layer) if layer in drawn else len(drawn), layer),
    )
    drawing = svg.draw(html.plain(report.name), rows, "proof")
    return Html(
        f'{head}<p class="lead">{_count(len(rows), "row")}, read from the kernel at '
        f"{text(report.proof.timestamp)} and compared with the request.</p>{html.bar(parts)}"
        f'<div class="layers">{drawing}</div>{table}<h3>Every row</h3>'
        + "".join(_layer(layer, [row for row in rows if row.layer == layer]) for layer in layers)
    )


def _layer(layer: str, rows: Sequence[Result]) -> Html:
    held = sum(row.verdict is Verdict.HOLDS for row in rows)
    notes = "".join(
        f"<p>{text(info.title)}: {text(info.reason)} "
        f'<span class="muted">References: {text(", ".join(info.references))}.</span></p>'
        for info in {row.check: check_info(row) for row in rows}.values()
    )
    folded = details(layer, Html(notes + _rows(rows)), note=f"{held} of {len(rows)} hold")
    return Html(f'<div id="proof-{text(layer)}">{folded}</div>')


def _rows(rows: Sequence[Result]) -> Html:
    return html.table(
        ("Check", "Requested", "In effect", "Evidence", "Verdict"),
        [
            (
                row.id,
                row.requested,
                row.effective,
                code(row.evidence),
                word(str(row.verdict), _VERDICTS[row.verdict]),
            )
            for row in rows
        ],
    )


# -- audit -----------------------------------------------------------------------------------


def _audit(report: ContainerReport) -> Html:
    head = '<h2 id="audit">Audit</h2>'
    if not report.outcomes:
        why = report.missing.get("audit", "there is no audit")
        return Html(f'{head}<p class="lead">Missing: {text(why)}.</p>')
    numbers = counts(report.outcomes)
    parts = [(_STATES[state], numbers[state], str(state)) for state in reversed(ORDER)
             if state in numbers]  # fmt: skip
    open_ = [o for o in report.outcomes if o.state not in (State.PASS, State.NOT_APPLICABLE)]
    open_.sort(key=lambda outcome: ORDER.index(outcome.state))
    rest = [o for o in report.outcomes if o.state in (State.PASS, State.NOT_APPLICABLE)]
    result = score(report.outcomes)
    table = f"<h3>To be decided or repaired</h3>{_outcomes(open_)}" if open_ else ""
    return Html(
        f'{head}<p class="lead">{text(CIS.title)}, controls of containers: {result.holding} of '
        f"{result.applicable} applicable controls pass.</p>{html.bar(parts)}{table}"
        + details("Controls that pass or are not applicable", _outcomes(rest), note=len(rest))
    )


def _outcomes(outcomes: Sequence[Outcome]) -> Html:
    rows = []
    for outcome in outcomes:
        control = outcome.control
        lines: list[object] = []
        for finding in outcome.findings:
            lines.append(finding.evidence)
            more = (finding.remediation, finding.note)
            lines += [Html(f'<span class="muted">{text(line)}</span>') for line in more if line]
        rows.append(
            (
                control.id,
                control.title,
                control.level,
                join(lines, "<br>"),
                word(str(outcome.state), _STATES[outcome.state]),
            )
        )
    return html.table(("Control", "Title", "Level", "Evidence", "State"), rows)


# -- the end ---------------------------------------------------------------------------------


def _footer(report: ContainerReport) -> Html:
    heads = [f"{each.name}: {each.record.head.hash}" for each in report.records]
    chain = f"Heads of the records: {join(map(code, heads), ', ')}. " if heads else ""
    return Html(
        f"<footer><p>Made by jaula {text(__version__)} at {text(report.time)} on "
        f"{text(report.host)}. {chain}Rows of the proof are read from the kernel; the engine "
        "states only what was requested. Names of files, programs and addresses in a record are "
        "chosen by the container. The page loads nothing.</p></footer>"
    )


def _count(number: int, noun: str, plural: str = "") -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {plural or noun + 's'}"
