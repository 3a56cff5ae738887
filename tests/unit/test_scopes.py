"""The scopes declared by routes and types cover the data that the answers show (contract.md §1)."""

from collections.abc import Iterator
from typing import Any, get_args

import msgspec

from api.audiences.schemas import Audience, AudienceCount, AudienceReference, MembersChanged
from api.orders.schemas import Order
from infra.index.documents import Consumer
from tests.endpoints import authenticated_endpoints, merchant_endpoints

RESOURCES: dict[type[msgspec.Struct], str] = {
    Consumer: "consumers",
    Order: "orders",
    **dict.fromkeys((Audience, AudienceReference, AudienceCount, MembersChanged), "audiences"),
}

FOR_ANALYSTS = {"analytics", "exports"}
"""Resources without personal data, and without writes of the data."""


def shown_resources(annotation: Any, member: str | None = None) -> Iterator[tuple[str, str | None]]:
    """Yield the resources in an answer, each with the optional member that shows it; None: always shown."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        yield from ((name, member) for struct, name in RESOURCES.items() if issubclass(annotation, struct))
        for field in msgspec.structs.fields(annotation):
            is_optional = msgspec.UnsetType in get_args(field.type)
            yield from shown_resources(field.type, field.encode_name if is_optional else member)
    for argument in get_args(annotation):
        yield from shown_resources(argument, member)


def test_reads_require_the_scopes_of_all_shown_data() -> None:
    for endpoint in merchant_endpoints():
        assert endpoint.options
        if endpoint.method != "GET":
            continue
        if endpoint.resource in FOR_ANALYSTS:
            assert endpoint.options.scopes == ("read:analytics",)
            continue
        shown = set(shown_resources(endpoint.answer))
        assert shown, endpoint.path
        field_scopes = {
            (required.name(struct), str(required.scope))
            for struct in endpoint.inputs
            for required in struct.field_scopes
        }
        for resource, member in shown:
            if member is None:
                assert f"read:{resource}" in endpoint.options.scopes, endpoint.path
            else:
                assert (f"include={member}", f"read:{resource}") in field_scopes, endpoint.path


def test_writes_require_the_scope_of_the_written_resource_alone() -> None:
    for endpoint in merchant_endpoints():
        assert endpoint.options
        if endpoint.method == "GET":
            continue
        if endpoint.resource in FOR_ANALYSTS:
            assert endpoint.options.scopes == ("read:analytics",)
            continue
        assert f"write:{endpoint.resource}" in endpoint.options.scopes, endpoint.path
        assert {resource for resource, _ in shown_resources(endpoint.answer)} == {endpoint.resource}, endpoint.path


def test_fields_that_select_by_other_data_require_its_scope() -> None:
    declared = {
        (f"{endpoint.method} {endpoint.path.removeprefix('/api/v1')}", required.name(struct), required.scope)
        for endpoint in merchant_endpoints()
        for struct in endpoint.inputs
        for required in struct.field_scopes
        if required.field != "include"
    }
    assert declared == {
        ("GET /consumers", "audienceId", "read:audiences"),
        ("GET /audiences/{audience_id}/members", "audienceId", "read:audiences"),
        ("POST /exports", "personal", "read:consumers"),
        ("POST /orders", "consumer", "read:consumers"),
        ("POST /orders/batch", "consumer", "read:consumers"),
        ("POST /orders/upsert", "consumer", "read:consumers"),
        ("POST /orders/batch/upsert", "consumer", "read:consumers"),
        *((f"{route}", field, "read:consumers") for route in RULE_WRITES for field in ("rules", "filter")),
    }
    for endpoint in merchant_endpoints():
        if endpoint.path.endswith("/members"):
            assert endpoint.options
            assert "read:consumers" in endpoint.options.scopes, endpoint.method


RULE_WRITES = ("POST /audiences", "PUT /audiences/{audience_id}")


def test_only_the_operations_are_for_operators() -> None:
    for endpoint in authenticated_endpoints():
        assert endpoint.options
        assert endpoint.is_for_operators == (endpoint.resource == "ops"), endpoint.path
        assert bool(endpoint.options.scopes) != endpoint.is_for_operators, endpoint.path
