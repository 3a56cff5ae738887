"""Imports of orders, and their effect on stored orders and totals."""

from collections.abc import Callable
from contextlib import closing
from decimal import Decimal

import pytest

from infra.imports import kinds
from infra.imports.run import Counts, connect, run
from tests.imports.import_environment import ImportEnvironment

MONEY = "external_id, status, amount::text, refunded_amount::text, currency_code, base_amount::text"
NO_TIME = "placedAt: Must be a time in RFC 3339, such as 2024-11-01T10:00:00Z, or a date"
NO_ZONE = (
    "placedAt: '2024-01-01T10:00:00' has no time zone: add an offset such as +01:00, or name the zone of all times by "
    "--timezone"
)
ORDERS = 1_000
TOTALS = "total_orders, total_order_value, last_order_at::text"


@pytest.fixture(autouse=True)
def consumers(shop: ImportEnvironment) -> None:
    shop.consumers("externalId,email\n1,a@shop.example\n2,b@shop.example\n")


def test_order_is_stored_with_the_contracts_defaults(shop: ImportEnvironment) -> None:
    assert shop.orders("consumerExternalId,externalId,amount\n1,A,10.50\n") == Counts(read=1, inserted=1)
    assert shop.stored(MONEY, "orders") == [("A", "COMPLETED", "10.50", "0", "GBP", "10.50")]
    assert shop.stored("total_orders, total_order_value") == [(1, Decimal("10.5")), (0, 0)]


def test_second_import_of_a_file_changes_nothing(shop: ImportEnvironment) -> None:
    text = (
        "consumerEmail,externalId,amount,currencyCode,baseAmount,placedAt,status,refundedAmount,metadata.a\n"
        "A@shop.example,A,10.50,,,2024-02-29,,,\n"
        "b@shop.example,B,3,JPY,0.02,2024-03-01T12:00:00.9999+13:45,REFUNDED,3,x\n"
    )
    assert shop.orders(text) == Counts(read=2, inserted=2)
    before, orders, changes = shop.stored("version"), shop.stored("updated_at, xmin::text", "orders"), shop.changes()
    assert shop.orders(text) == Counts(read=2, unchanged=2)
    assert (shop.stored("version"), shop.stored("updated_at, xmin::text", "orders")) == (before, orders)
    assert shop.changes() == changes
    assert shop.stored("placed_at::text", "orders") == [("2024-02-29 00:00:00+00",), ("2024-02-29 22:15:00.999+00",)]


def test_fields_missing_in_the_file_are_kept(shop: ImportEnvironment) -> None:
    shop.orders(
        "consumerExternalId,externalId,amount,currencyCode,baseAmount,status,refundedAmount,placedAt\n"
        "1,A,10,USD,8,REFUNDED,2,2024-01-01\n1,B,5,,,,,2024-01-01\n"
    )
    assert shop.orders("externalId,status\nA,COMPLETED\nB,\n") == Counts(read=2, updated=1, unchanged=1)
    assert shop.orders("externalId,amount\nB,6\n") == Counts(read=1, updated=1)
    assert shop.stored(MONEY, "orders") == [
        ("A", "COMPLETED", "10", "2", "USD", "8"),
        ("B", "COMPLETED", "6", "0", "GBP", "6"),
    ]
    assert shop.stored(TOTALS)[0] == (2, Decimal("12.4"), "2024-01-01 00:00:00+00")


