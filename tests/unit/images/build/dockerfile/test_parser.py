"""Parse the text of a Dockerfile into instructions."""

from __future__ import annotations

import pytest

from jaula.images.dockerfile.ast import (
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Heredoc,
    Instruction,
    Label,
    Location,
    MountKind,
    Network,
    Onbuild,
    Run,
    RunMount,
    Security,
    Sharing,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from jaula.images.dockerfile.dockerfile_error import DockerfileError
from jaula.images.dockerfile.dockerfile_parser import parse, parse_one, parse_trigger
from jaula.spec import image_documents


def one(text: str) -> Instruction:
    """Parse the only instruction after a FROM."""
    (result,) = parse(f"FROM scratch\n{text}\n").stages[0].instructions
    return result


def mistake(text: str | bytes, name: str = "Dockerfile") -> str:
    with pytest.raises(DockerfileError) as caught:
        parse(text, name)
    return str(caught.value)


# -- lines ---------------------------------------------------------------------------------------


def test_continued_lines_are_joined_without_comments_and_empty_lines() -> None:
    run = one("RUN a && \\\n  # not this\n\n    b \\  \n&& c")
    assert isinstance(run, Run)
    assert run.command == ("a &&     b && c",)
    assert run.location == Location(2, 6)
    assert run.source == "RUN a &&     b && c"


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("CMD a\\\\", "a\\\\"),  # the first escapes the second
        ("CMD a \\", "a"),  # the file ends
        ("CMD a\\\n# c \\\nb", "ab"),  # a comment has no continuation
        ("CMD a # b", "a # b"),
        ("  \tcmd\ta", "a"),
        ("CMD a\\\r\n b\r", "a b"),
    ],
)
def test_a_line_ends_where_docker_ends_it(text: str, command: str) -> None:
    cmd = one(text)
    assert isinstance(cmd, Cmd)
    assert cmd.command == (command,)


def test_a_byte_order_mark_and_foreign_line_ends_are_read_over() -> None:
    dockerfile = parse("\ufeffFROM scratch\r\nENV a=b\r\n".encode())
    assert dockerfile.stages[0].instructions[0] == Env(Location(2, 2), "ENV a=b", (("a", "b"),))


@pytest.mark.parametrize(
    ("head", "escape"),
    [
        ("# escape=`\n", "`"),
        ("#Escape = ` \n", "`"),
        ("# syntax=docker/dockerfile:1\n# escape=`\n", "`"),
        ("# check=skip=all\n  # escape=`\n", "`"),
        ("\n# escape=`\n", "\\"),
        ("# about\n# escape=`\n", "\\"),
        ("# unknown=x\n# escape=`\n", "\\"),
        ("# escape=\\\n", "\\"),
    ],
)
def test_directives_stand_at_the_very_top(head: str, escape: str) -> None:
    dockerfile = parse(f"{head}FROM scratch\nENV a=b{escape}\n c=d\n")
    assert dockerfile.directives.escape == escape
    (env,) = dockerfile.stages[0].instructions
    assert isinstance(env, Env)
    assert env.pairs == (("a", "b"), ("c", "d"))


def test_the_syntax_directive_is_stored_and_has_no_effect() -> None:
    assert parse("# syntax=docker/dockerfile:1.7-labs\nFROM a").directives.syntax == (
        "docker/dockerfile:1.7-labs"
    )


# -- here-documents ------------------------------------------------------------------------------


def test_a_heredoc_alone_is_the_text_of_the_shell() -> None:
    run = one("RUN <<EOF\nset -e\necho $x\nEOF")
    assert isinstance(run, Run)
    assert (run.command, run.shell_form, run.script) == (("set -e\necho $x\n",), True, "")
    assert run.source == "RUN <<EOF\nset -e\necho $x\nEOF"
    assert run.headline == "RUN <<EOF"
    assert run.location == Location(2, 5)


def test_a_heredoc_with_an_interpreter_is_a_script() -> None:
    run = one("RUN <<-'EOF'\n\t#!/usr/bin/python3\n\tprint(1)\n\tEOF")
    assert isinstance(run, Run)
    assert (run.command, run.shell_form) == ((), False)
    assert run.script == "#!/usr/bin/python3\nprint(1)\n"
    assert run.heredocs == (Heredoc("EOF", run.script, expand=False),)


