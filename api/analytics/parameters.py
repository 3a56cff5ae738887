"""Parameters of live questions: parts of the body in the query of the request, as OpenSearch has them."""

from typing import Any

import msgspec

from api.analytics.bodies import Form
from api.analytics.schemas import CountParameters, LiveParameters
from api.errors import Fault, invalid
from api.parsing import parse
from api.turns import Turns

WORDS = {"true": True, "false": False}


async def body_of(
    payload: msgspec.Struct, parameters: CountParameters | LiveParameters, turns: Turns
) -> dict[str, Any]:
    """Return the body of a question: as sent, or as the parameter `source` has it, and with the other parameters.

    Raises:
        Problem: 400 for a body beside `source`, or a `source` that is no JSON object.
    """
    body = _sent(payload)
    if parameters.source is not None:
        if body:
            raise invalid(Fault("source", "Not allowed beside a body"))
        body = await turns.run(parse(parameters.source.encode(), "source"))
        if not isinstance(body, dict):
            raise invalid(Fault("source", "Must be a JSON object"))
    return body | _parts(parameters) if isinstance(parameters, LiveParameters) else body


def form_of(parameters: LiveParameters) -> Form:
    return Form(total_as_number=parameters.total_as_number is True, typed_keys=parameters.typed_keys is True)


def _parts(parameters: LiveParameters) -> dict[str, Any]:
    tracked = parameters.track_total_hits
    parts = {
        "size": parameters.size,
        "from": parameters.from_,
        "sort": parameters.sort and [_sort(field) for field in parameters.sort.split(",")],
        "track_total_hits": tracked and (WORDS[tracked] if tracked in WORDS else int(tracked)),
        "_source": _shown(parameters.shown_fields or parameters.shown),
    }
    return {name: value for name, value in parts.items() if value is not None}


def _sort(text: str) -> Any:
    name, colon, order = text.partition(":")
    return {name: order} if colon else name


def _shown(text: str | None) -> Any:
    return text and WORDS.get(text, text.split(","))


def _sent(value: msgspec.Struct) -> dict[str, Any]:
    """Return the members that were sent, by their names in the request."""
    names = zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
    members = {encoded: getattr(value, name) for name, encoded in names}
    return {name: member for name, member in members.items() if member is not msgspec.UNSET}
