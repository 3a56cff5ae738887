"""Imports of consumers, and their effect on stored consumers."""

import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.imports.run import Counts, connect
from tests.imports.import_environment import ImportEnvironment
from tests.waiting import wait_until

STATE = "external_id, email, phone, full_name, metadata"


def test_second_import_of_a_file_changes_nothing(shop: ImportEnvironment) -> None:
    text = (
        "externalId,email,phone,fullName,metadata.a,metadata.b\n"
        "1,Ann@Shop.Example,020 7946 0018,Ann,x,\n,b@shop.example,,,,y\n3,,,C\u0301ann,,\n"
    )
    assert shop.consumers(text) == Counts(read=3, inserted=3)
    before = shop.stored("id, version, updated_at, xmin::text")
    changes = shop.changes()
    assert shop.consumers(text) == Counts(read=3, unchanged=3)
    assert shop.stored("id, version, updated_at, xmin::text") == before
    assert shop.changes() == changes == 3
    assert shop.stored(STATE)[0] == ("1", "Ann@shop.example", "+442079460018", "Ann", {"a": "x"})


def test_imported_changes_use_the_bulk_lane(shop: ImportEnvironment) -> None:
    shop.consumers("externalId\n1\n")
    shop.consumers("externalId,fullName\n1,Ann\n")
    lanes = shop.rows("SELECT lane FROM outbox WHERE environment_id = %s", shop.environment.id)
    assert lanes == [("bulk",), ("bulk",)]


def test_fields_missing_in_the_file_are_kept(shop: ImportEnvironment) -> None:
    shop.consumers("externalId,email,fullName,metadata.a,metadata.b\n1,a@shop.example,Ann,x,y\n")
    counts = shop.consumers("externalId,email,fullName,metadata.b,metadata.c\n1,,Anna,z,\n")
    assert counts == Counts(read=1, updated=1)
    assert shop.stored(STATE) == [("1", "a@shop.example", None, "Anna", {"a": "x", "b": "z"})]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param("9,A@SHOP.EXAMPLE", ("9", "A@shop.example"), id="email, ignoring case, without an externalId"),
        pytest.param("8,a@shop.example", ("8", "a@shop.example"), id="email"),
        pytest.param(",a@shop.example", (None, "a@shop.example"), id="email alone"),
    ],
)
def test_consumer_is_matched_by_email_and_gets_the_external_id(
    shop: ImportEnvironment, row: str, expected: tuple[str | None, str]
) -> None:
    shop.consumers("email\na@shop.example\n")
    assert shop.consumers(f"externalId,email\n{row}\n").inserted == 0
    assert shop.stored("external_id, email") == [expected]


def test_row_that_matches_two_consumers_is_rejected(shop: ImportEnvironment) -> None:
    shop.consumers("externalId,email\n1,a@shop.example\n2,b@shop.example\n,c@shop.example\n")
    before = shop.stored("version")
    counts = shop.consumers("externalId,email\n1,b@shop.example\n2,C@shop.example\n3,a@shop.example\n")
    assert (counts.rejected, counts.unchanged) == (3, 0)
    assert [line for line, _ in shop.errors()] == ["2", "3", "4"]
    assert all(reason.startswith("email: Email already exists, on ") for _, reason in shop.errors())
    assert shop.stored("version") == before


def test_rows_without_external_id_and_email_are_refused(shop: ImportEnvironment) -> None:
    assert shop.consumers("externalId,email,fullName\n,,Ann\n,wrong,Bob\n").rejected == 2
    assert [reason.split(":")[0] for _, reason in shop.errors()] == ["externalId or email", "email"]


def test_metadata_too_large_after_the_merge_is_rejected(shop: ImportEnvironment) -> None:
    keys = ",".join(f"metadata.k{n}" for n in range(50))
    shop.consumers(f"externalId,{keys}\n1{',x' * 50}\n2{',' * 50}\n")
    shop.consumers("externalId,metadata.large\n2," + "é" * 8000 + "\n")
    text = "externalId,metadata.more\n1,y\n2," + "é" * 300 + "\n3,y\n"
    assert (shop.consumers(text).rejected, shop.consumers(text).unchanged) == (2, 1)
    assert shop.errors() == [
        ["2", "metadata: Metadata must have at most 50 keys, when merged with the stored metadata"],
        ["3", "metadata: Metadata must be at most 16 KiB, when merged with the stored metadata"],
    ]


def test_dry_run_counts_like_a_run_and_stores_nothing(shop: ImportEnvironment) -> None:
    shop.consumers("externalId,fullName\n1,Ann\n2,Bob\n")
    text = "externalId,fullName\n1,Ann\n2,Rob\n3,Cy\n4,\x07\n"
    before, changes = shop.stored("*"), shop.changes()
    counts = shop.consumers(text, dry_run=True)
    assert (counts.inserted, counts.updated, counts.unchanged, counts.rejected) == (1, 1, 1, 1)
    assert shop.errors_path.exists()
    assert (shop.stored("*"), shop.changes()) == (before, changes)
    assert shop.consumers(text) == counts


