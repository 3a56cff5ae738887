"""Orders of a large file are sorted by consumer, unless the result could depend on the order of the rows."""

import io

import pytest

from infra.imports.formats import AS_SHOWN, assign_columns
from infra.imports.kinds import ORDERS
from infra.imports.rows import Chunk, Reader
from infra.imports.sorting import reference, sorted_chunks


def chunks(text: str, rows: int = 100) -> list[Chunk]:
    reader = Reader(io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8-sig", newline=""))
    columns = assign_columns(reader.header, ORDERS, AS_SHOWN)
    column = reference(columns)
    assert column
    with sorted_chunks(reader.records(columns.continued_by), columns, column, rows, 1_000) as read:
        return list(read)


def lines(text: str) -> list[int]:
    return [record.line for chunk in chunks(text) for record in chunk.records]


def test_orders_of_a_consumer_follow_each_other_in_the_order_of_the_file() -> None:
    text = "externalId,consumerExternalId,amount\nA,C-10,1\nB,C-9,1\nC,C-10,1\nA,C-10,2\nD, C-9 ,1\n"
    assert lines(text) == [3, 6, 2, 4, 5]


@pytest.mark.parametrize(
    "row",
    ["A,,3", "A,C-1,3"],
    ids=["a row without a consumer changes an order above", "the first of two consumers of an order counts"],
)
def test_file_keeps_its_order_where_the_result_could_depend_on_it(row: str) -> None:
    assert lines(f"externalId,consumerExternalId,amount\nA,C-2,1\nB,C-1,1\n{row}\n") == [2, 3, 4]


def test_faulty_rows_and_further_rows_of_an_order_are_kept() -> None:
    header = "Name,Email,Financial Status,Total,Created at,Lineitem name,Lineitem quantity,Lineitem price,Currency\n"
    text = f"{header}#1,b@x.example,paid,1,2024-01-01,,,,GBP,\n#1,,,,,b,1,1,\n#2,a@x.example,,,,,,,,,,too many\n"
    first, second = (record for chunk in chunks(text) for record in chunk.records)
    assert (first.line, bool(first.fault), second.line, len(second.continued)) == (4, True, 2, 1)


def test_chunks_tell_how_much_of_the_file_is_done() -> None:
    text = "externalId,consumerExternalId,amount\n" + "".join(f"{number},C-1,1\n" for number in range(5))
    assert [(len(chunk.records), chunk.end) for chunk in chunks(text, 2)] == [(2, 400), (2, 800), (1, 1000)]
