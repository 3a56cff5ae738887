"""The fast email rule accepts exactly the addresses that the library accepts."""

from email_validator import EmailNotValidError, validate_email
from hypothesis import example, given
from hypothesis import strategies as st

from infra import fields

LOCAL = st.text("ab.+-_\"'! é@", max_size=6) | st.text("a.", min_size=60, max_size=68)
LABEL = st.text("ab-9", min_size=1, max_size=4) | st.sampled_from(["xn--80ak6aa92e", "é", "test", "a" * 63, "a" * 64])
DOMAIN = st.lists(LABEL, max_size=5).map(".".join) | st.text('ab.-_[]"< >\n', max_size=6)


@given(local=LOCAL, domain=DOMAIN)
@example(local="a", domain="shop.example\n")
@example(local="a\n", domain="shop.example")
@example(local="a" * 64, domain=".".join(["é" * 30] * 3 + ["example"]))
@example(local="a" * 64, domain=".".join(["a" * 61] * 3 + ["com"]))
@example(local="a" * 64, domain=".".join(["a" * 60] * 3 + ["ab", "com"]))
def test_email_is_accepted_exactly_if_the_library_accepts_it(local: str, domain: str) -> None:
    address = fields.trimmed(f"{local}@{domain}")
    try:
        validate_email(address, check_deliverability=False, strict=True)
        expected = len(address) <= 254
    except EmailNotValidError:
        expected = False
    try:
        fields.email(address)
        accepted = True
    except ValueError:
        accepted = False
    assert accepted == expected
