"""Every field of `CONSUMER_FIELDS` is in the types and statements that are written by hand."""

import msgspec
import pytest

from api.consumers.schemas import ConsumerCreate, ConsumerUpdate
from api.consumers.writes import SETTABLE
from infra.fields import CONSUMER_FIELDS, ConsumerField
from infra.imports import rules
from infra.imports.columns import Columns
from infra.imports.exported import Environment
from infra.index.documents import Consumer, ConsumerRow

FIELDS = [*CONSUMER_FIELDS, ConsumerField("metadata", "metadata", lambda value, _: value)]


def names(kind: type[msgspec.Struct]) -> dict[str, str]:
    return {field.name: field.encode_name for field in msgspec.structs.fields(kind)}


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_field_has_its_name_and_its_column_in_each_type(field: ConsumerField) -> None:
    for kind in (ConsumerCreate, ConsumerUpdate, Consumer):
        assert names(kind)[field.column] == field.name
    assert field.column in ConsumerRow._fields


def test_requests_set_these_fields_and_no_others() -> None:
    columns = {field.column for field in FIELDS}
    assert set(names(ConsumerCreate)) == set(names(ConsumerUpdate)) == columns
    assert set(SETTABLE) == columns | {"email_as_sent"}


@pytest.mark.parametrize("kind", [rules.CONSUMERS, rules.ORDERS])
def test_importer_has_a_rule_for_each_column(kind: rules.Rules) -> None:
    assert kind.rules(Environment(1, "USD", "US"), Columns([], [])).keys() == kind.columns.keys()
