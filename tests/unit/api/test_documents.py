"""The bodies of requests, parsed as Docker parses JSON."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import InvalidRequest
from jaula.spec import detach_keys
from jaula.spec.api_documents import (
    ContainerCreate,
    ContainerUpdate,
    ExecCreate,
    HostConfig,
    PortBinding,
)
from jaula.spec.decode import decode

DOCKER_RUN = b"""{"Hostname":"h","ExposedPorts":{"80/tcp":{}},"Env":["A=b"],"Cmd":["sleep","60"],
"Healthcheck":{"Test":["CMD-SHELL","true"],"Interval":30000000000},"Image":"busybox",
"Volumes":null,"Entrypoint":null,"Labels":{"l":"1"},"StopTimeout":1,"OnBuild":null,
"HostConfig":{"Binds":["tv0:/data"],"LogConfig":{"Type":"","Config":{"max-size":"1m"}},
"NetworkMode":"default","PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"18081"}]},
"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":3},"ConsoleSize":[40,100],
"CapAdd":["NET_BIND_SERVICE"],"NanoCpus":500000000,"MemorySwappiness":-1,"PidsLimit":50,
"Devices":[{"PathOnHost":"/dev/null","PathInContainer":"/dev/x","CgroupPermissions":"rwm"}],
"Mounts":[{"Type":"bind","Source":"/tmp","Target":"/m","ReadOnly":true}],"Init":true,
"BlkioDeviceReadIOps":[{"Path":"/dev/sda","Rate":5}],"UTSMode":"host","SomethingNew":1},
"NetworkingConfig":{"EndpointsConfig":{"default":{"IPAMConfig":{"IPv4Address":"10.0.0.2"}}}}}"""


def test_a_document_of_the_docker_command_is_parsed() -> None:
    body = decode(DOCKER_RUN, ContainerCreate)
    host = body.host_config
    assert (body.image, body.cmd, body.entrypoint, body.stop_timeout) == (
        "busybox",
        ("sleep", "60"),
        None,
        1,
    )
    assert list(body.exposed_ports) == ["80/tcp"]
    assert host.port_bindings == {"80/tcp": (PortBinding(host_port="18081"),)}
    assert host.console_size == (40, 100)
    assert host.blkio_device_read_iops[0].rate == 5
    assert (host.uts_mode, host.init, host.pids_limit, host.memory) == ("host", True, 50, 0)
    endpoint = body.networking_config.endpoints_config["default"]
    assert endpoint.ipam_config is not None
    assert endpoint.ipam_config.ipv4_address == "10.0.0.2"


def test_null_means_absent_and_in_a_map_the_zero_value() -> None:
    body = decode(
        b'{"Cmd":null,"HostConfig":{"Memory":null,"Init":null,"PortBindings":{"80/tcp":null}},'
        b'"ExposedPorts":{"80/tcp":null},"Labels":{"a":null},"NetworkingConfig":null}',
        ContainerCreate,
    )
    assert body.cmd is None
    assert body.host_config.port_bindings == {"80/tcp": ()}
    assert list(body.exposed_ports) == ["80/tcp"]
    assert body.labels == {"a": ""}
    assert decode(b"null", ContainerCreate) == decode(b"", ContainerCreate) == ContainerCreate()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"hostConfig":{"readonlyRootfs":true,"capDrop":["ALL"]}}', (True, ("ALL",))),
        ('{"HOSTCONFIG":{"READONLYROOTFS":true}}', (True, ())),
        ('{"Ho\u017ftConfig":{"ReadonlyRootf\u017f":true}}', (True, ())),  # the long s
        ('{"HostConfig":{"\\u0063apDrop":["ALL"]}}', (False, ("ALL",))),
        ('{"Host_Config":{"ReadonlyRootfs":true}}', (False, ())),
        ('{"HostConfig":{"ReadonlyRootfs":true,"readonlyrootfs":false}}', (False, ())),
        ('{"HostConfig":{"readonlyrootfs":false,"ReadonlyRootfs":true}}', (True, ())),
        ('{"HostConfig":{"ReadonlyRootfs":true,"readonlyrootfs":null}}', (True, ())),
        ('{"HostConfig":{"CapDrop":["A"],"capdrop":["B"],"CapDrop":["C"]}}', (False, ("C",))),
        ('{"HostConfig":{"CapDrop":["A"]},"hostconfig":{"ReadonlyRootfs":true}}', (True, ("A",))),
        ('{"hostconfig":{"CapDrop":["A"]},"hOSTCONFIG":{"CapDrop":["B"]}}', (False, ("B",))),
    ],
)
def test_keys_name_fields_in_any_letter_case_and_the_last_one_wins(
    text: str, expected: tuple[bool, tuple[str, ...]]
) -> None:
    host = decode(text.encode(), ContainerCreate).host_config
    assert (host.readonly_rootfs, host.cap_drop) == expected


def test_documents_in_maps_and_lists_have_fields_and_maps_have_keys_of_the_client() -> None:
    body = decode(
        b'{"labels":{"A":"1","a":"2"},"hostconfig":{"portbindings":{"80/TCP":[{"hostport":"1"}]},'
        b'"ulimits":[{"name":"nofile","soft":1},{"NAME":"core"}],"tmpfs":{"/T":null}},'
        b'"networkingconfig":{"endpointsconfig":{"Net":{"ipamconfig":{"ipv4address":"10.0.0.2"}}}},'
        b'"cmd":"sh","volumes":{"/V":{}}}',
        ContainerCreate,
    )
    host = body.host_config
    assert body.labels == {"A": "1", "a": "2"}
    assert host.port_bindings == {"80/TCP": (PortBinding(host_port="1"),)}
    assert [(limit.name, limit.soft) for limit in host.ulimits] == [("nofile", 1), ("core", 0)]
    assert host.tmpfs == {"/T": ""}
    endpoint = body.networking_config.endpoints_config["Net"]
    assert endpoint.ipam_config is not None
    assert endpoint.ipam_config.ipv4_address == "10.0.0.2"
    assert (body.cmd, list(body.volumes)) == (("sh",), ["/V"])


def _names(number: int) -> list[str]:
    return [f"a{n}" for n in range(number)]


def _host(**members: object) -> dict[str, object]:
    return {"HostConfig": members}


_ONE: dict[str, Callable[[int], dict[str, object]]] = {
    "a list of objects": lambda n: _host(PortBindings={"80/tcp": [{}] * n}),
    "a list of strings": lambda n: _host(DeviceCgroupRules=_names(n)),
    "a list of lists": lambda n: _host(DeviceRequests=[{"Capabilities": [[]] * n}]),
    "a map of strings": lambda n: _host(Sysctls=dict.fromkeys(_names(n), "b")),
    "a map of lists": lambda n: _host(PortBindings={name: [] for name in _names(n)}),
    "a map of objects": lambda n: {
        "NetworkingConfig": {"EndpointsConfig": {name: {} for name in _names(n)}}
    },
}


@pytest.mark.parametrize("name", _ONE)
def test_a_list_or_map_holds_a_bounded_number_of_items(name: str) -> None:
    decode(msgspec.json.encode(_ONE[name](16_384)), ContainerCreate)
    with pytest.raises(msgspec.ValidationError, match="holds 16385 items; at most 16384 are"):
        decode(msgspec.json.encode(_ONE[name](16_385)), ContainerCreate)


@pytest.mark.parametrize("name", ["Cmd", "Entrypoint", "Env", "ExposedPorts"])
def test_a_program_may_have_more_arguments_variables_and_ports(name: str) -> None:
    def body(number: int) -> bytes:
        names = _names(number)
        value = {each: {} for each in names} if name == "ExposedPorts" else names
        return msgspec.json.encode({name: value})

    decode(body(65_536), ContainerCreate)
    with pytest.raises(msgspec.ValidationError, match="holds 65537 items; at most 65536 are"):
        decode(body(65_537), ContainerCreate)


_ALL: dict[str, Callable[[int], dict[str, object]]] = {
    "a list and a map": lambda n: {
        "Cmd": _names(n // 2),
        "ExposedPorts": {name: {} for name in _names(n // 2)},
    },
    "two lists": lambda n: {"Env": _names(n // 2), "Entrypoint": _names(n // 2)},
    "lists in a map": lambda n: _host(
        PortBindings={name: [{}] * 10_000 for name in _names(n // 10_000)}
    ),
    "lists in lists": lambda n: _host(
        DeviceRequests=[{"Capabilities": [[]] * 10_000} for _ in range(n // 10_000)]
    ),
    "maps in a map": lambda n: {
        "NetworkingConfig": {
            "EndpointsConfig": {
                name: {"DriverOpts": dict.fromkeys("abcdefghi", "b")} for name in _names(n // 10)
            }
        }
    },
}


@pytest.mark.parametrize("name", _ALL)
def test_the_lists_and_maps_of_a_document_hold_a_bounded_number_of_items(name: str) -> None:
    decode(msgspec.json.encode(_ALL[name](60_000)), ContainerCreate)
    with pytest.raises(msgspec.ValidationError, match="hold more than 65536 items in all"):
        decode(msgspec.json.encode(_ALL[name](70_000)), ContainerCreate)


def test_unknown_members_of_a_document_do_not_count() -> None:
    assert decode(msgspec.json.encode({"a": [1] * 70_000}), ContainerCreate) == ContainerCreate()


def test_detach_keys_of_the_sdk_for_python_are_read() -> None:
    assert decode(b'{"Cmd":["sh"],"detachKeys":"ctrl-x"}', ExecCreate).detach_keys == "ctrl-x"


def test_a_repeated_key_does_not_hide_an_error() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"\$\.Tty"):
        decode(b'{"Tty":true,"tty":"yes"}', ContainerCreate)
    with pytest.raises(msgspec.DecodeError):
        decode(b'{"StopTimeout":1,"stoptimeout":' + b"9" * 5000 + b"}", ContainerCreate)


def test_a_command_may_be_one_string_but_a_label_of_that_name_is_unchanged() -> None:
    body = decode(b'{"Cmd":"ls","Entrypoint":"","Labels":{"Cmd":"x"}}', ContainerCreate)
    assert (body.cmd, body.entrypoint, body.labels) == (("ls",), (), {"Cmd": "x"})


def test_an_encoded_document_decodes_to_the_same() -> None:
    body = decode(DOCKER_RUN, ContainerCreate)
    assert msgspec.json.decode(msgspec.json.encode(body), type=ContainerCreate) == body
    assert decode(msgspec.json.encode(body), ContainerCreate) == body


def test_an_update_and_a_host_configuration_share_their_limits() -> None:
    text = b'{"Memory":83886080,"MemorySwap":-1,"RestartPolicy":{"Name":"no"}}'
    assert decode(text, ContainerUpdate).memory_swap == decode(text, HostConfig).memory_swap == -1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Cmd", "HostConfig", "Labels", "PortBindings", "Memory", "Env", "x"]),
            inner,
            max_size=4,
        )
    ),
)


@given(JSON)
def test_no_document_raises_anything_but_a_decode_error(value: object) -> None:
    try:
        decode(msgspec.json.encode(value), ContainerCreate)
    except msgspec.DecodeError:
        return


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("ctrl-@", b"\0"),
        ("ctrl-[,a,ctrl-_", b"\x1ba\x1f"),
        ("ctrl-\\", b"\x1c"),
        ("Q", b"Q"),
    ],
)
def test_detach_keys_are_the_bytes_of_a_terminal(text: str, keys: bytes) -> None:
    assert detach_keys.parse(text) == keys


@pytest.mark.parametrize(
    "text", ["", ",", "ctrl-", "ctrl-P", "ctrl-1", "ctrl-pp", "é", "ab", "a,", "a," * 70 + "a"]
)
def test_invalid_detach_keys_are_rejected(text: str) -> None:
    with pytest.raises(InvalidRequest, match="detach keys"):
        detach_keys.parse(text)
