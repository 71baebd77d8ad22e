"""Samples of pods as metrics of CRI, by the tables that Prometheus has, too. Pure.

The kubelet drops a sample that has another number of labels than its descriptor.

Facts about CRI: a value is an unsigned integer. So times are in whole seconds, rounded down.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.features.metrics.container_metrics import (
    CONTAINER_METRICS,
    COUNTER,
    GAUGE,
    NETWORK_METRICS,
)

if TYPE_CHECKING:
    from jaula.features.metrics.pod_samples import ContainerSample, SandboxSample

_LABELS = ("pod", "namespace", "container", "id", "image")

_TYPES = {COUNTER: api_pb2.COUNTER, GAUGE: api_pb2.GAUGE}


def descriptors() -> Iterator[api_pb2.MetricDescriptor]:
    """Yield the descriptors of all metrics."""
    for metric in CONTAINER_METRICS:
        yield api_pb2.MetricDescriptor(
            name=metric.name, help=metric.help, label_keys=(*_LABELS, *metric.labels)
        )
    for network in NETWORK_METRICS:
        yield api_pb2.MetricDescriptor(
            name=network.name, help=network.help, label_keys=(*_LABELS, "interface")
        )


def encode(samples: Iterable[SandboxSample]) -> list[api_pb2.PodSandboxMetrics]:
    """Return the metrics of pods."""
    return [sandbox_metrics(sample) for sample in samples]


def sandbox_metrics(sample: SandboxSample) -> api_pb2.PodSandboxMetrics:
    """Return the metrics of a pod and its containers."""
    record = sample.record
    assert record.sandbox is not None
    pod = (record.sandbox.request.metadata.name, record.sandbox.request.metadata.namespace)
    made = api_pb2.PodSandboxMetrics(pod_sandbox_id=record.id)
    for interface, counters in sample.networks.items():
        labels = (*pod, "", record.id, "", interface)
        for metric in NETWORK_METRICS:
            _add(
                made, metric.name, api_pb2.COUNTER, sample.moment, labels, counters[metric.counter]
            )
    made.container_metrics.extend(_container_metrics(c, pod) for c in sample.containers)
    return made


def _container_metrics(sample: ContainerSample, pod: tuple[str, str]) -> api_pb2.ContainerMetrics:
    record, moment = sample.record, sample.cgroup.moment
    assert record.pod is not None
    labels = (*pod, record.pod.name, record.id, record.body.image)
    made = api_pb2.ContainerMetrics(container_id=record.id)
    for metric in CONTAINER_METRICS:
        for own, value in metric.values(sample):
            type, whole = _TYPES[metric.type], value // metric.divisor
            _add(made, metric.name, type, moment, (*labels, *own), whole)
    return made


def _add(
    made: api_pb2.PodSandboxMetrics | api_pb2.ContainerMetrics,
    name: str,
    type: api_pb2.MetricType,
    moment: int,
    labels: tuple[str, ...],
    value: int,
) -> None:
    made.metrics.add(
        name=name,
        timestamp=moment,
        metric_type=type,
        label_values=labels,
        value=api_pb2.UInt64Value(value=value),
    )
