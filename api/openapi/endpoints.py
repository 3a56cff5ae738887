"""Endpoints: the declarations in signatures and options of the routes, as the source of the OpenAPI document."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, get_args, get_origin

from litestar import Response
from litestar.handlers import HTTPRouteHandler
from litestar.routes import BaseRoute, HTTPRoute

from api.drafts import BatchDraft
from api.route_options import RouteOptions, find_options
from api.validation import Input
from infra.index.documents import Consumer


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
        words = self.handler.fn.__name__.split("_")
        if self.is_authenticated:
            words = [self.resource, *words]
        return words[0] + "".join(word.capitalize() for word in words[1:])

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
    def is_write(self) -> bool:
        return self.options is not None and self.options.is_write

    @property
    def is_from_index(self) -> bool:
        return self.options is not None and self.options.from_index

    @property
    def has_path_parameter(self) -> bool:
        return "{" in self.path

    @property
    def parameters(self) -> type[Input] | None:
        """The type of the query."""
        parameters: type[Input] | None = self._annotation("parameters")
        return parameters

    @property
    def body(self) -> Any:
        """The type of the body: a struct, or a list of structs for a batch; None if the endpoint takes no body."""
        annotation = self._annotation("payload")
        draft = get_origin(annotation)
        if draft is None:
            return annotation
        [item] = get_args(annotation)
        return list[item] if draft is BatchDraft else item  # type: ignore[valid-type]  # a type known at run time

    @property
    def inputs(self) -> list[type[Input]]:
        """The types of the query and of the body; of a batch, the type of an item."""
        body = get_args(self.body)[0] if get_origin(self.body) is list else self.body
        return [struct for struct in (self.parameters, body) if struct]

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

    def _annotation(self, parameter: str) -> Any:
        definition = self.handler.parsed_fn_signature.parameters.get(parameter)
        return definition and definition.annotation


def endpoints(routes: Sequence[BaseRoute]) -> Iterator[Endpoint]:
    """Yield the documented endpoints of an application."""
    for route in routes:
        if isinstance(route, HTTPRoute):
            for handler in route.route_handlers:
                if handler.resolve_include_in_schema():
                    for method in sorted(handler.http_methods):
                        yield Endpoint(route.path_format, method, handler)