@pytest.mark.parametrize(
    ("columns", "cells", "reasons"),
    [
        ("consumerExternalId,amount", "1,-0.01", "amount: Must be 0 or more"),
        ("consumerExternalId,amount", "1,1e1x", "amount: Must be a decimal number"),
        ("consumerExternalId,amount", "1,NaN", "amount: Must be a decimal number"),
        ("consumerExternalId,amount", "1,1_000", "amount: Must be a decimal number"),
        ("consumerExternalId,amount", "1,0.00001", "amount: Must have at most 4 decimals and 15 digits"),
        ("consumerExternalId,amount", "1,123456789012.3456", "amount: Must have at most 4 decimals and 15 digits"),
        (
            "consumerExternalId,amount",
            "1,90000000000001",
            "amount: an order's value must be at most 90,000,000,000,000",
        ),
        ("consumerExternalId", "1", "amount: required for a new order"),
        ("amount", "1", "one of consumerId, consumerExternalId, consumerEmail must name a new order's consumer"),
        ("consumerExternalId,amount", "9,1", "consumerExternalId: unknown consumer"),
        ("consumerEmail,amount", "x@shop.example,1", "consumerEmail: unknown consumer"),
        ("consumerId,amount", "cons_x,1", "consumerId: unknown consumer"),
        (
            "consumerExternalId,consumerEmail,amount",
            "1,a@shop.example,1",
            "only one of consumerId, consumerExternalId, consumerEmail can name the consumer",
        ),
        ("consumerExternalId,amount,refundedAmount", "1,1,1.01", "refundedAmount: must be at most amount"),
        ("consumerExternalId,amount,currencyCode", "1,1,EUR", "baseAmount: required, because currencyCode is not GBP"),
        ("consumerExternalId,amount,baseAmount", "1,1,2", "baseAmount: must equal amount in GBP"),
        (
            "consumerExternalId,amount,currencyCode,placedAt",
            "1,1,XYZ,now",
            f"currencyCode: Must be an ISO 4217 currency code, such as USD; {NO_TIME}",
        ),
        (
            "consumerExternalId,amount,status",
            "1,1,completed",
            "status: must be one of CREATED, COMPLETED, CANCELLED, REFUNDED",
        ),
        ("consumerExternalId,amount,placedAt", "1,1,2023-02-29", "placedAt: Must be a time that exists"),
        ("consumerExternalId,amount,placedAt", "1,1,0001-01-01", "placedAt: Must be in the years 1 to 9999"),
        (
            "consumerExternalId,amount,placedAt",
            "1,1,9999-12-31T23:59:59-23:59",
            "placedAt: Must be a time that exists",
        ),
        (
            "consumerExternalId,amount,placedAt",
            "1,1,2024-01-01T10:00:00",
            NO_ZONE,
        ),
    ],
)
def test_invalid_order_is_rejected_with_all_reasons(
    shop: ImportEnvironment, columns: str, cells: str, reasons: str
) -> None:
    assert shop.orders(f"externalId,{columns}\nA,{cells}\n").rejected == 1
    assert shop.errors() == [["2", reasons]]
    assert shop.stored("id", "orders") == []


def test_order_without_external_id_is_rejected(shop: ImportEnvironment) -> None:
    assert shop.orders("consumerExternalId,externalId,amount\n1,,-1\n").rejected == 1
    ((_, reasons),) = shop.errors()
    assert reasons.startswith("amount: Must be 0 or more; externalId: required")


def test_order_cannot_move_to_another_consumer_by_import(shop: ImportEnvironment) -> None:
    shop.orders("consumerExternalId,externalId,amount\n1,A,1\n")
    assert shop.orders("consumerExternalId,externalId,amount\n2,A,2\n").rejected == 1
    assert shop.errors() == [["2", "consumerExternalId: the order exists and keeps its consumer"]]
    assert shop.stored("amount", "orders") == [(1,)]


def test_field_rules_apply_to_stored_and_imported_values(shop: ImportEnvironment) -> None:
    shop.orders(
        "consumerExternalId,externalId,amount,refundedAmount,currencyCode,baseAmount\n"
        "1,A,10,5,,\n1,B,10,,USD,8\n1,C,10,,USD,8\n"
    )
    shop.orders("externalId,amount,currencyCode\nA,4,\nB,11,\nC,,GBP\n")
    assert shop.errors() == [
        ["2", "refundedAmount: must be at most amount"],
        ["3", "baseAmount: required, because currencyCode is not GBP"],
    ]
    assert shop.stored("external_id, base_amount", "orders") == [("A", 10), ("B", 8), ("C", 10)]


@pytest.mark.parametrize("chunk_rows", [1, 2, 3, 5000])
def test_later_row_of_the_same_order_wins(shop: ImportEnvironment, chunk_rows: int) -> None:
    text = (
        "consumerExternalId,externalId,amount,placedAt,status\n1,A,1,2024-01-01,\n2,B,2,2024-01-02,\n"
        "1,A,3,2024-01-03,\n2,A,9,,\n,A,,,CANCELLED\n1,A,4,2024-01-02,COMPLETED\n"
    )
    assert shop.orders(text, chunk_rows=chunk_rows).inserted == 2
    assert [line for line, _ in shop.errors()] == ["5"]
    assert shop.stored("external_id, amount, status", "orders") == [("A", 4, "COMPLETED"), ("B", 2, "COMPLETED")]
    assert shop.stored(TOTALS) == [(1, 4, "2024-01-02 00:00:00+00"), (1, 2, "2024-01-02 00:00:00+00")]


