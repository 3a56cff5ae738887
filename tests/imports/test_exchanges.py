"""Rows that exchange e-mail addresses, and rows that give one key to different people."""

import pytest

from infra.imports.run import Counts
from tests.imports.import_environment import ImportEnvironment

BASE = "externalId,email,fullName\nm1,m1@shop.example,One\nm2,m2@shop.example,Two\nm3,m3@shop.example,Three\n"
# 1: each row is a transaction of its own, as rows of different batches of a large file are.
CHUNKS = pytest.mark.parametrize("chunk_rows", [1, 5000])


@CHUNKS
@pytest.mark.parametrize(
    ("rows", "addresses"),
    [
        pytest.param("m1,m2@\nm2,m1@\n", ["m2@", "m1@", "m3@"], id="swap"),
        pytest.param("m1,m2@\nm2,new@\n", ["m2@", "new@", "m3@"], id="shift"),
        pytest.param("m2,new@\nm1,m2@\n", ["m2@", "new@", "m3@"], id="shift, freed first"),
        pytest.param("m1,m2@\nm2,m3@\nm3,m1@\n", ["m2@", "m3@", "m1@"], id="circle"),
        pytest.param("m9,m1@\nm1,new@\n", ["new@", "m2@", "m3@", "m1@"], id="to a new consumer"),
        pytest.param("m9,m1@\nm1,m2@\nm2,M3@\nm3,x@\n", ["m2@", "M3@", "x@", "m1@"], id="chain"),
    ],
)
def test_addresses_move_at_the_first_run(
    shop: ImportEnvironment, rows: str, addresses: list[str], chunk_rows: int
) -> None:
    shop.consumers(BASE)
    text = "externalId,email\n" + rows.replace("@", "@shop.example")
    counts = shop.consumers(text, chunk_rows=chunk_rows)
    assert (counts.rejected, counts.updated + counts.inserted) == (0, rows.count("\n"))
    assert [email for (email,) in shop.stored("email")] == [f"{address}shop.example" for address in addresses]
    assert shop.consumers(text, chunk_rows=chunk_rows).unchanged == rows.count("\n")


@CHUNKS
def test_address_that_nobody_gives_up_is_refused(shop: ImportEnvironment, chunk_rows: int) -> None:
    shop.consumers(BASE)
    before = shop.stored("version")
    text = "externalId,email\nm1,m2@shop.example\nm2,m3@shop.example\n"
    assert shop.consumers(text, chunk_rows=chunk_rows).rejected == 2
    assert all(reason.startswith("email: Email already exists, on another consumer") for _, reason in shop.errors())
    assert shop.stored("version") == before


@CHUNKS
def test_rejected_row_of_an_exchange_leaves_all_addresses(shop: ImportEnvironment, chunk_rows: int) -> None:
    shop.consumers(BASE)
    keys = ",".join(f"metadata.k{n}" for n in range(50))
    shop.consumers(f"externalId,{keys}\nm2{',x' * 50}\n")
    text = "externalId,email,metadata.l\nm1,m2@shop.example,\nm2,m1@shop.example,y\n"
    assert shop.consumers(text, chunk_rows=chunk_rows).rejected == 2
    assert [email for (email,) in shop.stored("email")] == [f"m{n}@shop.example" for n in (1, 2, 3)]


def test_order_of_rows_counts_among_deferred_rows(shop: ImportEnvironment) -> None:
    shop.consumers(BASE)
    text = "externalId,email,fullName\nm1,m2@shop.example,Older\nm2,new@shop.example,\nm1,,Newer\n"
    assert shop.consumers(text, chunk_rows=1).rejected == 0
    assert shop.stored("full_name")[0] == ("Newer",)


def test_dry_run_of_an_exchange_counts_like_a_run(shop: ImportEnvironment) -> None:
    shop.consumers(BASE)
    text = "externalId,email\nm1,m2@shop.example\nm2,m1@shop.example\nm9,m3@shop.example\nm3,x@shop.example\n"
    assert shop.consumers(text, dry_run=True) == shop.consumers(text) == Counts(read=4, updated=3, inserted=1)


@CHUNKS
def test_rows_of_different_people_with_one_key_are_rejected(shop: ImportEnvironment, chunk_rows: int) -> None:
    counts = shop.consumers(
        "externalId,email,fullName\n1,a@shop.example,Ann\n2,b@shop.example,Bob\n1,c@shop.example,Cy\n"
        "3,B@shop.example,Di\n4,d@shop.example,Eve\n4,,Eva\n1,,\n",
        chunk_rows=chunk_rows,
    )
    assert (counts.inserted, counts.updated, counts.rejected) == (1, 1, 5)
    assert dict(shop.errors()) == {
        **dict.fromkeys(
            ("2", "4", "8"),
            "externalId: lines 2, 4 and 8 have the same externalId and different e-mail addresses: correct them",
        ),
        **dict.fromkeys(("3", "5"), "email: lines 3 and 5 have the same email and different externalIds: correct them"),
    }
    assert shop.stored("external_id, full_name") == [("4", "Eva")]
