"""Searches find the same in an index of the former document version, which is read until the next rebuild."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from opensearchpy import OpenSearch

from api.consumers import matching
from api.consumers.explanations import explanation_clauses
from infra.filters import language
from infra.filters.clauses import Clause, clause
from infra.index import documents, mapping
from infra.index.conversion import FORMER_VERSION, convert
from infra.index.documents import ConsumerRow
from tests.service import Service

DECLARATION = Path(__file__).with_name("former_index.json")
"""Analysis and fields of an index of document version 5 (c37570e)."""
REGION, ROOM = "GB", 500
MOMENT = datetime(2024, 11, 1, tzinfo=UTC)
PEOPLE = [
    ("José García López", "jose.garcia+news@example.com", "+442079460958", "CRM 42-17", '{"tier": "Gold", "n": 5}'),
    ("Conan O’Brien", "o'brien_c@example.org", None, "Ünï-Code 7", '{"note": "a*b?c\\\\d", "tags": ["VIP", "Zoë"]}'),
    ("St.John smith", "zoë@example.com", "+5511961203082", None, '{"tags": [], "day": "1990-12-31", "x": {"y": ""}}'),
    ("田中太郎", None, "123-45 x9", "a.b", None),
]


class Form(NamedTuple):
    document_version: int
    fields: frozenset[str]


class Indices(NamedTuple):
    search: OpenSearch
    former: str
    present: str

    def found(self, query: Clause) -> tuple[list[Any], list[Any]]:
        """Return the ids, scores and names of clauses, for both indices."""
        former, present = (self._hits(index, query) for index in (self.former, self.present))
        return former, present

    def _hits(self, index: str, query: Clause) -> list[Any]:
        hits = self.search.search(index=index, body={"query": query, "sort": ["_score", "id"]})["hits"]["hits"]
        return [(hit["_id"], hit["sort"][0], sorted(hit.get("matched_queries", []))) for hit in hits]


@pytest.fixture(scope="module")
def indices(service: Service) -> Iterator[Indices]:
    search, prefix = service.database.search, service.database.settings.index_prefix
    made = Indices(search, f"{prefix}-form-former", f"{prefix}-form-present")
    declared = json.loads(DECLARATION.read_text("utf-8"))
    form = Form(FORMER_VERSION, frozenset(declared["mappings"]["properties"]))
    search.indices.create(index=made.former, body=declared)
    search.indices.create(index=made.present, body=mapping.index_body(1, 0))
    for number, (name, email, phone, external_id, metadata) in enumerate(PEOPLE):
        row = ConsumerRow(
            f"cons_{number}", 7, 1, email, None, phone, name, metadata, external_id, number, Decimal(0), None,
            MOMENT, MOMENT,
        )  # fmt: skip
        source = documents.document(row, [])
        search.index(index=made.former, id=row.id, body=convert(source, form))
        search.index(index=made.present, id=row.id, body=source)
    search.indices.refresh(index=[made.former, made.present])
    try:
        yield made
    finally:
        search.indices.delete(index=[made.former, made.present])


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("garcia", 0), ("gar", 0), ("GARCÍA josé", 0), ("josé garcía lópez", 0), ("garcai", 0), ("garcia+ne", 0)),
        *(("jose.garcia+news@example.com", 0), ("020 7946 0958", 0), ("442079460", 0), ("0958", 0), ("7946 0958", 0)),
        *(("crm 42-17", 0), ("o'brien", 1), ("obrien", 1), ("brien", 1), ("o'brien_c", 1), ("c@example", 1)),
        *(("uni-code 7", 1), ("conan obrien", 1), ("st john", 2), ("st.john smith", 2), ("zoe@example.com", 2)),
        *(("+5511961203082", 2), ("+551161203082", 2), ("田中", 3), ("太郎", 3), ("1234", 3), ("123-45 x9", 3)),
    ],
)
def test_words_are_found_in_both_versions(indices: Indices, text: str, number: int) -> None:
    explained = {"bool": {"must": [matching.ranking_clause(text, REGION, ROOM)]}}
    explained["bool"]["should"] = [
        {"constant_score": {"filter": each, "boost": 0}} for each in explanation_clauses(text, REGION)
    ]
    former, present = indices.found(explained)
    assert f"cons_{number}" in [row[0] for row in present]
    assert former == present
    if text != "garcai":
        unranked = {"constant_score": {"filter": matching.filter_clause(text, REGION)}}
        former, present = indices.found(unranked)
        assert f"cons_{number}" in [row[0] for row in present]
        assert former == present


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        *(("email:*", [0, 1, 2]), ("NOT email:*", [3]), ("metadata.tags:*", [1, 2]), ("metadata.x:*", [2])),
        *(("metadata.tier:gold", [0]), ("metadata.tags:zoë", [1]), ("metadata.tags:zoe", []), ("metadata.n:>4", [0])),
        *(("fullName:~jose", [0]), ("fullName:~example", []), ("email:~example", [0, 1, 2]), ("email:~zoe", [2])),
        *(('metadata.note:~"b?c\\\\d"', [1]), ('metadata.note:~"b?cd"', []), ("metadata.tags:~zo", [1])),
        *(("metadata.x.y:*", [2]), ('metadata.x.y:""', [2]), ('metadata.tags:""', [])),
        ("metadata.day:>1990-01-01", [2]),
        *(("externalId:~co", [1]), ("externalId:uni-code*", []), ("NOT fullName:~o", [3]), ('phone:~"5 x"', [3])),
    ],
)  # fmt: skip
def test_filters_find_the_same_in_both_versions(indices: Indices, text: str, numbers: list[int]) -> None:
    former, present = indices.found({"bool": {"filter": [clause(language.parse(text), REGION)]}})
    assert [row[0] for row in present] == [f"cons_{number}" for number in numbers]
    assert former == present
