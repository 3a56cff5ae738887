"""The alert rules and the dashboard: valid queries of existing metrics, and sections of the runbook.

`promtool` makes each rule fire by its fault, and by no other fault.
"""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml  # type: ignore[import-untyped]  # ships no types

from infra.settings import ROOT
from tests.unit.test_documentation import anchors

FOLDER = ROOT / "infra" / "monitoring"
RULES: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts.yml").read_text("utf-8"))["groups"][0]["rules"]
BY_NAME = {rule["alert"]: rule for rule in RULES}
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text("utf-8"))
PANELS = {panel["title"]: [target["expr"] for target in panel["targets"]] for panel in DASHBOARD["panels"]}
QUERIES = {**{name: [rule["expr"]] for name, rule in BY_NAME.items()}, **PANELS}
PROMTOOL = shutil.which("promtool") or shutil.which("promtool", path=str(Path(sys.executable).parent))
MODULES = sorted((ROOT / "api").glob("*metrics.py"))
SUFFIXES = ("", "_total", "_bucket", "_sum", "_count")


def metrics_of_the_code() -> set[str]:
    """Return the names in the modules of `/metrics`, without the suffix of their kind."""
    texts = [module.read_text("utf-8") for module in MODULES]
    return set(re.findall(r'"(consumers_[a-z_]+)"', "".join(texts)))


def selectors(query: str) -> list[promql_parser.VectorSelector]:
    found = []

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(query), pre_visit=visit)
    return found


BOUNDED = {"category", "cause", "kind", "lane", "method", "part", "phase", "route", "status"}
"""Labels with few values, none of which depends on the data of merchants."""


def labels_of_the_code() -> set[str]:
    """Return the labels of all metrics: the third argument of prometheus-client's classes, or `labels`."""
    found: set[str] = set()
    for module in MODULES:
        tree = ast.parse(module.read_text("utf-8"))
        constants = {
            ast.unparse(node.targets[0]): node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple)
        }
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            label_lists = [keyword.value for keyword in call.keywords if keyword.arg in {"labels", "labelnames"}]
            if ast.unparse(call.func) in {"Counter", "Gauge", "Histogram"}:
                label_lists += call.args[2:3]
            for labels in label_lists:
                found |= set(ast.literal_eval(constants.get(ast.unparse(labels), labels)))
    return found


def test_labels_have_few_values() -> None:
    assert {"lane", "route", "status"} <= labels_of_the_code() <= BOUNDED


def test_queries_use_existing_labels() -> None:
    for query in (each for queries in QUERIES.values() for each in queries):
        matched = {matcher.name for selector in selectors(query) for matcher in selector.matchers.matchers}
        assert matched <= labels_of_the_code() | {"le"}


@pytest.mark.parametrize("title", QUERIES)
def test_queries_are_valid_and_their_metrics_exist(title: str) -> None:
    known = {f"{name}{suffix}" for name in metrics_of_the_code() for suffix in SUFFIXES}
    for query in QUERIES[title]:
        assert (found := selectors(query))
        assert {selector.name for selector in found} <= known


@pytest.mark.parametrize("name", BY_NAME)
def test_alert_names_its_section_of_the_runbook(name: str) -> None:
    annotations = BY_NAME[name]["annotations"]
    page, _, anchor = annotations["runbook"].partition("#")
    assert anchor in anchors(ROOT / page)
    assert annotations["summary"]
    assert BY_NAME[name]["labels"]["severity"] in {"page", "ticket"}


def test_runbook_names_each_metric_of_the_alerts() -> None:
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    names = {str(selector.name) for rule in RULES for selector in selectors(rule["expr"])}
    missing = {name for name in names if re.sub("_(total|bucket)$", "", name) not in text}
    # The requests are counted for every page; those of a rebuild are listed without their prefix.
    assert {name for name in missing if not name.startswith(("consumers_requests", "consumers_rebuild"))} == set()


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        x, y, width, height = (panel["gridPos"][name] for name in "xywh")
        cells = {(column, row) for column in range(x, x + width) for row in range(y, y + height)}
        assert x + width <= 24
        assert not cells & taken
        taken |= cells


LIVE, BULK = '{lane="live"}', '{lane="bulk"}'
READ, WRITE = '{method="GET",route="/r",status="%s"}', '{method="POST",route="/r",status="%s"}'
HEALTHY = {
    "consumers_database_up": "1x130",
    "consumers_search_up": "1x130",
    "consumers_queue_up": "1x130",
    "consumers_database_epoch": "3x130",
    "consumers_index_lost": "0x130",
    "consumers_search_nodes_left_out": "0x130",
    "consumers_search_settings_faults": "0x130",
    "consumers_rebuild_running": "0x130",
    "consumers_rebuild_paused": "0x130",
    "consumers_rebuild_documents": "0x130",
    "consumers_stale_answers_total": "0x130",
    'consumers_index_verified_timestamp_seconds{kind="watch"}': "0+60x130",
    'consumers_index_differences{cause="missing"}': "0x130",
    **{f'consumers_indexer_silent_seconds{{part="{part}"}}': "1x130" for part in ("live", "bulk", "clock")},
    **{
        f"{name}{lane}": value
        for lane in (LIVE, BULK)
        for name, value in (
            ("consumers_outbox_oldest_seconds", "0x130"),
            ("consumers_outbox_parked", "0x130"),
            ("consumers_outbox_refused", "0x130"),
            ("consumers_indexed_documents_total", "0+6000x130"),
            ("consumers_index_version_conflicts_total", "0+30x130"),
        )
    },
    f"consumers_requests_total{READ % 200}": "0+6000x130",
    f"consumers_requests_total{READ % 503}": "0x130",
    f"consumers_requests_total{WRITE % 201}": "0+6000x130",
    f"consumers_requests_total{WRITE % 503}": "0x130",
    **{
        f'{name}{{lane="live",le="{bound}"}}': "0+600x130"
        for name in ("consumers_commit_to_searchable_seconds_bucket", "consumers_database_wait_seconds_bucket")
        for bound in ("0.1", "1.0", "10.0", "+Inf")
    },
}
"""Series of a healthy service, a value a minute; a run of promtool for each fault changes some of them."""


