"""Endpoints: the declarations in signatures and options of the routes, as the source of the OpenAPI document."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, get_args, get_origin

from litestar import Response
from litestar.handlers import HTTPRouteHandler
from litestar.routes import BaseRoute, HTTPRoute

from api.drafts import BatchDraft
from api.openapi.texts import TAGS
from api.route_options import RouteOptions, find_options
from api.validation import Input
from infra.index.documents import Consumer

METHODS = ("GET", "POST", "PUT", "DELETE")


class Endpoint(NamedTuple):
    """A method of a path."""

    path: str
    method: str
    handler: HTTPRouteHandler

    @property
    def resource(self) -> str:
        """The resource in the plural, as in the path."""
        return self.path.removeprefix("/api/v1").split("/")[1]

    @property
    def name(self) -> str:
        """The operation id: unique and stable, because client libraries are generated from the document."""
        name = self.handler.fn.__name__
        return _camel(f"{self.resource}_{name}" if self.is_authenticated else name)

    @property
    def options(self) -> RouteOptions | None:
        """None for a route without authentication."""
        return find_options(self.handler)

    @property
    def is_authenticated(self) -> bool:
        return self.options is not None

    @property
    def is_for_operators(self) -> bool:
        return self.options is not None and self.options.for_operators

    @property
    def is_lookup(self) -> bool:
        return self.path.endswith("/lookup")

    @property
    def is_feed(self) -> bool:
        """Whether the answer is a page of a feed of changes."""
        return self.path.endswith("/changes")

    @property
    def is_write(self) -> bool:
        return self.options is not None and self.options.is_write

    @property
    def takes_key(self) -> bool:
        """Whether a request may have an `Idempotency-Key`."""
        return self.is_write and self.method != "GET"

    @property
    def replays_consumers(self) -> bool:
        """Whether a stored answer has data of consumers. The deletion of a consumer stores its answer without data."""
        is_deletion = self.method == "DELETE" and self.is_of_consumer
        return self.takes_key and self.resource in {"consumers", "orders"} and not is_deletion

    @property
    def is_question(self) -> bool:
        """Whether the answer is that of a live question."""
        return self.resource == "analytics" and self.is_from_index

    @property
    def is_from_index(self) -> bool:
        return self.options is not None and self.options.from_index

    @property
    def tags(self) -> list[str]:
        return sorted(self.handler.resolve_tags())

    @property
    def path_names(self) -> list[str]:
        """The names of the path's parameters, in camel case as all names of the API."""
        return [_camel(part[1:-1]) for part in self.path.split("/") if part.startswith("{")]

    @property
    def documented_path(self) -> str:
        """The path with the names of the parameters in camel case."""
        return re.sub(r"\w+(?=})", lambda name: _camel(name[0]), self.path)

    @property
    def parameters(self) -> type[Input] | None:
        """The type of the query."""
        parameters: type[Input] | None = self._annotation("parameters")
        return parameters

    @property
    def body(self) -> Any:
        """The type of the body: a struct, or a list of structs for a batch; None if the endpoint takes no body.

        The body of a GET is not documented, because OpenAPI gives it no meaning, and generators refuse it.
        """
        annotation = None if self.method == "GET" else self._annotation("payload")
        draft = get_origin(annotation)
        if draft is None:
            return annotation
        [item] = get_args(annotation)
        return list[item] if draft is BatchDraft else item  # type: ignore[valid-type]  # a type known at run time

    @property
    def inputs(self) -> list[type[Input]]:
        """The types of the query and of the body; of a batch, the type of an item."""
        return [struct for struct in (self.parameters, self.body_item) if struct]

    @property
    def body_item(self) -> Any:
        """The type of the body or, of a batch, the type of an item."""
        return _item(self.body)

    @property
    def answer_item(self) -> Any:
        """The type of the answer or, of a batch, the type of an item."""
        return _item(self.answer)

    @property
    def answer(self) -> Any:
        """The type of the answer with the handler's own status."""
        annotation = self.handler.parsed_fn_signature.return_type.annotation
        return get_args(annotation)[0] if get_origin(annotation) is Response else annotation

    @property
    def further_answers(self) -> dict[int, Any]:
        """The types of further answers by status, without errors."""
        return {status: spec.data_container for status, spec in (self.handler.responses or {}).items()}

    @property
    def is_of_consumer(self) -> bool:
        """Whether the answer is a single consumer: only consumers have an entity tag."""
        return isinstance(self.answer, type) and issubclass(self.answer, Consumer)

    @property
    def is_download(self) -> bool:
        """Whether the answer is a file, of which a range can be read."""
        return self.is_authenticated and self.answer is bytes

    def _annotation(self, parameter: str) -> Any:
        definition = self.handler.parsed_fn_signature.parameters.get(parameter)
        return definition and definition.annotation


def _camel(name: str) -> str:
    first, *words = name.split("_")
    return first + "".join(map(str.capitalize, words))


def _item(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is list else annotation


def in_reading_order(endpoint: Endpoint) -> tuple[Any, ...]:
    """Return a key to sort endpoints for a reader: by tag; collections before single objects, reads before writes."""
    [tag] = endpoint.tags
    rest = endpoint.path.removeprefix("/api/v1").split("/")[2:]
    kinds = [part.startswith("{") for part in rest]
    return list(TAGS).index(tag), "batch" in rest, bool(rest), kinds, rest, METHODS.index(endpoint.method)


def endpoints(routes: Sequence[BaseRoute]) -> Iterator[Endpoint]:
    """Yield the documented endpoints of an application."""
    for route in routes:
        if isinstance(route, HTTPRoute):
            for handler in route.route_handlers:
                if handler.resolve_include_in_schema():
                    for method in sorted(handler.http_methods):
                        yield Endpoint(route.path_format, method, handler)
