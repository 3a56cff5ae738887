"""The generated sample data, without a database."""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from decimal import Decimal

import phonenumbers
import pytest

from infra import fields
from infra.local.sample.consumers import COUNT, DOMAINS, END, START, Person, persons
from infra.local.sample.orders import BASE_CURRENCY, CENT, MAX_ORDERS, Order, orders
from infra.local.sample.people import PEOPLE, People

DIGEST = """
import hashlib
from infra.local.sample.consumers import persons
from infra.local.sample.orders import orders
people = list(persons())
print(hashlib.sha256(repr((people, list(orders(people)))).encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def people() -> list[Person]:
    return list(persons())


@pytest.fixture(scope="module")
def bought(people: list[Person]) -> list[Order]:
    return list(orders(people))


def test_generated_data_is_the_same_in_every_process(people: list[Person], bought: list[Order]) -> None:
    digest = hashlib.sha256(repr((people, bought)).encode()).hexdigest()
    environ = os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    again = subprocess.run([sys.executable, "-c", DIGEST], env=environ, check=True, capture_output=True, text=True)
    assert again.stdout.strip() == digest


def test_every_generated_consumer_is_valid(people: list[Person]) -> None:
    for consumer in (person.consumer for person in people):
        if consumer.email is not None:
            assert fields.email(consumer.email) == consumer.email
            assert consumer.email.rpartition("@")[2] in DOMAINS
        if consumer.phone is not None:
            assert fields.phone(consumer.phone, "US") == consumer.phone
        if consumer.full_name is not None:
            assert fields.full_name(consumer.full_name) == consumer.full_name
        if consumer.metadata is not None:
            assert fields.metadata(consumer.metadata) == consumer.metadata
        if consumer.external_id is not None:
            assert fields.external_id(consumer.external_id) == consumer.external_id


def test_consumers_ascend_by_time_and_id_and_are_unique(people: list[Person]) -> None:
    consumers = [person.consumer for person in people]
    assert len(consumers) == COUNT
    assert [consumer.id for consumer in consumers] == sorted({consumer.id for consumer in consumers})
    assert [consumer.created_at for consumer in consumers] == sorted(consumer.created_at for consumer in consumers)
    assert all(START <= consumer.created_at < END for consumer in consumers)
    for name in ("email", "external_id"):
        values = [getattr(consumer, name).lower() for consumer in consumers if getattr(consumer, name)]
        assert 0.9 * COUNT < len(values) == len(set(values)) < COUNT


def test_names_have_many_scripts_and_some_are_missing(people: list[Person]) -> None:
    names = [person.consumer.full_name for person in people]
    assert None in names
    assert len({(group.language, group.country) for group in PEOPLE}) >= 20
    text = " ".join(name for name in names if name)
    assert all(part in text for part in ("José", "Ødegård", "Straßer", "田中太郎", "Дмитрий", "محمد", "ณัฐพล"))


@pytest.mark.parametrize("group", PEOPLE, ids=lambda group: f"{group.language}-{group.country}")
def test_phone_numbers_are_possible_in_their_country(group: People) -> None:
    for digit in "0123456789":
        number = phonenumbers.parse(group.phone.replace("#", digit))
        assert phonenumbers.is_possible_number(number)
        assert number.country_code == phonenumbers.country_code_for_region(group.country)


def test_every_generated_order_is_valid(people: list[Person], bought: list[Order]) -> None:
    since = {person.consumer.id: person.consumer.created_at for person in people}
    for order in bought:
        assert since[order.consumer_id] <= order.placed_at < END
        assert fields.currency(order.currency_code) == order.currency_code
        assert 0 <= order.refunded_amount <= order.amount
        assert order.base_amount == order.amount or order.currency_code != BASE_CURRENCY
        assert order.amount == sum(Decimal(item["unitAmount"]) * item["quantity"] for item in order.items)
        for amount in (order.amount, order.refunded_amount, order.base_amount):
            assert amount.as_tuple().exponent == CENT.as_tuple().exponent


def test_orders_have_a_heavy_tail_and_every_outcome(bought: list[Order]) -> None:
    each = Counter(order.consumer_id for order in bought)
    assert max(each.values()) == MAX_ORDERS
    assert 0.4 * COUNT < len(each) < 0.6 * COUNT
    assert {order.status for order in bought} == {"CREATED", "COMPLETED", "CANCELLED", "REFUNDED"}
    assert any(0 < order.refunded_amount < order.amount for order in bought)
    assert len({order.currency_code for order in bought}) > 5
    assert len({order.id for order in bought}) == len(bought)
