"""The filter language: written expressions are parsed unchanged, invalid text gives faults with positions."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.filters.clauses import NOTHING, clause
from infra.filters.conditions import AllOf, AnyOf, Condition, Expression, Not, Operator
from infra.filters.language import MAX_CONDITIONS, MAX_LENGTH, FilterError, parse
from infra.index.terms import CODE_LENGTH
from tests.filter_expressions import conditions, expressions, written

PIECES = [
    "email",
    "metadata.",
    ":",
    ":",
    '"',
    "\\",
    "(",
    ")",
    " ",
    "AND",
    "OR",
    "NOT",
    "*",
    "..",
    ">=",
    "<",
    "~",
    "5",
    "a",
]
PIECES += ["\n", "é", "😀", "email:*", "createdAt:2024-01-01", "totalOrders:", "\0", "\u2028"]


def faults(text: str) -> list[str]:
    """Return the faults of a filter text."""
    try:
        parse(text)
    except FilterError as error:
        return list(error.faults) or [""]
    return []


@given(expressions(conditions()), st.sampled_from([" AND ", " ", "\n AND\t"]))
@settings(max_examples=500, deadline=None)
def test_written_expression_is_parsed_unchanged(expression: Expression, conjunction: str) -> None:
    assert parse(written(expression, conjunction)) == expression


@given(st.text(max_size=60) | st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
@settings(max_examples=2000, deadline=None)
def test_any_text_is_a_filter_or_has_faults_with_positions(text: str) -> None:
    for fault in faults(text):
        match = re.match(r"At character ([0-9]+): \S", fault)
        assert match, fault
        assert 1 <= int(match[1]) <= len(text) + 1


@pytest.mark.parametrize(
    "piece", ["(", ")", "NOT ", '"', "\\", "email:*", "email:* ", "email:* OR ", "..", ":", "a\\", '"\\']
)
def test_long_repetitive_text_is_parsed_or_refused(piece: str) -> None:
    text = (piece * MAX_LENGTH)[:MAX_LENGTH]
    for one in (text, f"email:{text}"[:MAX_LENGTH], f"{text[:900]}email:*{')' * 900}"):
        assert all(faults(one))


EMAIL = Condition("email", "EXISTS")
NAME = Condition("fullName", "EXISTS")
PHONE = Condition("phone", "EXISTS")


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("email:* fullName:* OR phone:*", AnyOf([AllOf([EMAIL, NAME]), PHONE])),
        ("email:* OR fullName:* phone:*", AnyOf([EMAIL, AllOf([NAME, PHONE])])),
        ("email:* (fullName:* OR phone:*)", AllOf([EMAIL, AnyOf([NAME, PHONE])])),
        ("NOT email:* fullName:*", AllOf([Not(EMAIL), NAME])),
        ("NOT (email:* fullName:*)", Not(AllOf([EMAIL, NAME]))),
        ("NOT NOT email:*", Not(Not(EMAIL))),
        ("(((email:*)))", EMAIL),
        ("NOT(email:*)AND(phone:*)", AllOf([Not(EMAIL), PHONE])),
        ("email:AND", Condition("email", "EQUALS", ["AND"])),
        ("email:a:b", Condition("email", "EQUALS", ["a:b"])),
        (r'fullName:"a \" \\ \b"', Condition("fullName", "EQUALS", ['a " \\ b'])),
        (r"fullName:a\b", Condition("fullName", "EQUALS", [r"a\b"])),
        ('fullName:"*"', Condition("fullName", "EQUALS", ["*"])),
        ('fullName:">5"', Condition("fullName", "EQUALS", [">5"])),
        ('fullName:~"a..b"', Condition("fullName", "CONTAINS", ["a..b"])),
        ('metadata."a b".c:x', Condition("metadata.a b.c", "EQUALS", ["x"])),
        ('metadata.a:""', Condition("metadata.a", "EQUALS", [""])),
    ],
)
def test_text_is_parsed_as(text: str, expression: Expression) -> None:
    assert parse(text) == expression


@pytest.mark.parametrize(
    ("text", "operators"),
    [
        ("email:* and phone:*", {9: "AND"}),
        ("email:* Or phone:*", {9: "OR"}),
        ("not email:*", {1: "NOT"}),
        ("NOT not email:*", {5: "NOT"}),
        ("email:* AND nOT phone:*", {13: "NOT"}),
        ("(email:*)or(phone:*)", {10: "OR"}),
        ("not(email:*)and\nnot phone:*", {1: "NOT", 13: "AND", 17: "NOT"}),
        ('fullName:"a and b" or email:*', {20: "OR"}),
        ("fullName:and and metadata.or:not", {14: "AND"}),
    ],
)
def test_operators_in_lower_case_are_named(text: str, operators: dict[int, str]) -> None:
    message = "At character {}: Write {} in capitals, or put text with spaces in quotes"
    assert faults(text) == [message.format(position, operator) for position, operator in operators.items()]
    capitals = list(text)
    for position, operator in operators.items():
        capitals[position - 1 : position - 1 + len(operator)] = operator
    parse("".join(capitals))


def test_lower_case_operator_is_named_beside_other_faults() -> None:
    assert [fault.partition(": ")[2][:12] for fault in faults("nope:1 and fullName:Jean and Marie")] == [
        *("Write AND in", "Write AND in", "Expected a c"),
    ]
    assert [fault.partition(": ")[2][:13] for fault in faults("nope:1 and email:>5")] == [
        *("Write AND in ", "Unknown field", "Operator > is"),
    ]
    assert len(faults("email:* or " * 180)) == MAX_CONDITIONS + 1


@pytest.mark.parametrize("text", ['fullName:"or"', "fullName:not", "metadata.and.or:NOT", 'metadata."and b":"x or y"'])
def test_operator_words_in_fields_and_values_are_text(text: str) -> None:
    assert faults(text) == []


@pytest.mark.parametrize(
    ("text", "positions"),
    [
        ("", [1]),
        ("   ", [4]),
        ("email", [1]),
        ("email:", [7]),
        ("email:* OR", [11]),
        ("email:* OR OR phone:*", [12]),
        ("(email:*", [9]),
        ("email:*)", [8]),
        ('email:"a', [7]),
        ('email:"a"b"', [11]),
        ('email:a"b"', [7]),
        ("nope:* AND totalOrders:x AND email:>5", [1, 24, 36]),
        ("email:a..b", [7]),
        ("totalOrders:~5", [13]),
        ("totalOrders:>", [13]),
        ("totalOrders:..", [13]),
        ("totalOrders:>1..2", [13]),
        ("totalOrders:2..1", [13]),
        ("createdAt:2024-02-30", [11]),
        ("metadata.:x", [1]),
        ("metadata.a..b:x", [1]),
        ("metadata.a.b.c.d.e.f:x", [1]),
        (f"metadata.{'k' * 400}:x", [1]),
        (f"metadata.a:{'x' * 256}", [12]),
        ('fullName:""', [10]),
        ("totalOrders:5 AND totalOrderValue:1e9999", [35]),
        ("totalOrderValue:0.1e-999 totalOrderValue:123e999", [17, 42]),
        (f"metadata.a:>{'1' * 250}e5", [12]),
    ],
)
def test_all_faults_are_reported_with_their_positions(text: str, positions: list[int]) -> None:
    assert [int(re.findall("[0-9]+", fault)[0]) for fault in faults(text)] == positions


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("email:>5", "Operator > is not supported for email: use a value alone, ~ or *"),
        (
            "email:a..",
            "Operator .. is not supported for email: use a value alone, ~ or *; put a value that contains .. in quotes",
        ),
        ("totalOrders:~5", "Operator ~ is not supported for totalOrders: use a value alone, >, >=, <, <=, .. or *"),
        ("totalOrders:>1..2", "Use either a range (..) or >, not both"),
        ("totalOrders:2..1", "The start of the range must not exceed its end"),
        ("metadata.a:1..2024-01-01", "Both ends of the range must be numbers, or both must be dates"),
        ("metadata.a:2024-02-01..2024-01-01", "The start of the range must not exceed its end"),
        ("metadata.a:<1990-13-01", "Must be a number, or a date such as 1990-12-31, or a time in RFC 3339"),
        ("metadata.a:<2024-01-01T00:00:00", "Must be a number, or a date such as 1990-12-31, or a time in RFC 3339"),
        ("fullName:(a b)", "Expected a value"),
        ('fullName:a"b"', "Put the whole value in quotes if it contains spaces, quotes or brackets"),
        ("email:* OR", "Expected a condition, such as email:*, but found the end"),
        ("(email:*", "Expected a closing bracket, but found the end"),
        ("email:*)", "Expected AND or OR, but found ')'"),
    ],
)  # fmt: skip
def test_fault_message_names_the_allowed_values(text: str, message: str) -> None:
    assert [fault.partition(": ")[2] for fault in faults(text)] == [message]


def test_limits_are_exact() -> None:
    fifty = " ".join(["email:*"] * 50)
    assert parse(fifty) == AllOf([EMAIL] * 50)
    assert faults(f"{fifty} email:*") == ["Must have at most 50 conditions, but has 51"]
    assert parse("NOT " * 9 + "email:*")
    assert faults("NOT " * 10 + "email:*") == ["Must be at most 10 levels deep, but has 11 levels"]
    assert parse("(" * 900 + "email:*" + ")" * 900) == EMAIL
    assert parse("email:*".ljust(MAX_LENGTH)) == EMAIL
    assert faults("email:*".ljust(MAX_LENGTH + 1)) == ["Must be at most 2000 characters"]
    assert len(faults(" ".join(["email:>1"] * 51))) == 52


IGNORED = ["\u0301", "\u200b", "\u2060\ufe0f", "ー", "ـ", "ʹ", "´", " ¨", "\u3099"]


@pytest.mark.parametrize("text", IGNORED)
@pytest.mark.parametrize("field", ["email", "fullName", "metadata.note"])
def test_contained_text_without_a_searched_character_is_refused(field: str, text: str) -> None:
    [fault] = faults(f'{field}:~"{text}"')
    assert "Must have a character that CONTAINS does not ignore" in fault
    assert parse(f'{field}:"{text}"')
    assert parse(f'{field}:~"{text}x"')


def test_contained_space_is_searched() -> None:
    assert parse('fullName:~" "') == Condition("fullName", "CONTAINS", [" "])


@pytest.mark.parametrize("text", IGNORED)
@pytest.mark.parametrize("operator", ["CONTAINS", "NOT_CONTAINS"])
def test_stored_rule_without_a_searched_character_matches_nobody(operator: Operator, text: str) -> None:
    assert clause(Condition("fullName", operator, [text]), None) == NOTHING


@pytest.mark.parametrize("number", [1, 5, 20, 45])
def test_contained_text_is_limited_in_total_length(number: int) -> None:
    light = 900 // number - CODE_LENGTH - 3
    text = " ".join([f"metadata.a:~{'É' * min(light, 255)}"] * number)
    assert len(text) > MAX_LENGTH or parse(text)
    for heavy in ("É" * (light + 1), "💥" * (light // 2 + 1), "ﬃ" * (light // 3 + 1)):
        assert (
            len(heavy) > 255 or "Too much text" in faults(" ".join([f"metadata.a:~{heavy}"] * number)[:MAX_LENGTH])[-1]
        )


def test_contained_text_is_limited_after_case_folding() -> None:
    """For longer repetitive text OpenSearch failed to compile the pattern, and returned an error."""
    assert parse(f"metadata.a:~{'ﬃ' * 100}")
    assert parse(f"metadata.a:{'ﬃ' * 255}")
    assert "Too much text" in faults(f"metadata.a:~{'ﬃ' * 101}")[0]
