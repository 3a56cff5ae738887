"""The cases of `tests.bench.reads`: each question as API request, as search request to OpenSearch, and as SQL."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, get_args
from urllib.parse import urlencode

import msgspec
import sqlalchemy as sa

from api import search
from api.audiences.rules import Rule
from api.consumers import fetch, query
from api.consumers.fetch import PageRequest
from api.consumers.query import Direction, Order, SortField
from api.consumers.schemas import ListParameters
from api.consumers.windows import FirstPages
from api.cursors import Cursors, Position
from api.pages import Paging
from infra.filters import language
from infra.filters.clauses import Clause, clause
from infra.filters.stored_rules import expression
from infra.index import naming
from tests.bench import trigrams, wire
from tests.bench.shop import DYNAMIC, Environment, Shop
from tests.bench.trigrams import Statement
from tests.seals import stored_seal

SIZE = 20
LARGE = 50_000
"""From this number of consumers on, a sample of 1 in 1,024 is enough to find the middle of an order; else 1 in 32."""
SEARCH_PARAMETERS = {"allow_partial_search_results": "false"}
SORTED: Sequence[tuple[SortField, Direction]] = (
    *(("createdAt", "desc"), ("totalOrderValue", "desc"), ("totalOrderValue", "asc")),
    *(("fullName", "asc"), ("fullName", "desc")),
)
"""Orders of filtered lists."""
NAMES = ("jose", "smith", "emily", "garcia", "oliver", "muller", "kowalski", "zoe")
FILTERS = {
    "metadata equality": ("metadata.loyalty.tier:gold", "metadata.country:IE", "metadata.source:store"),
    "totalOrderValue range": ("totalOrderValue:100..200", "totalOrderValue:>=1500", "totalOrderValue:350..360"),
    "fullName contains": ("fullName:~son", "fullName:~arc", "fullName:~ill"),
}


class Question(NamedTuple):
    """A question as bytes to send, and as SQL if PostgreSQL alone can answer it."""

    api: bytes
    raw: Sequence[bytes]
    sql: Statement | None = None


class Case(NamedTuple):
    """Questions of a kind, asked in turn; if `busy`, also measured with many clients."""

    name: str
    questions: Sequence[Question]
    busy: bool = False


class QuestionBuilder:
    """Builds questions about an environment."""

    def __init__(self, shop: Shop, environment: Environment) -> None:
        self._shop, self.environment = shop, environment
        self._alias = naming.read_alias(shop.prefix)

    def question(
        self, path: str, parameters: dict[str, Any], *bodies: Clause, sql: Statement | None = None
    ) -> Question:
        target = f"/api/v1/consumers{path}?{urlencode(parameters)}"
        api = wire.get(self._shop.service.url, target, self.environment.key)
        return Question(api, [*map(self.search, bodies)], sql)

    def search(self, body: Clause) -> bytes:
        path = f"/{self._alias}/_search?{urlencode(SEARCH_PARAMETERS)}"
        return wire.post(self._shop.database.settings.opensearch_url, path, msgspec.json.encode(body))

    def hits(self, body: Clause) -> list[Any]:
        response = self._shop.database.search.search(index=self._alias, body=body, request_timeout=120)
        return list(response["hits"]["hits"])

    def middle(self, order: Order) -> Position:
        """Return the position of a row near the middle of an order."""
        some = {"wildcard": {"id": "*00" if self._shop.size > LARGE else "*0"}}
        rows = query.list_query(self.environment.id, conditions=[some])
        hits = self.hits({"query": rows, "sort": order.clauses, "size": 10_000, "_source": False})
        return Position(hits[len(hits) // 2]["sort"][len(order.prefix) :])

    def page(self, sort_by: SortField, direction: Direction, *, deep: bool = False, backward: bool = False) -> Question:
        """Build a page of the list at the beginning (backward: at the end) or in the middle."""
        order = query.list_order(self.environment.id, sort_by, direction)
        list_parameters = ListParameters(sort_by=sort_by, sort_dir=direction)
        seal = stored_seal(self._shop.database.engine, self.environment.id)
        cursors = Cursors(seal, "list", list_parameters.list_parameters(), self.environment.id)
        rows, paging = query.list_query(self.environment.id), Paging(SIZE, backward=backward)
        request = PageRequest(rows, order, paging, cursors)
        parameters: dict[str, Any] = {"sortBy": sort_by, "sortDir": direction, "last" if backward else "first": SIZE}
        position = None
        if deep:
            # A walk reaches a page in the middle by the cursor of the page before.
            position = self.end(request, self.middle(order))
            parameters["before" if backward else "after"] = cursors.encode(position.values, spacing=position.spacing)
        values = position.values[: order.position_length] if position else None
        sql = trigrams.page(self.environment.id, sort_by, direction, values, backward=backward)
        return self.question("", parameters, self.body(request, position), sql=sql)

    def end(self, request: PageRequest, position: Position) -> Position:
        """Return the position at which the page after a position ends."""
        body = query.page(request.rows, request.order, SIZE, position.values, backward=request.paging.backward)
        *_, end = fetch.ends(request, None, self.found(body), SIZE, is_large=True)
        return end

    def body(self, request: PageRequest, position: Position | None = None) -> Clause:
        """Return the body of the search that the API sends for a page, if it read the page before as well."""
        walk = request.walk
        assert walk
        values = position.values[: request.order.position_length] if position else None
        body = query.page(request.rows, request.order, SIZE, values, backward=request.paging.backward)
        if position:
            searched = fetch.windows_after(walk, position)
        else:
            memory, hits = FirstPages(), self.found(body)
            last = fetch.end(request.order, walk, hits, SIZE) if len(hits) > SIZE else None
            memory.learn(b"", walk, SIZE, last, is_unfiltered=False)
            searched = memory.windows(b"", walk, SIZE)
        windowed = (query.within(body, window) for window in searched)
        return next((each for each in windowed if len(self.found(each)) > SIZE), body)

    def found(self, body: Clause) -> list[fetch.Hit]:
        """Return the hits of a search as the API has them."""
        response = self._shop.database.search.search(index=self._alias, body=body, request_timeout=120)
        return fetch.decode(msgspec.json.encode(response)).hits.hits

    def filtered(
        self,
        parameters: dict[str, Any],
        sql: Statement | None = None,
        *,
        counted: bool = False,
        order: tuple[SortField, Direction] = ("createdAt", "desc"),
        **filters: Any,
    ) -> Question:
        """Build the first page of a filtered list."""
        rows = query.list_query(self.environment.id, **filters)
        seal = stored_seal(self._shop.database.engine, self.environment.id)
        cursors = Cursors(seal, "list", {}, self.environment.id)
        request = PageRequest(rows, query.list_order(self.environment.id, *order), Paging(SIZE), cursors)
        bodies = [self.body(request), *([query.count(rows)] if counted else [])]
        parameters = parameters | dict(zip(("sortBy", "sortDir"), order, strict=True))
        return self.question("", parameters, *bodies, sql=sql)

    def first_hits(self, q: str | None = None, *, typo: bool = False, **exact: str) -> Question:
        """Build the first page of a search."""
        rows = query.search_query(self.environment.id, q, exact, region=None)  # type: ignore[arg-type]
        parameters = {"q": q} if q else exact
        if q is None:
            sql = trigrams.equal(self.environment.id, exact)
        else:
            sql = (trigrams.similar if typo else trigrams.every_word)(self.environment.id, q)
        return self.question("/search", parameters, query.page(rows, query.search_order(), SIZE, None), sql=sql)

    def including(self) -> Question:
        """Build the first page of the list with audiences, which takes a second search."""
        order = query.list_order(self.environment.id, "createdAt", "desc")
        body = query.page(query.list_query(self.environment.id), order, SIZE, None)
        ids = [hit["_id"] for hit in self.hits(body)[:SIZE]]
        audiences = search.named_clauses(self.environment.id, ids, self.rules())
        return self.question("", {"include": "audiences"}, body, audiences)

    def rules(self) -> dict[str, Clause]:
        statement = sa.text("SELECT id, rules::text FROM audiences WHERE environment_id = :e AND type = 'DYNAMIC'")
        with self._shop.database.engine.connect() as connection:
            rows = connection.execute(statement, {"e": self.environment.id}).all()
        return {name: clause(expression(msgspec.json.decode(rules, type=list[Rule])), None) for name, rules in rows}


def cases(shop: Shop) -> Iterator[Case]:
    large, small = QuestionBuilder(shop, shop.large), QuestionBuilder(shop, shop.small)
    for sort_by in get_args(SortField):
        for direction in get_args(Direction)[::-1]:
            name, default = f"list {sort_by} {direction}", (sort_by, direction) == ("createdAt", "desc")
            busy = default or (sort_by, direction) == ("totalOrderValue", "desc")
            yield Case(name, [large.page(sort_by, direction)], busy)
            yield Case(f"{name}, deep", [large.page(sort_by, direction, deep=True)], default)
            yield Case(f"{name}, end", [large.page(sort_by, direction, backward=True)])
            yield Case(f"{name}, backward", [large.page(sort_by, direction, deep=True, backward=True)])
    for direction in get_args(Direction)[::-1]:
        yield Case(f"small list createdAt {direction}", [small.page("createdAt", direction)])
        yield Case(f"small list createdAt {direction}, deep", [small.page("createdAt", direction, deep=True)])
    yield from _filtered(large)
    yield from _filtered_and_sorted(large)
    yield from _searches(large)


def _named(large: QuestionBuilder, name: str) -> Question:
    return large.filtered({"search": name}, trigrams.every_word(large.environment.id, name), search=name)


def _filtered(large: QuestionBuilder) -> Iterator[Case]:
    counted = trigrams.counted(large.environment.id)
    yield Case("count=true", [large.filtered({"count": "true"}, counted, counted=True)])
    yield Case("search= a name", [_named(large, name) for name in NAMES], busy=True)
    for name, texts in FILTERS.items():
        conditions = [(text, clause(language.parse(text), None)) for text in texts]
        questions = [
            large.filtered({"filter": text}, trigrams.filtered(large.environment.id, text), conditions=[each])
            for text, each in conditions
        ]
        yield Case(f"filter= {name}", questions, busy=name.startswith("metadata"))
    static, rules = large.environment.static, large.rules()
    members = trigrams.members(large.environment.id, static)
    yield Case(
        "audienceId, stored",
        [large.filtered({"audienceId": static}, members, conditions=[search.in_audience(static)])],
        busy=True,
    )
    dynamic = [
        large.filtered({"audienceId": each}, trigrams.filtered(large.environment.id, text), conditions=[rules[each]])
        for each, text in zip(large.environment.dynamic, DYNAMIC, strict=True)
    ]
    yield Case("audienceId, dynamic", dynamic, busy=True)
    yield Case("include=audiences, 20 dynamic", [large.including()], busy=True)


def _filtered_and_sorted(large: QuestionBuilder) -> Iterator[Case]:
    """Yield lists with each kind of filter in several orders. PostgreSQL has no index for these."""
    tier, static = FILTERS["metadata equality"][0], large.environment.static
    filters: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "search=": ({"search": NAMES[1]}, {"search": NAMES[1]}),
        "filter=": ({"filter": tier}, {"conditions": [clause(language.parse(tier), None)]}),
        "audienceId": ({"audienceId": static}, {"conditions": [search.in_audience(static)]}),
    }
    for name, (parameters, arguments) in filters.items():
        for order in SORTED:
            question = large.filtered(parameters, order=order, **arguments)
            yield Case(f"{name} by {' '.join(order)}", [question])


def _searches(large: QuestionBuilder) -> Iterator[Case]:
    # Rows with all fields, from the whole list.
    some = query.list_query(large.environment.id, conditions=[{"wildcard": {"id": "*00"}}])
    rows = [hit["_source"] for hit in large.hits({"query": some, "size": 10 * SIZE})]
    rows = [row for row in rows if row["phone"] and row["externalId"] and row["email"]][:SIZE]
    emails, phones = ([row[field] for row in rows] for field in ("email", "phone"))
    yield Case("q= a name", [large.first_hits(name) for name in NAMES], busy=True)
    yield Case(
        "q= two words", [large.first_hits(f"{row['fullName']}"[:40]) for row in rows if row["fullName"]], busy=True
    )
    yield Case("q= e-mail part", [large.first_hits(email.partition("@")[0].partition(".")[2]) for email in emails])
    yield Case("q= phone end", [large.first_hits(phone[-6:]) for phone in phones])
    yield Case("q= a typo", [large.first_hits(name[:2] + "x" + name[3:], typo=True) for name in NAMES[1:7]])
    yield Case("email=", [large.first_hits(email=email) for email in emails], busy=True)
    yield Case("phone=", [large.first_hits(phone=phone) for phone in phones])
    yield Case("externalId=", [large.first_hits(externalId=row["externalId"]) for row in rows])
