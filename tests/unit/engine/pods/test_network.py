"""What the record of a sandbox keeps of the result of the CNI plugins."""

from __future__ import annotations

from jaula.features.kubernetes.cni.cni_result import Interface, IPConfig, Result, Route
from jaula.features.kubernetes.pods.sandbox_network import attachment_of
from jaula.spec.pod import PodAttachment, PodInterface


def test_an_attachment_has_what_is_in_the_pod_and_the_names_on_the_host() -> None:
    result = Result(
        interfaces=(
            Interface(name="cni0", mac="aa:aa:aa:aa:aa:aa"),
            Interface(name="veth1", mac="bb:bb:bb:bb:bb:bb"),
            Interface(name="eth0", mac="CC:CC:CC:CC:CC:CC", sandbox="/proc/1/ns/net"),
        ),
        ips=(
            IPConfig(address="10.1.0.5/24", gateway="10.1.0.1", interface=2),
            IPConfig(address="fd00::5/64"),
            IPConfig(address="10.1.0.1/24", interface=0),
        ),
        routes=(Route(dst="0.0.0.0/0"), Route(dst="10.9.0.0/16", gw="10.1.0.2")),
    )
    assert attachment_of(result, "eth0") == PodAttachment(
        interfaces=(PodInterface("eth0", "cc:cc:cc:cc:cc:cc"),),
        host_interfaces=("cni0", "veth1"),
        addresses=("10.1.0.5/24", "fd00::5/64"),
        gateways=("10.1.0.1", "10.1.0.2"),
        destinations=("0.0.0.0/0", "10.9.0.0/16"),
    )


def test_a_result_without_interfaces_has_the_requested_one() -> None:
    made = attachment_of(Result(ips=(IPConfig(address="10.1.0.5/24"),)), "eth0")
    assert made.interfaces == (PodInterface("eth0"),)
    assert made.addresses == ("10.1.0.5/24",)