def test_several_heredocs_are_put_together_again_for_the_shell() -> None:
    run = one('RUN cat <<A >a && cat 3<<-"B" >b\n$x\nA\n\ty\n\tB\nENV z=1'.rpartition("\n")[0])
    assert isinstance(run, Run)
    assert run.command == ('cat <<A >a && cat 3<<-"B" >b\n$x\nA\n\ty\nB',)
    assert run.heredocs == (Heredoc("A", "$x\n", True), Heredoc("B", "y\n", False))


def test_heredocs_of_copy_are_files() -> None:
    copy = one("COPY <<a.txt <<'b' c /d/\nA\na.txt\nB\n\nb")
    assert isinstance(copy, Copy)
    assert (copy.sources, copy.target) == (("c",), "/d/")
    assert copy.heredocs == (Heredoc("a.txt", "A\n", True), Heredoc("b", "B\n\n", False))


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("RUN << EOF\nx\nEOF", "x\n"),
        ("RUN <<- 'EOF'\n\tx\n\tEOF", "x\n"),
        ("RUN cat << EOF  >a <<-  B\nx\nEOF\n\ty\n\tB", "cat <<EOF  >a <<-B\nx\nEOF\n\ty\nB"),
        ("RUN a<< << EOF\nx\nEOF", "a<< <<EOF\nx\nEOF"),
        ("RUN cat <<A << B\nx\nA\ny\nB", "cat <<A <<B\nx\nA\ny\nB"),
    ],
)
def test_white_space_before_a_heredocs_name_is_allowed(text: str, command: str) -> None:
    run = one(text)
    assert isinstance(run, Run)
    assert run.command == (command,)


def test_white_space_before_a_heredocs_name_is_allowed_in_copy() -> None:
    copy = one("COPY a << EOF /x\ny\nEOF")
    assert isinstance(copy, Copy)
    assert (copy.sources, copy.target) == (("a",), "/x")
    assert copy.heredocs == (Heredoc("EOF", "y\n", True),)


def test_arithmetic_is_not_a_heredoc() -> None:
    text = "RUN echo $((1 << 2)) $((x << y ))\nRUN echo 3 << 4 << EOF\n"
    instructions = parse(f"FROM a\n{text}").stages[0].instructions
    assert [i.location for i in instructions] == [Location(2, 2), Location(3, 3)]


@pytest.mark.parametrize(
    "text",
    [
        "RUN cat <<<EOF",
        "RUN echo $((1<<2))",
        "RUN echo 1 << 2",
        'RUN echo "<<EOF"',
        "RUN echo '<<EOF'",
        "RUN a<<EOF",
        'RUN ["cat", "<<EOF"]',
        "CMD cat <<EOF",
        "ENTRYPOINT cat <<EOF",
    ],
)
def test_text_that_only_looks_like_a_heredoc_is_not_one(text: str) -> None:
    assert one(text).location == Location(2, 2)


def test_comments_directives_and_continuation_have_no_meaning_inside_a_heredoc() -> None:
    copy = one("COPY <<EOF /x\n# c\n\na \\\nFROM b\nEOF")
    assert isinstance(copy, Copy)
    assert copy.heredocs[0].content == "# c\n\na \\\nFROM b\n"


def test_a_heredoc_of_onbuild_is_part_of_the_trigger() -> None:
    onbuild = one("ONBUILD RUN <<EOF\na\nEOF")
    assert isinstance(onbuild, Onbuild)
    assert onbuild.trigger == "RUN <<EOF\na\nEOF"
    run = parse_trigger(onbuild.trigger, base="b", location=Location(7, 7))
    assert isinstance(run, Run)
    assert (run.command, run.location) == (("a\n",), Location(7, 7))


# -- forms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "command", "shell_form"),
    [
        ("a b", ("a b",), True),
        ('["a","b c"]', ("a", "b c"), False),
        ('  [ "a" , "\\u0041\\n" ]  ', ("a", "A\n"), False),
        ("['a']", ("['a']",), True),
        ('["a"', ('["a"',), True),
        ("[ -f x ]", ("[ -f x ]",), True),
        ('["a"] && b', ('["a"] && b',), True),
        ("[]", (), False),
        ("", (), True),
    ],
)
def test_a_json_list_of_strings_is_the_exec_form(
    text: str, command: tuple[str, ...], shell_form: bool
) -> None:
    for kind in (Cmd, Entrypoint):
        result = one(f"{kind.__name__.upper()} {text}")
        assert isinstance(result, kind)
        assert (result.command, result.shell_form) == (command, shell_form)


