"""Run a notebook, and read the data of its plots."""

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import altair as alt


def run(notebook: Path) -> tuple[list[Any], Mapping[str, Any]]:
    """Run all cells; return the plots among their outputs, and the variables."""
    spec = importlib.util.spec_from_file_location(f"notebook_{notebook.stem}", notebook)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    outputs, defined = module.app.run()
    return [output for output in outputs if isinstance(output, alt.TopLevelMixin)], defined


def fields_of(chart: Any) -> dict[str, list[Any]]:
    """Return the values of each field that a plot shows.

    Raises:
        KeyError: the data has no such field, or there is no data.
    """
    spec = chart.to_dict()
    [rows] = spec["datasets"].values()
    assert rows
    return {field: [row[field] for row in rows] for field in _fields(spec)}


def _fields(spec: Any) -> Iterator[str]:
    for part in [spec, *spec.get("layer", [])]:
        for channel in part.get("encoding", {}).values():
            for entry in channel if isinstance(channel, list) else [channel]:
                if "field" in entry:
                    yield entry["field"]