def slow(name: str) -> dict[str, str | None]:
    """Return the changed series of a histogram in which one of ten values is above a second."""
    return {f'{name}{{lane="live",le="{bound}"}}': "0+540x130" for bound in ("0.1", "1.0")}


FAULTS: dict[str, dict[str, str | None]] = {
    "ConsumersNoMetrics": dict.fromkeys(HEALTHY),
    "ConsumersDatabaseDown": {"consumers_database_up": "0x130"},
    "ConsumersSearchDown": {"consumers_search_up": "0x130"},
    "ConsumersQueueDown": {"consumers_queue_up": "0x130"},
    "ConsumersReadsFail": {f"consumers_requests_total{READ % 503}": "0+600x130"},
    "ConsumersWritesFail": {f"consumers_requests_total{WRITE % 503}": "0+120x130"},
    "ConsumersIndexBehind": {f"consumers_outbox_oldest_seconds{LIVE}": "0+60x130"},
    "ConsumersBulkBehind": {f"consumers_outbox_oldest_seconds{BULK}": "0+60x130"},
    "ConsumersSlowToSearch": slow("consumers_commit_to_searchable_seconds_bucket"),
    "ConsumersStaleAnswers": {"consumers_stale_answers_total": "0+600x130"},
    "ConsumersParked": {f"consumers_outbox_parked{LIVE}": "1x130"},
    "ConsumersDocumentsRefused": {f"consumers_outbox_refused{BULK}": "1x130"},
    "ConsumersVersionConflicts": {f"consumers_index_version_conflicts_total{BULK}": "0+600x130"},
    "ConsumersIndexLost": {"consumers_index_lost": "1x130"},
    "ConsumersIndexDiffers": {'consumers_index_differences{cause="missing"}': "2x130"},
    "ConsumersWatchStopped": {'consumers_index_verified_timestamp_seconds{kind="watch"}': "-90000x130"},
    "ConsumersRebuildStuck": {"consumers_rebuild_running": "1x130", "consumers_rebuild_documents": "1000x130"},
    "ConsumersNewEpoch": {"consumers_database_epoch": "3x110 4x20"},
    "ConsumersNodeLeftOut": {"consumers_search_nodes_left_out": "1x130"},
    "ConsumersNodeSettings": {"consumers_search_settings_faults": "2x130"},
    "ConsumersPartSilent": {'consumers_indexer_silent_seconds{part="clock"}': "999999999x130"},
    "ConsumersPoolFull": slow("consumers_database_wait_seconds_bucket"),
}
LABELS = {
    "ConsumersParked": {"lane": "live"},
    "ConsumersDocumentsRefused": {"lane": "bulk"},
    "ConsumersPartSilent": {"part": "clock"},
}
NOT_FAULTS: dict[str, dict[str, str | None]] = {
    "healthy": {},
    "paused rebuild": {
        "consumers_rebuild_running": "1x130",
        "consumers_rebuild_paused": "1x130",
        "consumers_rebuild_documents": "1000x130",
    },
    "rebuild with progress": {"consumers_rebuild_running": "1x130", "consumers_rebuild_documents": "0+1000x130"},
    "few conflicts of an idle service": {
        f"consumers_indexed_documents_total{LIVE}": "0+3x130",
        f"consumers_indexed_documents_total{BULK}": "0+3x130",
        f"consumers_index_version_conflicts_total{BULK}": "0+3x130",
        f"consumers_index_version_conflicts_total{LIVE}": "0+3x130",
    },
}


def test_each_alert_has_a_fault() -> None:
    assert list(FAULTS) == list(BY_NAME)


def case(changes: dict[str, str | None], firing: str | None) -> dict[str, Any]:
    """Return a test for promtool: at 120 minutes, an alert fires because of the changed series, and no other does."""
    series = {name: value for name, value in (HEALTHY | changes).items() if value is not None}
    expected: dict[str, list[dict[str, Any]]] = {name: [] for name in BY_NAME} | (
        {
            firing: [
                {
                    "exp_labels": BY_NAME[firing]["labels"] | LABELS.get(firing, {}),
                    "exp_annotations": BY_NAME[firing]["annotations"],
                }
            ]
        }
        if firing
        else {}
    )
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": value} for name, value in series.items()],
        "alert_rule_test": [
            {"eval_time": "120m", "alertname": name, "exp_alerts": alerts} for name, alerts in expected.items()
        ],
    }


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (a program of Prometheus)")
def test_each_alert_fires_by_its_fault_and_by_no_other(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "alerts.yml", tmp_path)
    cases = [
        *(case(changes, name) for name, changes in FAULTS.items()),
        *(case(each, None) for each in NOT_FAULTS.values()),
    ]
    tests = tmp_path / "tests.yml"
    tests.write_text(json.dumps({"rule_files": ["alerts.yml"], "evaluation_interval": "5m", "tests": cases}))
    done = subprocess.run([str(PROMTOOL), "test", "rules", str(tests)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
