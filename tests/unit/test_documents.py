"""Documents built from rows: golden cases."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.index import documents, mapping
from infra.index.analysis import TEXT_END
from infra.index.documents import ConsumerRow
from infra.index.terms import number_term, path_code, text_term

ROW = ConsumerRow(
    id="cons_01HZXW0000000000000000000A",
    environment_id=7,
    version=3,
    email="José@example.com",
    email_as_sent=None,
    phone="+442079460958",
    full_name="José",
    metadata='{"b": 1.10, "a": 12345678901234567890}',
    external_id="X1",
    total_orders=2,
    total_order_value=Decimal("1234.5000"),
    last_order_at=datetime(2024, 11, 1, 10, tzinfo=UTC),
    created_at=datetime(1, 1, 2, 3, 4, 5, 6000, tzinfo=UTC),
    updated_at=datetime(2024, 11, 1, 10, 0, 0, 999999, tzinfo=UTC),
)
NOBODY = ROW._replace(
    email=None,
    email_as_sent=None,
    phone=None,
    full_name=None,
    metadata=None,
    external_id=None,
    total_orders=0,
    total_order_value=Decimal(0),
    last_order_at=None,
)
SHOWN = (
    '{"id":"cons_01HZXW0000000000000000000A","email":"José@example.com","phone":"+442079460958","fullName":"José",'
    '"metadata":{"b": 1.10, "a": 12345678901234567890},"externalId":"X1","totalOrders":2,"totalOrderValue":1234.5,'
    '"lastOrderAt":"2024-11-01T10:00:00.000Z","createdAt":"0001-01-02T03:04:05.006Z",'
    '"updatedAt":"2024-11-01T10:00:00.999Z"}'
)


def test_consumer_is_shown_byte_for_byte() -> None:
    assert documents.consumer_json(ROW).decode() == SHOWN


def test_document_has_the_response_row_and_the_search_values() -> None:
    text = documents.document(ROW, ["aud_1"])
    assert text.startswith(b'{"row":' + SHOWN.encode() + b",")
    document = msgspec.json.decode(text)
    del document["row"]
    codes = [path_code("metadata.b"), path_code("metadata.a")]
    assert document == {
        "id": ROW.id,
        "idTime": 1_717_915_615_232,
        "environmentId": "7",
        "version": 3,
        "deleted": False,
        "email": "josé@example.com",
        "emailParts": "jose@ example@ com@",
        "phone": "+442079460958",
        "phoneDigits": ["442079460958", "02079460958", "2079460958"],
        "phoneReversed": ["859064970244"],
        "fullName": "José",
        "nameOrder": "7\ufffeJosé",
        "words": "José",
        "nameRuns": None,
        "forms": [],
        "formStarts": [],
        "externalId": "X1",
        "totalOrders": 2,
        "totalOrderValue": 12_345_000,
        "lastOrderAt": "2024-11-01T10:00:00.000Z",
        "createdAt": "0001-01-02T03:04:05.006Z",
        "updatedAt": "2024-11-01T10:00:00.999Z",
        "audienceIds": ["aud_1"],
        "emailDomain": "example.com",
        "phoneCountry": "GB",
        "attributes": ["b\x001.10", "a\x0012345678901234567890"],
        "texts": TEXT_END.join(
            [*(f"!{code}" for code in ["e", "p", "n", "x", *codes]), text_term("email", "josé@example.com"), "njosé"]
        ),
        "numbers": [
            number_term("metadata.b", Decimal("1.1")),
            number_term("metadata.a", Decimal(12345678901234567890)),
        ],
        "allContents": "\ufdd0~ejose@example.com\ufdd0p+442079460958\ufdd0~njose\ufdd0xx1",
    }


def test_nulls_of_a_document_are_present() -> None:
    document: dict[str, Any] = json.loads(documents.document(NOBODY, []))
    assert [name for name, value in document.items() if value is None] == [
        *("email", "emailParts", "phone", "fullName", "nameOrder", "words", "nameRuns", "externalId", "lastOrderAt"),
        *("emailDomain", "phoneCountry", "allContents"),
    ]
    assert document.keys() <= mapping.MAPPING["properties"].keys()


@pytest.mark.parametrize(
    ("value", "shown"),
    [("0", "0"), ("0.0000", "0"), ("1234.5000", "1234.5"), ("0.3", "0.3"), ("0.0001", "0.0001"), ("100", "100"),
     ("90000000000000.0000", "90000000000000"), ("89999999999999.9999", "89999999999999.9999")],
)  # fmt: skip
def test_money_is_shown_exactly_and_indexed_as_integer(value: str, shown: str) -> None:
    row = ROW._replace(total_order_value=Decimal(value))
    assert f'"totalOrderValue":{shown},'.encode() in documents.consumer_json(row)
    indexed = msgspec.json.decode(documents.document(row, []))["totalOrderValue"]
    assert indexed == Decimal(value) * 10_000


@pytest.mark.parametrize(
    ("phone", "digits"),
    [
        ("+12025550143", ["12025550143", "2025550143"]),
        ("+442079460958", ["442079460958", "02079460958", "2079460958"]),
        ("123-45 x9", ["123459", "12345"]),
        (
            "+442079460958 x12",
            ["44207946095812", "0207946095812", "207946095812", "442079460958", "02079460958", "2079460958"],
        ),
        ("٠٢٠ ٧٩٤٦ ext. ١٢", ["020794612", "0207946"]),
        ("0044 20 7946 0958", ["00442079460958", "442079460958"]),
        ("#31#5551234", ["315551234"]),
        ("+999", ["999"]),
    ],
)
def test_phone_is_found_by_its_international_and_national_digits(phone: str, digits: list[str]) -> None:
    assert documents.phone_digits(phone) == digits


@given(st.lists(st.text("01239", min_size=1, max_size=6), max_size=5).map(lambda given: list(dict.fromkeys(given))))
@settings(max_examples=1000)
def test_phone_is_found_by_each_of_its_suffixes(digits: list[str]) -> None:
    """A suffix matches as a prefix of the reversed number, or as a whole number."""
    kept = documents.reversed_digits(digits)
    indexed = {*digits, *(form[:length][::-1] for form in kept for length in range(1, len(form) + 1))}
    assert indexed == {form[begin:] for form in digits for begin in range(len(form))}


@pytest.mark.parametrize("name", ["สมชาย ใจดี", "ナカムラ", "王子涵", "ສົມ", "វិចិត្រ", "မောင်", "Ｙ王"])
def test_names_in_scripts_without_spaces_are_indexed_in_runs(name: str) -> None:
    assert runs(name) == name


@pytest.mark.parametrize("name", ["Jo", "José", "Ωμέγα", "Анна", "אבי", "محمد", "आशा", ""])
def test_names_in_other_scripts_are_not_indexed_in_runs(name: str) -> None:
    assert runs(name) is None


def runs(name: str) -> str | None:
    name_runs: str | None = json.loads(documents.document(ROW._replace(full_name=name), []))["nameRuns"]
    return name_runs