def test_pairs_are_separated_by_white_space_that_is_not_quoted() -> None:
    label = one(r"""LABEL "a b"="c d" e='f "g' h=i\ j k= l="\"" m""".removesuffix(" m"))
    assert isinstance(label, Label)
    assert label.pairs == (
        ('"a b"', '"c d"'),
        ("e", "'f \"g'"),
        ("h", r"i\ j"),
        ("k", ""),
        ("l", r'"\""'),
    )


def test_the_legacy_form_of_env_extends_to_the_end_of_the_line() -> None:
    env = one("ENV a b = 'c  d' ")
    assert isinstance(env, Env)
    assert env.pairs == (("a", "b = 'c  d'"),)


def test_arg_has_names_and_defaults() -> None:
    arg = one('ARG a b= c="d e"')
    assert isinstance(arg, Arg)
    assert arg.pairs == (("a", None), ("b", ""), ("c", '"d e"'))


def test_a_stage_has_a_base_a_platform_and_a_name() -> None:
    first, second = parse("FROM --platform=linux/arm64 a:1 aS Build-1.x\nFROM b@sha256:0").stages
    assert (first.name, first.base.base, first.base.platform) == (
        "build-1.x",
        "a:1",
        "linux/arm64",
    )
    assert (second.index, second.name, second.base.base) == (1, "", "b@sha256:0")


def test_the_simple_instructions() -> None:
    assert one("USER a:b") == User(Location(2, 2), "USER a:b", "a:b")
    assert one("WORKDIR /a b") == Workdir(Location(2, 2), "WORKDIR /a b", "/a b")
    assert one("STOPSIGNAL SIGINT") == StopSignal(Location(2, 2), "STOPSIGNAL SIGINT", "SIGINT")
    assert one("EXPOSE 80 1-2/udp") == Expose(
        Location(2, 2), "EXPOSE 80 1-2/udp", ("80", "1-2/udp")
    )
    assert one("VOLUME /a  /b") == Volume(Location(2, 2), 'VOLUME ["/a", "/b"]', ("/a", "/b"))
    assert one('VOLUME ["/a b"]') == Volume(Location(2, 2), 'VOLUME ["/a b"]', ("/a b",))
    assert one('SHELL ["a","b"]') == Shell(Location(2, 2), 'SHELL ["a", "b"]', ("a", "b"))


def test_healthcheck_has_options_and_either_form() -> None:
    check = one(
        "HEALTHCHECK --interval=1m30s --timeout=3s --start-period=1h --start-interval=1.5s "
        "--retries=4 CMD curl -f x || exit 1"
    )
    assert isinstance(check, Healthcheck)
    second = 10**9
    assert check.check == image_documents.Healthcheck(
        ("CMD-SHELL", "curl -f x || exit 1"), 90 * second, 3 * second, 3600 * second, 15 * 10**8, 4
    )
    exec_form = one('HEALTHCHECK cmd ["a"]')
    none = one("healthcheck none")
    assert isinstance(exec_form, Healthcheck)
    assert isinstance(none, Healthcheck)
    assert exec_form.check.test == ("CMD", "a")
    assert none.check.test == ("NONE",)


# -- flags ---------------------------------------------------------------------------------------


def test_copy_has_its_flags() -> None:
    copy = one(
        "COPY --from=b --chown=1:2 --chmod=u+x --link --parents=false --exclude=*.md "
        "--exclude=x a /b"
    )
    assert copy == Copy(
        Location(2, 2),
        copy.source,
        ("a",),
        "/b",
        origin="b",
        chown="1:2",
        chmod="u+x",
        link=True,
        excludes=("*.md", "x"),
    )


def test_add_has_its_flags() -> None:
    add = one('ADD --checksum=sha256:0 --keep-git-dir --unpack=false ["a b", "/c"]')
    assert isinstance(add, Add)
    assert (add.sources, add.target, add.checksum) == (("a b",), "/c", "sha256:0")
    assert (add.keep_git_dir, add.unpack, add.link) == (True, False, False)


def test_flags_end_at_two_dashes_and_may_be_quoted() -> None:
    copy = one('COPY --chown="a b" -- --x /y')
    assert isinstance(copy, Copy)
    assert (copy.chown, copy.sources) == ("a b", ("--x",))