def test_large_file_has_the_result_of_its_rows_in_order(shop: ImportEnvironment) -> None:
    note = "x" * 15_000
    rows = [f"{number % 2 + 1},O{number % 60},{number},{note}" for number in range(90)]
    text = "consumerExternalId,externalId,amount,metadata.note\n" + "\n".join(["3,P,1,", *rows, "1,Q,-1,"])
    counts = shop.orders(text, chunk_rows=40)
    assert (counts.read, counts.inserted, counts.updated, counts.rejected) == (92, 60, 30, 2)
    # The rows are stored by consumer.
    assert shop.errors() == [["93", "amount: Must be 0 or more"], ["2", "consumerExternalId: unknown consumer"]]
    amounts = {f"O{number % 60}": number for number in range(90)}
    assert dict(shop.stored("external_id, amount", "orders")) == amounts
    for consumer, totals in zip((0, 1), shop.stored("total_orders, total_order_value"), strict=True):
        of_consumer = [amount for amount in amounts.values() if amount % 2 == consumer]
        assert totals == (len(of_consumer), sum(of_consumer))


def test_only_the_order_past_the_total_limit_is_rejected(shop: ImportEnvironment) -> None:
    most = 90_000_000_000_000
    rows = [f"1,S{n},1" for n in range(50)]
    text = "\n".join(
        [
            "consumerExternalId,externalId,amount",
            *rows,
            f"1,L1,{most - 50}",
            "1,L2,1",
            f"2,M,{most}",
            *rows[:3],
            "1,Z,0",
        ]
    )
    counts = shop.orders(text)
    assert (counts.inserted, counts.unchanged, counts.rejected) == (53, 3, 1)
    assert shop.errors() == [["53", "amount: would take the consumer's totalOrderValue past 90,000,000,000,000"]]
    assert shop.stored("total_orders, total_order_value") == [(52, most), (1, most)]


def test_orders_are_imported_only_for_their_own_environment(shop: ImportEnvironment) -> None:
    ((consumer_id, _),) = shop.stored("id, external_id")[:1]
    other = ImportEnvironment(shop.connection, shop.url, shop.path.parent)
    assert other.orders(f"consumerId,externalId,amount\n{consumer_id},A,1\n").rejected == 1
    assert shop.orders(f"consumerId,externalId,amount\n{consumer_id},A,1\n").inserted == 1


@pytest.mark.parametrize(("reference", "column"), [("externalId", "external_id"), ("email", "email"), ("id", "id")])
def test_each_order_of_a_new_environment_is_looked_up_in_an_index(
    shop: ImportEnvironment, new_shop: Callable[[], ImportEnvironment], reference: str, column: str
) -> None:
    """The statistics of PostgreSQL name other environments only, so the planner knows nothing of this one."""
    others = new_shop()
    numbers = range(1_000)
    others.consumers("externalId,email\n" + "".join(f"{n},{n}@shop.example\n" for n in numbers))
    others.orders("consumerExternalId,externalId,amount\n" + "".join(f"{n},{n},1\n" for n in numbers))
    others.connection.execute("ANALYZE consumers, orders")
    shop.consumers("externalId,email\n" + "".join(f"N{n},n{n}@shop.example\n" for n in range(ORDERS)))
    names = [
        name
        for (name,) in shop.rows(
            f"SELECT {column} FROM consumers WHERE environment_id = %s AND external_id LIKE 'N%%'", shop.environment.id
        )
    ]
    head = f"consumer{reference[0].upper()}{reference[1:]},externalId,amount\n"
    shop.path.write_text(head + "".join(f"{name},O{n},1\n" for n, name in enumerate(names)))
    for counts in (Counts(read=ORDERS, inserted=ORDERS), Counts(read=ORDERS, unchanged=ORDERS)):
        before = _entries_read(shop)
        with closing(connect(shop.url)) as own:
            assert run(own, shop.path, kinds.ORDERS, shop.environment, processes=0) == counts
            own.execute("SELECT pg_stat_force_next_flush()")
            own.commit()
        assert _entries_read(shop) - before < 30 * ORDERS


def _entries_read(shop: ImportEnvironment) -> int:
    """Return the number of entries read from all indexes of consumers and orders so far."""
    (entries,) = shop.row(
        "SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes WHERE relname IN ('consumers', 'orders')"
    )
    return int(entries)
