"""``--format`` templates behave as Go's."""

from __future__ import annotations

import pytest

from jaula.cli.cli_errors import CliError
from jaula.cli.output.template import Template

DOCUMENT = {
    "Name": "web",
    "State": {"Pid": 42, "Running": True, "Error": ""},
    "Mounts": [{"Source": "/a"}, {"Source": "/b"}],
    "Config": {"Labels": {"com.x": "1", "a": "2"}, "Cmd": ["sh", "-c"], "User": None},
    "Size": 1.0,
}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("{{.Name}}", "web"),
        ("{{ .State.Pid }}/{{.State.Running}}", "42/true"),
        ("{{.Missing}}|{{.Missing.Deep}}", "<no value>|<no value>"),
        ("{{.Config.User}}", "<nil>"),
        ("{{.Config.Labels}}", "map[a:2 com.x:1]"),
        ("{{.Config.Cmd}}", "[sh -c]"),
        ("{{.Size}}", "1"),
        ("{{json .Config.Cmd}}", '["sh","-c"]'),
        ('{{index .Config.Labels "com.x"}}', "1"),
        ("{{index .Config.Cmd 1}}", "-c"),
        ('{{join .Config.Cmd " "}}', "sh -c"),
        ("{{.Name | upper}}", "WEB"),
        ('{{.Name | printf "%s-%s" "x" | len}}', "5"),
        ("{{range .Mounts}}<{{.Source}}>{{end}}", "</a></b>"),
        ("{{range $i, $m := .Mounts}}{{$i}}={{$m.Source}};{{end}}", "0=/a;1=/b;"),
        ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}} {{end}}", "a=2 com.x=1 "),
        ("{{range .Nothing}}x{{else}}none{{end}}", "none"),
        ("{{if .State.Error}}bad{{else if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{with .State}}{{.Pid}}{{end}}", "42"),
        ("{{with $x := .Name}}{{$x}}{{end}}", "web"),
        ("a {{- .Name -}} b", "awebb"),
        ('{{"quoted }} text"}}', "quoted }} text"),
        ("{{`raw`}}", "raw"),
        ("{{/* nothing */}}x", "x"),
        ("{{len .Mounts}}", "2"),
        ("{{(index .Mounts 0).Source}}", "/a"),
        ("{{if and .Name (not .State.Error)}}y{{end}}", "y"),
        ("{{eq .State.Pid 42}} {{ne .Name `web`}} {{gt 3 2}}", "true false true"),
        ("{{$x := .Name}}{{$x}}", "web"),
        ('{{println "a" 1}}', "a 1\n"),
        ("{{slice .Name 0 2}}", "we"),
        ("{{truncate .Name 1}}", "w"),
    ],
)
def test_a_template_renders_as_gos_does(text: str, shown: str) -> None:
    assert Template(text).render(DOCUMENT) == shown


@pytest.mark.parametrize(
    "text",
    [
        "{{",
        "{{.Name",
        "{{}}",
        "{{end}}",
        "{{if .Name}}",
        "{{range .Mounts}}x",
        "{{nosuch .Name}}",
        "{{.Name | }}",
        "{{(.Name}}",
        '{{"open}}',
        "{{if .A}}x{{else}}y{{else}}z{{end}}",
        "{{)}}",
        "{{.A .B :=}}",
    ],
)
def test_an_invalid_template_is_one_clear_error(text: str) -> None:
    with pytest.raises(CliError, match="template parsing error"):
        Template(text).render(DOCUMENT)


@pytest.mark.parametrize(
    "text", ["{{.Name.Deep}}", "{{index .Config.Cmd 9}}", "{{len 3}}", "{{range .Name}}x{{end}}",
             "{{$nosuch}}", "{{.Name 3}}"]
)  # fmt: skip
def test_a_template_that_does_not_fit_is_one_clear_error(text: str) -> None:
    with pytest.raises(CliError):
        Template(text).render(DOCUMENT)


@pytest.mark.parametrize(
    "text", ["{{.Missing}}", "{{.State.Missing}}", "{{json .Name}} {{.Nothing}}"]
)
def test_a_strict_template_refuses_to_print_a_missing_key(text: str) -> None:
    with pytest.raises(CliError, match="map has no entry for key"):
        Template(text, strict=True).render(DOCUMENT)


def test_a_strict_template_may_test_a_missing_key() -> None:
    text = "{{if .State.Health}}x{{end}}{{with .Nothing}}y{{end}}{{.Config.Labels.nosuch}}"
    assert Template(text, strict=True).render(DOCUMENT) == "<no value>"