def test_run_has_its_flags_before_the_command() -> None:
    run = one("RUN --network=none --security=insecure \\\n --mount=type=ssh apt --mount=no")
    assert isinstance(run, Run)
    assert (run.network, run.security) == (Network.NONE, Security.INSECURE)
    assert run.command == ("apt --mount=no",)
    assert run.mounts == (RunMount(kind=MountKind.SSH, id="default"),)


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("target=/a", RunMount(target="/a")),
        (
            "type=bind,from=b,src=/x,dst=/a,rw",
            RunMount(target="/a", source="/x", origin="b", writable=True),
        ),
        (
            "type=cache,target=/c",
            RunMount(kind=MountKind.CACHE, target="/c", id="/c", writable=True),
        ),
        (
            "type=CACHE,id=i,destination=/c,sharing=locked,mode=0750,uid=1,gid=2,ro",
            RunMount(
                kind=MountKind.CACHE,
                target="/c",
                id="i",
                sharing=Sharing.LOCKED,
                mode=0o750,
                uid=1,
                gid=2,
            ),
        ),
        (
            "type=tmpfs,target=/t,size=1.5m",
            RunMount(kind=MountKind.TMPFS, target="/t", size=3 << 19, writable=True),
        ),
        (
            "type=secret,id=k",
            RunMount(kind=MountKind.SECRET, id="k", target="/run/secrets/k"),
        ),
        (
            "type=secret,target=/root/.netrc,required",
            RunMount(kind=MountKind.SECRET, id=".netrc", target="/root/.netrc", required=True),
        ),
        (
            "type=secret,id=k,env=KEY",
            RunMount(kind=MountKind.SECRET, id="k", env="KEY"),
        ),
        ('"target=/a,b"', RunMount(target="/a,b")),
    ],
)
def test_mounts_are_read(text: str, mount: RunMount) -> None:
    quoted = text.replace('"', '\\"')
    run = one(f"RUN --mount={quoted} x")
    assert isinstance(run, Run)
    assert run.mounts == (mount,)


def test_a_mount_with_variables_has_its_origin_when_parsed() -> None:
    run = one("RUN --mount=type=$T,from=b,target=$X x")
    assert isinstance(run, Run)
    assert run.mounts[0].origin == "b"


# -- errors --------------------------------------------------------------------------------------


def test_an_error_has_its_location() -> None:
    assert mistake("FROM a\n\nRUNN apt-get \\\n  update\n", "app.Dockerfile") == (
        "app.Dockerfile:3: unknown instruction: RUNN (did you mean RUN?)\n"
        "   3 | RUNN apt-get \\\n"
        "   4 |   update"
    )