def test_imports_of_two_environments_are_independent(new_shop: Callable[[], ImportEnvironment]) -> None:
    first, second = new_shop(), new_shop()
    text = "externalId,email\n1,a@shop.example\n"
    assert (first.consumers(text).inserted, second.consumers(text).inserted) == (1, 1)


def test_email_inserted_during_the_import_is_updated(shop: ImportEnvironment) -> None:
    counts: list[Counts] = []
    text = "externalId,email,fullName\n1,x@shop.example,X\n2,taken@shop.example,Late\n"
    with closing(connect(shop.url)) as other:
        with other.transaction():
            other.execute(
                "INSERT INTO consumers (environment_id, email, full_name) VALUES (%s, 'Taken@shop.example', 'Early')",
                (shop.environment.id,),
            )
            importing = threading.Thread(target=lambda: counts.append(shop.consumers(text)))
            importing.start()
            blocked = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"
            wait_until(lambda: shop.row(blocked, other.info.backend_pid) == (1,), what="the import to wait")
        importing.join()
    assert counts == [Counts(read=2, inserted=1, updated=1)]
    assert sorted(shop.stored(STATE)) == [
        ("1", "x@shop.example", None, "X", None),
        ("2", "taken@shop.example", None, "Late", None),
    ]


def test_email_changed_during_the_import_is_seen(shop: ImportEnvironment) -> None:
    shop.consumers("email\na@shop.example\n")
    counts: list[Counts] = []
    with closing(connect(shop.url)) as other:
        with other.transaction():
            other.execute(
                "UPDATE consumers SET email = 'moved@shop.example' WHERE environment_id = %s", (shop.environment.id,)
            )
            text = "email,fullName\na@shop.example,New\n"
            importing = threading.Thread(target=lambda: counts.append(shop.consumers(text)))
            importing.start()
            blocked = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"
            wait_until(lambda: shop.row(blocked, other.info.backend_pid) == (1,), what="the import to wait")
        importing.join()
    assert counts == [Counts(read=1, inserted=1)]
    assert shop.stored("email, full_name") == [("moved@shop.example", None), ("a@shop.example", "New")]


Row = tuple[str, str, str, str, str]
CELLS = st.tuples(
    st.sampled_from(["", "x1", "x2", "x3"]),
    st.sampled_from(["", "a@s.example", "A@s.example", "b@s.example", "B@S.example", "c@s.example", "wrong"]),
    st.sampled_from(["", "Ann", "Bob"]),
    st.sampled_from(["", "u", "v"]),
    st.sampled_from(["", "w"]),
)


Stored = dict[str, Any]


