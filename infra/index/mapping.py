"""The declaration of the search index: document version, mapping and settings.

To add a field to the documents, declare the field here and in `documents.py`, raise `DOCUMENT_VERSION`, and convert to
the former version in `conversion.py`. Existing generations keep their mapping and their document version; a rebuild
makes a generation with the new field.
"""

import hashlib
import math
from typing import Any

import msgspec

from infra.index.analysis import ANALYSIS

DOCUMENT_VERSION = 5
"""Must rise with every change to the content of documents. A generation keeps the version of the code that built it: a
worker converts documents to the former version (`conversion.py`), and never writes a generation with a higher version.
"""


def _text(analyzer: str, search_analyzer: str | None = None, *, options: str = "docs") -> dict[str, Any]:
    """Return a text field for matching without scores."""
    field = {"type": "text", "analyzer": analyzer, "norms": False, "index_options": options}
    return field | {"search_analyzer": search_analyzer} if search_analyzer else field


def _sorted(kind: str, first: str, last: str, **options: Any) -> dict[str, Any]:
    """Return two sub-fields to sort by, each with a substitute for null, so that nulls come last either way.

    A substitute on the field itself would make `exists` and ranges match null. A keyword needs no such sub-fields.
    """
    field = {"type": kind, "index": False, **options}
    return {"asc": field | {"null_value": last}, "desc": field | {"null_value": first}}


NO_TIMES = (-62_167_219_200_000, 253_402_300_800_000)
"""Substitutes for a time that is null: the years 0 and 10000, beyond every stored time, in milliseconds since 1970."""
DATE_FORMAT = "strict_date_time||epoch_millis"
KEYWORD: dict[str, Any] = {"type": "keyword"}

MAPPING: dict[str, Any] = {
    "dynamic": "strict",
    "_meta": {"documentVersion": DOCUMENT_VERSION},
    "properties": {
        "row": {"type": "object", "enabled": False},
        "id": KEYWORD,
        # The time in the id, for ranges of ids.
        "idTime": {"type": "long"},
        "environmentId": KEYWORD,
        "version": {"type": "long"},
        "deleted": {"type": "boolean"},
        "deletedAt": {"type": "date", "format": DATE_FORMAT},
        # Indexed for ranges of addresses (`api/consumers/windows.py`).
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
        # Suffix search. A form left out by `reversed_digits` is matched by `phoneDigits.starts`.
        "phoneReversed": _text("digit_starts", "keyword"),
        "fullName": _text("words", options="positions")
        | {
            "fields": {
                "whole": _text("whole_name"),
                "starts": _text("word_starts", "words"),
                **_sorted("icu_collation_keyword", "", "\uffff"),
            }
        },
        # The environment and the name, for ranges of names in an environment (`api/consumers/windows.py`).
        "nameOrder": {"type": "icu_collation_keyword", "doc_values": False},
        # Names in scripts without spaces, else null. The tokenizer seldom splits the start of a word like the word.
        "nameRuns": _text("run_starts", "runs"),
        # Further words to find a name by, and parts of addresses, as they are looked up (`names.py`).
        "forms": KEYWORD | {"doc_values": False},
        "formStarts": _text("form_starts", "keyword"),
        "externalId": KEYWORD | {"fields": {"folded": KEYWORD | {"normalizer": "folded"}}},
        "totalOrders": {"type": "integer"},
        "totalOrderValue": {"type": "long"},
        "lastOrderAt": {
            "type": "date",
            "format": DATE_FORMAT,
            "fields": _sorted("date", *map(str, NO_TIMES), format=DATE_FORMAT),
        },
        "createdAt": {"type": "date", "format": DATE_FORMAT},
        "updatedAt": {"type": "date", "format": DATE_FORMAT},
        "audienceIds": KEYWORD,
        # For analysts (`attributes.py`).
        "emailDomain": KEYWORD,
        "phoneCountry": KEYWORD,
        "attributes": KEYWORD | {"index": False},
        # Terms of conditions (`terms.py`).
        "texts": KEYWORD | {"doc_values": False},
        "numbers": KEYWORD | {"doc_values": False},
        "contents": {"type": "wildcard", "doc_values": True},
    },
}

INDEX_SETTINGS: dict[str, Any] = {
    # Defaults of INDEX_SHARDS and INDEX_REPLICAS (`index_body`).
    "number_of_shards": 1,
    "auto_expand_replicas": "0-1",
    "replication.type": "DOCUMENT",
    # Only the drain refreshes the index, before deleting outbox rows.
    "refresh_interval": "-1",
    # By default a refresh waits up to 10 s for merges of small segments, and a round waits for its refresh.
    "merge_on_flush.enabled": False,
    # The default order of the list, environment by environment: a small environment is read without the large ones.
    "sort.field": ["environmentId", "createdAt", "id"],
    "sort.order": ["asc", "desc", "desc"],
    "analysis": ANALYSIS,
}

MAPPING_DIGEST = hashlib.sha256(msgspec.json.encode([ANALYSIS, MAPPING, INDEX_SETTINGS], order="sorted")).hexdigest()
"""Digest of the declaration. Stored with each generation, to recognize a generation of another declaration."""


def index_body(shards: int, replicas: int | None) -> dict[str, Any]:
    """Return the settings and the mapping of a new index.

    The documents of an environment are in the shards named by the environment's routing value (`naming.routing`). With
    several shards a request without routing is refused, because its document would go to the wrong shard.
    """
    settings = INDEX_SETTINGS | {"number_of_shards": shards} | replica_settings(replicas)
    if shards == 1:
        return {"settings": settings, "mappings": MAPPING}
    # By default OpenSearch prepares shards for splits: an environment would be in neighbouring parts of one shard.
    partitions = {"routing_partition_size": shards_of_environment(shards), "number_of_routing_shards": shards}
    return {"settings": settings | partitions, "mappings": MAPPING | {"_routing": {"required": True}}}


def replica_settings(replicas: int | None) -> dict[str, Any]:
    """Return the settings of an index with so many replicas; with None, one replica where a second node exists."""
    if replicas is None:
        return {"auto_expand_replicas": "0-1"}
    return {"auto_expand_replicas": False, "number_of_replicas": replicas}


def shards_of_environment(shards: int) -> int:
    """Return the number of shards with the documents of an environment: the square root, rounded.

    Every list and search of an environment asks all of them, and a large environment can grow over all of them
    (`docs/decisions/0025-shards.md`).
    """
    return round(math.sqrt(shards))