def test_an_error_contains_a_few_printable_lines() -> None:
    text = mistake("FROM a\nX \x1b[2J" + "y" * 500 + "\\\n1\\\n2\\\n3\\\n4\\\n5\\\n6")
    assert "\x1b" not in text
    assert text.endswith("...")
    assert len(text.split("\n")) == 7
    assert len(text.split("\n")[1]) < 220


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("", 1, "file with no instructions"),
        ("# x\n\n", 1, "file with no instructions"),
        ("RUN x", 1, "no build stage in current context (the first instruction must be FROM)"),
        ("ARG x", 1, "no build stage in current context (there is no FROM)"),
        ("FROM", 1, "FROM requires either one or three arguments"),
        ("FROM a b", 1, "FROM requires either one or three arguments"),
        ("FROM a AS 1x", 1, 'invalid name for build stage: "1x"'),
        ("FROM a AS é", 1, 'invalid name for build stage: "é"'),
        ("FROM --foo a", 1, "unknown flag: --foo"),
        ("# escape=x\nFROM a", 1, "invalid escape token 'x' does not match ` or \\"),
        ("# escape=`\n# escape=`\nFROM a", 2, "only one escape parser directive can be used"),
        ("FROM a\nCOPY x", 2, "COPY requires at least two arguments, but only one was provided"),
        ("FROM a\nADD", 2, "ADD requires at least two arguments"),
        ("FROM a\nCOPY --fron=x a b", 2, "unknown flag: --fron (did you mean --from?)"),
        ("FROM a\nCOPY --from a b", 2, "missing a value on flag: --from"),
        ("FROM a\nCOPY --link=2 a b", 2, "expecting boolean value for flag --link, not: 2"),
        ("FROM a\nCOPY --from=a --from=b c d", 2, "duplicate flag specified: --from"),
        ("FROM a\nCOPY --from=$x a b", 2, "variable expansion is not supported for --from"),
        ("FROM a\nCOPY x <<EOF\nEOF", 2, "COPY cannot accept a heredoc as a destination"),
        ("FROM a\nRUN", 2, "RUN requires a command"),
        ("FROM a\nRUN []", 2, "RUN requires a command"),
        ("FROM a\nRUN <<EOF\nx\n EOF", 2, "unterminated heredoc: no line consists of 'EOF'"),
        ("FROM a\nCOPY <<../x /y\n../x", 2, "heredoc name '../x' is not a valid file name"),
        ("FROM a\nADD <<.. /y\n..", 2, "heredoc name '..' is not a valid file name"),
        ("FROM a\nRUN <<a/b\n#!/x\na/b", 2, "heredoc name 'a/b' is not a valid file name"),
        ("FROM a\nRUN --network=x y", 2, "unsupported network mode: 'x'"),
        (
            "FROM a\nRUN --security=x y",
            2,
            "unsupported security mode: 'x'",
        ),
        ("FROM a\nRUN --device=x y", 2, "RUN --device"),
        ("FROM a\nRUN --mount=type=bnd x", 2, 'unsupported mount type "bnd" (did you mean bind?)'),
        ("FROM a\nRUN --mount=targt=/x y", 2, "unexpected key 'targt' in 'targt=/x'"),
        ("FROM a\nRUN --mount=target y", 2, "invalid field 'target' must be a key=value pair"),
        ("FROM a\nRUN --mount=type=cache x", 2, "cache mount without a target"),
        ("FROM a\nRUN --mount=type=bind,target=/a,uid=1 x", 2, "unexpected key 'uid' for mount"),
        ("FROM a\nRUN --mount=from=$x,target=/y z", 2, "'from' doesn't support variable"),
        ("FROM a\nRUN --mount=type=secret x", 2, "invalid secret mount"),
        ("FROM a\nRUN --mount=type=secret,id=a,source=b x", 2, "both source and id can't be set"),
        ("FROM a\nRUN --mount=type=cache,target=/a,mode=9 x", 2, "invalid value 9 for mode"),
        ("FROM a\nRUN --mount=type=cache,target=/a,uid=-1 x", 2, "invalid value -1 for uid"),
        ("FROM a\nRUN --mount=type=cache,target=/a,sharing=x y", 2, "unsupported sharing value"),
        ("FROM a\nRUN --mount=type=tmpfs,target=/a,size=x y", 2, "invalid value for size: x"),
        ("FROM a\nRUN --mount=target=/a,ro=x y", 2, "invalid value for readonly: x"),
        ("FROM a\nCMD [1]", 2, "when using JSON array syntax, arrays must be comprised of strings"),
        ('FROM a\nCMD ["\\u0000"]', 2, "a JSON string contains a null byte"),
        ("FROM a\nCMD --x y", 2, "unknown flag: --x"),
        ("FROM a\nSHELL sh", 2, "SHELL requires the arguments to be in JSON form"),
        ("FROM a\nSHELL []", 2, "SHELL requires at least one argument"),
        ("FROM a\nENV", 2, "ENV requires at least one argument"),
        ("FROM a\nENV a", 2, "ENV must have two arguments"),
        ("FROM a\nENV a=1 b", 2, 'Syntax error - can\'t find = in "b"'),
        ("FROM a\nENV =b", 2, "ENV names can not be blank"),
        ("FROM a\nENV ''=b", 2, "ENV names can not be blank"),
        ('FROM a\nLABEL a="b', 2, 'failed to process ""b": unexpected end of statement'),
        ("FROM a\nARG", 2, "ARG requires at least one argument"),
        ("FROM a\nEXPOSE", 2, "EXPOSE requires at least one argument"),
        ("FROM a\nEXPOSE 80/foo", 2, "invalid containerPort: 80/foo"),
        ("FROM a\nEXPOSE 70000", 2, "invalid containerPort: 70000"),
        ("FROM a\nEXPOSE 2-1", 2, "invalid containerPort: 2-1"),
        ("FROM a\nUSER", 2, "USER requires exactly one argument"),
        ("FROM a\nVOLUME", 2, "VOLUME requires at least one argument"),
        ('FROM a\nVOLUME [""]', 2, "VOLUME specified can not be an empty string"),
        ("FROM a\nSTOPSIGNAL FOO", 2, "invalid signal: FOO"),
        ("FROM a\nHEALTHCHECK", 2, "HEALTHCHECK requires at least one argument"),
        ("FROM a\nHEALTHCHECK NONE x", 2, "HEALTHCHECK NONE takes no arguments"),
        ("FROM a\nHEALTHCHECK CMD", 2, "Missing command after HEALTHCHECK CMD"),
        ("FROM a\nHEALTHCHECK x", 2, 'Unknown type "X" in HEALTHCHECK (try CMD)'),
        ("FROM a\nHEALTHCHECK --interval=5 CMD x", 2, '--interval: invalid duration "5"'),
        ("FROM a\nHEALTHCHECK --interval=1us CMD x", 2, 'Interval "interval" cannot be less than'),
        (
            "FROM a\nHEALTHCHECK --retries=-1 CMD x",
            2,
            "--retries: '-1' is not a non-negative number",
        ),
        ("FROM a\nONBUILD ONBUILD RUN x", 2, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't"),
        ("FROM a\nONBUILD FROM x", 2, "FROM isn't allowed as an ONBUILD trigger"),
        ("FROM a\nONBUILD COPY x", 2, "COPY requires at least two arguments"),
        ("FROM a\nRUN x\0", 2, "a null byte"),
        ("FROM a\nRUN \ud800", 2, "a surrogate"),
        (b"FROM a\nRUN \xff", 2, "not UTF-8: byte 0xff"),
        ("#" * (2 << 20) + "\n", 1, "larger than 2097152 bytes"),
        ("FROM a\n" * 1001, 1001, "more than 1000 stages"),
        ("FROM a\n" + "USER a\n" * 10_000, 10_001, "more than 10000 instructions"),
    ],
)
def test_an_error_names_its_line(text: str | bytes, line: int, reason: str) -> None:
    message = mistake(text)
    assert message.startswith(f"Dockerfile:{line}: {reason}"), message


