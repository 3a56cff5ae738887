"""Write the documents, the index and the bodies of searches of a release into a file, for `answers.py`.

Runs as a script in the folder of the release: `python answers_of.py FILE CONSUMERS`.
"""

import pickle
import sys
from decimal import Decimal
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from api.consumers import query
from infra import emails
from infra.filters.clauses import Clause, clause
from infra.filters.conditions import Condition, Operator
from infra.index import documents, mapping
from infra.index.documents import ConsumerRow
from infra.local.sample.consumers import Consumer
from tests.bench.name_forms import name_forms
from tests.filter_expressions import EMAILS, NAMES, NUMBERS, PHONES
from tests.relevance.generated_consumers import generated_consumers
from tests.relevance.golden import cases, golden_consumers

ENVIRONMENT, REGION, SEED = 7, "GB", 20_240_105
KINDS = ("whole", "name", "address", "phone", "typo", "not", "among")
METADATA = ('{"note": "Zoë’s friend", "n": 5}', '{"note": "vip customer", "tags": ["a*b?c\\\\d", "x"]}', None)
FIELDS = ("email", "phone", "fullName", "externalId", "metadata.note", "metadata.tags")
OPERATORS: tuple[Operator, ...] = ("EQUALS", "NOT_EQUALS", "CONTAINS", "NOT_CONTAINS")
LONG = 200
"""OpenSearch refuses some longer patterns."""
Body = tuple[str, dict[str, Any]]


def row(number: int, consumer: Consumer) -> ConsumerRow:
    return ConsumerRow(
        consumer.id,
        ENVIRONMENT,
        1,
        *emails.columns(consumer.email),
        consumer.phone,
        consumer.full_name,
        METADATA[number % len(METADATA)],
        consumer.external_id,
        0,
        Decimal(0),
        consumer.created_at if number % 2 else None,
        consumer.created_at,
        consumer.created_at,
    )


def texts(people: list[Consumer]) -> list[str]:
    """Return the golden queries, and parts of the values of some consumers."""
    random = Random(SEED)
    found = [case.text for kind in KINDS for case in cases(kind)] + [case.text for _, case in name_forms()]
    for person in random.sample(people, len(people) // 10):
        for value in filter(None, (person.full_name, person.email, person.phone, person.external_id)):
            begin = random.randrange(len(value))
            found += [value, value[begin : begin + random.randint(2, 12)], value[: random.randint(2, 12)]]
    return [text for text in dict.fromkeys(found) if len(text.strip()) > 1]


def bodies(people: list[Consumer]) -> list[Body]:
    order, ranked = query.list_order(ENVIRONMENT, "createdAt", "desc"), query.search_order()
    searches: list[Body] = []
    for text in texts(people):
        rows = query.list_query(ENVIRONMENT, search=text, region=REGION)
        explained = query.search_query(ENVIRONMENT, text, {}, region=REGION, explain=True)
        searches.append((f"search={text}", query.page(rows, order, 99, None)))
        searches.append((f"q={text}", query.page(explained, ranked, 99, None)))
    return searches + [
        (repr(condition), query.page(query.list_query(ENVIRONMENT, conditions=[selected]), order, 99, None))
        for condition, selected in conditions()
    ]


def conditions() -> list[tuple[Condition, Clause]]:
    values = dict.fromkeys(
        [*NAMES, *EMAILS, *PHONES, *NUMBERS, "o", "om", "example", "zoe", "gold", "b?c", "c\\d", "("]
    )
    made = [Condition(field, name, (value,)) for field in FIELDS for value in values for name in OPERATORS]
    return [(condition, clause(condition, REGION)) for condition in made if len(condition.values[0]) < LONG]


def main() -> None:
    golden = golden_consumers()
    people = [
        *golden,
        *islice(generated_consumers(golden), int(sys.argv[2])),
        *(case.expected for _, case in name_forms()),
    ]
    sources = [(person.id, documents.document(row(*each), ())) for each in enumerate(people) for person in [each[1]]]
    body = {"settings": mapping.INDEX_SETTINGS | {"number_of_replicas": 0}, "mappings": mapping.MAPPING}
    Path(sys.argv[1]).write_bytes(pickle.dumps((body, sources, bodies(people))))


if __name__ == "__main__":
    main()
