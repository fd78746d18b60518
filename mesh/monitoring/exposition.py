"""Families of samples as the text that Prometheus reads, by its own client library; and the process beside them."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from mesh.measures import Histogram
from mesh.views.metrics import Family


class _Families:
    """A collector, to the library."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return map(_metric, self._families)


def exposed(families: Iterable[Family], accept: str) -> tuple[bytes, str]:
    """The page, and its content type. `accept`: the request's header."""
    registry = CollectorRegistry()
    registry.register(_Families(families))
    ProcessCollector(registry=registry)
    encoder, content_type = choose_encoder(accept)
    return encoder(registry), content_type


def _metric(family: Family) -> Metric:
    names = sorted({label for labels, _ in family.samples for label in labels})
    if family.kind == "histogram":
        made = HistogramMetricFamily(family.name, family.help, labels=names)
        for labels, value in family.samples:
            assert isinstance(value, Histogram)
            buckets = [
                ("+Inf" if bound == float("inf") else f"{bound:g}", count) for bound, count in value.cumulative()
            ]
            made.add_metric([labels[name] for name in names], buckets, value.total)
        return made
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    plain = kind(family.name, family.help, labels=names)
    for labels, value in family.samples:
        assert not isinstance(value, Histogram)
        plain.add_metric([labels[name] for name in names], value)
    return plain