@pytest.mark.parametrize("text", ["FROM x", "MAINTAINER x", "ONBUILD RUN x", "", "RUN a\nRUN b"])
def test_an_invalid_trigger_names_its_image(text: str) -> None:
    with pytest.raises(DockerfileError, match=r"^ONBUILD of base:1:1: "):
        parse_trigger(text, base="base:1")


def test_a_text_of_one_instruction_is_read_alone() -> None:
    assert parse_one("# escape=`\nENV a=\\\nb").source == "ENV a=b"


# -- checks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("FROM a\nENV a=b\n", []),
        ("FROM a\nrun x\nENV a=b", ["ConsistentInstructionCasing"]),
        ("FROM a\nRun x", ["ConsistentInstructionCasing"]),
        ("from a\nrun x", []),
        ("FROM a as b\n", ["FromAsCasing"]),
        ("FROM a AS Bc\n", ["StageNameCasing"]),
        ("FROM a AS b\nFROM a AS b\n", ["DuplicateStageName"]),
        ("FROM a AS scratch\n", ["ReservedStageName"]),
        ("FROM a\nCMD x\n", ["JSONArgsRecommended"]),
        ('FROM a\nCMD ["x"]\nCMD ["y"]\n', ["MultipleInstructionsDisallowed"]),
        ("FROM a\nMAINTAINER x\n", ["MaintainerDeprecated"]),
        ("FROM a\nENV a b\nLABEL c d", ["LegacyKeyValueFormat"] * 2),
        (
            "FROM a\nENV API_KEY=1\nARG npm_token\nENV PUBLIC_KEY=x KEYS=y",
            ["SecretsUsedInArgOrEnv"] * 2,
        ),
        ("FROM a\nWORKDIR a\nWORKDIR b\n", ["WorkdirRelativePath"]),
        ("FROM a\nWORKDIR /a\nWORKDIR b\n", []),
        ("FROM a\nRUN x \\\n\n y", ["NoEmptyContinuation"]),
        ("FROM a\nEXPOSE 127.0.0.1:80:80 53/UDP", ["ExposeInvalidFormat", "ExposeProtoCasing"]),
        ("# check=skip=JSONArgsRecommended\nFROM a as b\nCMD x\n", ["FromAsCasing"]),
        ("# check=skip=all\nFROM a as b\nCMD x\n", []),
    ],
)
def test_probable_mistakes_are_warned_about(text: str, rules: list[str]) -> None:
    assert [remark.rule for remark in parse(text).warnings] == rules


def test_warnings_are_errors_with_check_error_true() -> None:
    text = "# check=skip=FromAsCasing;error=true\nFROM a as b\nCMD x\n"
    assert mistake(text).startswith("Dockerfile:3: JSONArgsRecommended: ")
