"""Read `/metrics` as Prometheus does."""

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.service import Service


def metrics(service: Service) -> dict[tuple[str, ...], float]:
    """Return the values by metric name and label values; labels are sorted by name."""
    response = httpx.get(f"{service.operations_url}/metrics").raise_for_status()
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }
