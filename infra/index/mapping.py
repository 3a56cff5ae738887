"""The declaration of the search index: document version, mapping and settings."""

import hashlib
from typing import Any

import msgspec

from infra.index.analysis import ANALYSIS

DOCUMENT_VERSION = 3
"""Moves with every change of what a document holds. A worker never writes a generation newer than this."""


def _text(analyzer: str, search_analyzer: str | None = None, *, options: str = "docs") -> dict[str, Any]:
    """A field that is matched, never scored."""
    field = {"type": "text", "analyzer": analyzer, "norms": False, "index_options": options}
    return field | {"search_analyzer": search_analyzer} if search_analyzer else field


def _sorted(kind: str, first: str, last: str, **options: Any) -> dict[str, Any]:
    """Two sub-fields to sort by, each with its own stand-in for null, so that nulls come last in both directions.
    (On the field itself a stand-in would make `exists` and ranges lie. A keyword by itself needs none.)
    """
    field = {"type": kind, "index": False, **options}
    return {"asc": field | {"null_value": last}, "desc": field | {"null_value": first}}


DATE_FORMAT = "strict_date_time||epoch_millis"
KEYWORD: dict[str, Any] = {"type": "keyword"}

MAPPING: dict[str, Any] = {
    "dynamic": "strict",
    "_meta": {"documentVersion": DOCUMENT_VERSION},
    "properties": {
        "row": {"type": "object", "enabled": False},
        "id": KEYWORD,
        "environmentId": KEYWORD,
        "version": {"type": "long"},
        "deleted": {"type": "boolean"},
        "deletedAt": {"type": "date", "format": DATE_FORMAT},
        "email": KEYWORD
        | {
            "fields": {
                "whole": _text("address"),
                "parts": _text("parts", options="positions"),
                "starts": _text("part_starts", "parts", options="positions"),
            }
        },
        "phone": KEYWORD,
        "phoneDigits": KEYWORD | {"fields": {"starts": _text("digit_starts", "keyword")}},
        # For their ends; what `reversed_digits` leaves out is found by `starts`.
        "phoneReversed": _text("digit_starts", "keyword"),
        "fullName": _text("words", options="positions")
        | {
            "fields": {
                "whole": _text("whole_name"),
                "starts": _text("word_starts", "words"),
                **_sorted("icu_collation_keyword", "", "\uffff"),
            }
        },
        # Where a script has no spaces, the start of a word is seldom split as the word is. Null for others.
        "nameRuns": _text("run_starts", "runs"),
        "externalId": KEYWORD | {"fields": {"folded": KEYWORD | {"normalizer": "folded"}}},
        "totalOrders": {"type": "integer"},
        "totalOrderValue": {"type": "long"},
        # The stand-ins are the years 0 and 10000: a consumer's own last order is between them.
        "lastOrderAt": {
            "type": "date",
            "format": DATE_FORMAT,
            "fields": _sorted("date", "-62167219200000", "253402300800000", format=DATE_FORMAT),
        },
        "createdAt": {"type": "date", "format": DATE_FORMAT},
        "updatedAt": {"type": "date", "format": DATE_FORMAT},
        "audienceIds": KEYWORD,
        # What conditions compare (`infra.index.terms`).
        "texts": KEYWORD | {"doc_values": False},
        "numbers": KEYWORD | {"doc_values": False},
        "contents": {"type": "wildcard", "doc_values": True},
    },
}

INDEX_SETTINGS: dict[str, Any] = {
    "number_of_shards": 1,
    "auto_expand_replicas": "0-1",
    "replication.type": "DOCUMENT",
    # The drain alone refreshes, and only then forgets its outbox rows.
    "refresh_interval": "-1",
    # The default list order, environment by environment: small ones need not scan large ones.
    "sort.field": ["environmentId", "createdAt", "id"],
    "sort.order": ["asc", "desc", "desc"],
    "analysis": ANALYSIS,
}

MAPPING_DIGEST = hashlib.sha256(msgspec.json.encode([ANALYSIS, MAPPING, INDEX_SETTINGS], order="sorted")).hexdigest()
"""Tells whether a generation was built from this code's declaration."""
