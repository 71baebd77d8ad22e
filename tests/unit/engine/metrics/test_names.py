"""Every name of a metric: described once, and known to dashboard and alert rules."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from jaula.features.metrics.engine_metrics import names

PROJECT = Path(__file__).resolve().parents[4]
MONITORING = PROJECT / "packaging" / "monitoring"
_SUFFIX = re.compile(r"_(bucket|sum|count)$")
_METRIC = re.compile(r"\b(?:jaula|container|engine_daemon|builder|process)_[a-z0-9_]+\b")
_SELECTED = re.compile(
    r"\b((?:jaula|container|engine_daemon|builder|process)_[a-z0-9_]+)\{([^}]*)\}"
)
_COMMON = {
    *("id", "name", "image", "container", "pod", "namespace", "instance", "job", "le"),
    *("container_label_com_docker_compose_project", "container_label_com_docker_compose_service"),
}


def expressions() -> list[str]:
    """Return every expression of PromQL in the packaged files."""
    dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    found += [
        variable["query"]["query"]
        for variable in dashboard["templating"]["list"]
        if variable["type"] == "query"
    ]
    rules = yaml.safe_load((MONITORING / "prometheus-alerts.yml").read_text())
    found += [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    return found


def test_names_follow_the_conventions_of_prometheus() -> None:
    for name, (kind, _, help) in names().items():
        assert help.endswith("."), name
        if name.startswith("jaula_"):
            assert (kind == "counter") == name.endswith("_total"), name


def used(expression: str) -> set[str]:
    return {word for word in _METRIC.findall(expression) if not word.startswith("container_label")}


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_dashboard_and_rules_use_names_and_labels_that_exist(expression: str) -> None:
    known = names()
    assert used(expression)
    for name in used(expression):
        kind = known.get(_SUFFIX.sub("", name), ("",))[0]
        assert name in known or kind == "histogram", name
        if name.endswith("_bucket"):
            assert "le" in expression
    for name, selector in _SELECTED.findall(expression):
        labels = {part.partition("=")[0].rstrip("!") for part in re.split(r",(?=\w)", selector)}
        own = known[name if name in known else _SUFFIX.sub("", name)][1]
        assert labels <= {*_COMMON, *own}, name


def test_every_panel_has_a_place_of_its_own() -> None:
    dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    cells: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24
        own = {(grid["x"] + x, grid["y"] + y) for x in range(grid["w"]) for y in range(grid["h"])}
        assert not own & cells, panel["title"]
        cells |= own
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_every_alert_has_a_severity_and_a_summary() -> None:
    rules: Any = yaml.safe_load((MONITORING / "prometheus-alerts.yml").read_text())
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in alerts}) == len(alerts)
    for rule in alerts:
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert "{{ $labels.instance }}" in rule["annotations"]["summary"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs Debian's package prometheus")
@pytest.mark.parametrize(
    "words",
    [
        ("check", "rules", "prometheus-alerts.yml"),
        ("check", "config", "prometheus-scrape.yml"),
    ],
)
def test_promtool_accepts_the_packaged_files(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        ("promtool", *words), cwd=MONITORING, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