class Model:
    """A reference implementation: applies rows one by one, by the documented rules."""

    def __init__(self) -> None:
        self.stored: list[Stored] = []
        self.counts = Counts()
        self.rejected: list[int] = []
        self.waiting: list[tuple[int, Row]] = []

    def import_file(self, rows: list[Row]) -> None:
        self.counts, self.rejected, self.waiting = Counts(), [], []
        emails: dict[str, set[str]] = defaultdict(set)
        ids: dict[str, set[str]] = defaultdict(set)
        for external_id, email, *_ in rows:
            emails[external_id].add(email.lower())
            ids[email.lower()].add(external_id)
        for line, row in enumerate(rows, start=2):
            external_id, email, *_ = row
            if not any(row):
                continue
            self.counts.read += 1
            different = (external_id and len(emails[external_id] - {""}) > 1) or (
                email and len(ids[email.lower()] - {""}) > 1
            )
            if email == "wrong" or not (external_id or email) or different:
                self.rejected.append(line)
            elif self._waits(row) or not self._apply(row):
                self.waiting.append((line, row))
        self._settle()
        self.counts.rejected = len(self.rejected)

    def _match(self, row: Row) -> tuple[Stored | None, Stored | None]:
        """Return the consumers with the externalId and with the e-mail address of the row."""
        external_id, email, *_ = row
        by_id = next((c for c in self.stored if external_id and c.get("external_id") == external_id), None)
        return by_id, next((c for c in self.stored if email and c.get("email", "").lower() == email.lower()), None)

    def _is_blocked(self, row: Row) -> bool:
        by_id, by_email = self._match(row)
        if by_id:
            return by_email not in (None, by_id)
        return bool(by_email and row[0] and by_email.get("external_id"))

    def _waits(self, row: Row) -> bool:
        matches = {id(c) for c in self._match(row) if c}
        return any(
            (row[0] and row[0] == other[0])
            or (row[1] and row[1].lower() == other[1].lower())
            or matches & {id(c) for c in self._match(other) if c}
            for _, other in self.waiting
        )

    def _apply(self, row: Row) -> bool:
        if self._is_blocked(row):
            return False
        external_id, email, name, u, w = row
        domain = email.partition("@")[2]
        new = {"external_id": external_id, "email": email.replace(domain, domain.lower()), "full_name": name}
        target = next(filter(None, self._match(row)), None)
        before = None if target is None else dict(target)
        if target is None:
            target = {}
            self.stored.append(target)
        target.update({key: value for key, value in new.items() if value})
        if metadata := {key: value for key, value in {"u": u, "w": w}.items() if value}:
            target["metadata"] = target.get("metadata", {}) | metadata
        self.counts.inserted += before is None
        self.counts.updated += before is not None and before != target
        self.counts.unchanged += before == target
        return True

    def _settle(self) -> None:
        """Apply the waiting rows whose address nobody else has once all are applied."""
        while True:
            moves = {}
            for _, row in self.waiting:
                by_id, by_email = self._match(row)
                target = by_id or (None if row[0] and by_email and by_email.get("external_id") else by_email)
                if target and row[1]:
                    moves[id(target)] = row[1].lower()
            held = {c["email"].lower() for c in self.stored if "email" in c and id(c) not in moves} | {
                c["email"].lower() for c in self.stored if moves.get(id(c)) == c.get("email", "").lower()
            }
            stuck = [(line, row) for line, row in self.waiting if self._is_blocked(row) and row[1].lower() in held]
            if not stuck:
                break
            self.rejected += [line for line, _ in stuck]
            self.waiting = [waiting for waiting in self.waiting if waiting not in stuck]
        taken = {row[1].lower() for _, row in self.waiting if self._is_blocked(row)}
        for consumer in self.stored:
            old = consumer.get("email", "").lower()
            if old in taken and moves.get(id(consumer)) not in (None, old):
                del consumer["email"]
        for _, row in self.waiting:
            assert self._apply(row)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=st.lists(CELLS, max_size=6), second=st.lists(CELLS, max_size=10), chunk_rows=st.integers(1, 10))
def test_import_in_chunks_equals_applying_rows_one_by_one(
    new_shop: Callable[[], ImportEnvironment], first: list[Row], second: list[Row], chunk_rows: int
) -> None:
    shop, model = new_shop(), Model()
    for rows in (first, second):
        model.import_file(rows)
        text = "\n".join(["externalId,email,fullName,metadata.u,metadata.w", *map(",".join, rows)])
        counts = shop.consumers(text, chunk_rows=chunk_rows)
        counts.errors_file = None
        expected = [(c.get("external_id"), c.get("email"), c.get("full_name"), c.get("metadata")) for c in model.stored]
        assert sorted(shop.stored("external_id, email, full_name, metadata"), key=str) == sorted(expected, key=str)
        assert counts == model.counts
        assert sorted(int(line) for line, _ in shop.errors()) == sorted(model.rejected)
    unrecorded = shop.rows(
        "SELECT id FROM consumers c WHERE environment_id = %s AND version <> "
        "(SELECT max(version) FROM outbox o WHERE o.consumer_id = c.id)",
        shop.environment.id,
    )
    assert unrecorded == []


def test_metadata_keeps_its_type(shop: ImportEnvironment) -> None:
    shop.connection.execute(
        "INSERT INTO consumers (environment_id, email, metadata) VALUES (%s, 'flip@shop.example', %s)",
        (shop.environment.id, '{"points": 100, "vip": true, "zip": "0123", "old": null, "rate": 0.50}'),
    )
    before, changes = shop.stored("version, metadata"), shop.changes()
    header = "email,metadata.points,metadata.vip,metadata.zip,metadata.old,metadata.rate\n"
    assert shop.consumers(header + "flip@shop.example,100,true,0123,null,0.5\n") == Counts(read=1, unchanged=1)
    assert (shop.stored("version, metadata"), shop.changes()) == (before, changes)
    shop.consumers("email,metadata.points:text,metadata.zip:number\nflip@shop.example,100,0123\n")
    assert shop.stored("metadata->'points', metadata->'zip'") == [("100", 123)]


def test_external_id_is_trimmed(shop: ImportEnvironment) -> None:
    assert shop.consumers("externalId,email\nx20 ,x20@shop.example\n x21,x21@shop.example\n").inserted == 2
    assert shop.consumers("externalId,email\nx20,x20@shop.example\nx21,x21@shop.example\n").unchanged == 2
    assert shop.consumers("externalId\na\u200bb\n4.47401E+11\n").rejected == 2
