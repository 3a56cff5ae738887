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

DOCUMENT_VERSION = 6
"""Must rise with every change to the content of documents. A generation keeps the version of the code that built it: a
worker converts documents to the former version (`conversion.py`), and never writes a generation with a higher version.
"""


def _text(analyzer: str, **options: Any) -> dict[str, Any]:
    """Return a text field for matching without scores."""
    return {"type": "text", "analyzer": analyzer, "norms": False, "index_options": "docs", **options}


def _starts(analyzer: str, search_analyzer: str) -> dict[str, Any]:
    """Return the sub-field for the starts of words."""
    return {"starts": _text(analyzer, search_analyzer=search_analyzer)}


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
LOOKED_UP = KEYWORD | {"doc_values": False}
"""A keyword that queries look up, and never sort or group by."""
UNUSED = KEYWORD | {"doc_values": False, "index": False}
"""For the document version before."""
GROUPED = KEYWORD | {"index": False}
"""A keyword that queries sort or group by, and never look up."""

MAPPING: dict[str, Any] = {
    "dynamic": "strict",
    "_meta": {"documentVersion": DOCUMENT_VERSION},
    "properties": {
        "row": {"type": "object", "enabled": False},
        "id": KEYWORD,
        # The time in the id, for ranges of ids.
        "idTime": {"type": "long"},
        "environmentId": KEYWORD,
        "version": {"type": "long", "index": False},
        "deleted": {"type": "boolean", "doc_values": False},
        "deletedAt": {"type": "date", "format": DATE_FORMAT},
        # Indexed for ranges of addresses (`api/consumers/windows.py`).
        "email": KEYWORD,
        # The address from each of its parts on.
        "emailParts": _text("part_ends", search_analyzer="keyword") | {"fields": _starts("part_starts", "keyword")},
        "phone": UNUSED,
        "phoneDigits": LOOKED_UP | {"fields": _starts("digit_starts", "keyword")},
        # Suffix search. A form left out by `reversed_digits` is matched by `phoneDigits`.
        "phoneReversed": LOOKED_UP | {"fields": _starts("digit_starts", "keyword")},
        # Only exists. Queries of the former version search this field too.
        "fullName": _text("nothing") | {"fields": _sorted("icu_collation_keyword", "", "\uffff")},
        # The environment and the name, for ranges of names in an environment (`api/consumers/windows.py`).
        "nameOrder": {"type": "icu_collation_keyword", "doc_values": False},
        "words": _text("words") | {"fields": _starts("word_starts", "words")},
        # Names in scripts without spaces, else null. The tokenizer seldom splits the start of a word like the word.
        "nameRuns": _text("run_starts", search_analyzer="runs"),
        # Further words to find a name by, and parts of addresses, as they are looked up (`names.py`); the key of
        # the whole name (`search_texts.py`).
        "forms": LOOKED_UP,
        "formStarts": _text("form_starts", search_analyzer="keyword"),
        "externalId": LOOKED_UP,
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
        "emailDomain": GROUPED,
        "phoneCountry": KEYWORD,
        "attributes": GROUPED,
        # Terms of conditions (`terms.py`).
        "texts": _text("texts", search_analyzer="keyword"),
        "numbers": LOOKED_UP,
        "allContents": {"type": "wildcard", "doc_values": True, "copy_to": ["texts"]},
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
    # A backslash takes five characters in the pattern of CONTAINS; the default is 1,000.
    "max_regex_length": 2_000,
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
