"""Exports of other systems become rows, without a server: each test is a small made-up file with the real headers."""

import io
from typing import Any

import msgspec
import pytest

from infra.imports import ids, rules
from infra.imports.exported import Environment
from infra.imports.exports import EXPORTS, Export
from infra.imports.formats import Format, assign_columns
from infra.imports.kinds import CONSUMERS, ORDERS, Kind
from infra.imports.rows import Reader
from infra.imports.sources import ImportFailed
from infra.imports.survey import survey, survey_notation

SHOP = Environment(1, "GBP", "GB")


def opened(text: str) -> Reader:
    return Reader(io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8-sig", newline=""))


class Read:
    """The rows of a file by field, and the reasons of rejected rows by line."""

    def __init__(self, kind: Kind, text: str, **options: Any) -> None:
        reader = opened(text)
        assigned = assign_columns(reader.header, kind, Format(**options))
        has_people = kind.has_people and assigned.names.issuperset({"externalId", "email"})
        self.columns, self.rejects = survey(reader.records(assigned.continued_by), assigned, has_people=has_people)
        if not has_people and not assigned.continued_by:
            assert survey_notation(opened(text).records(), assigned) == self.columns
        self.rows: list[dict[str, Any]] = []
        for chunk in opened(text).chunks(continued_by=self.columns.continued_by):
            checked = rules.check(kind.rules, SHOP, self.columns, chunk.records)
            self.rejects |= {chunk.records[position].line: text for position, text in checked.rejects.items()}
            for position, *values, metadata in checked.rows:
                if chunk.records[position].line in self.rejects:
                    continue
                names = (*kind.rules.columns, *kind.rules.added)
                row = {name: value for name, value in zip(names, values, strict=True) if value is not None}
                for name, encoded in (("items", row.get("items")), ("metadata", metadata)):
                    if encoded is not None:
                        row[name] = msgspec.json.decode(encoded)
                self.rows.append(row)

    @property
    def export(self) -> str:
        return self.columns.export.name if self.columns.export else ""


def refusal(kind: Kind, text: str, **options: Any) -> str:
    with pytest.raises(ImportFailed) as failure:
        Read(kind, text, **options)
    return str(failure.value)


def test_shopify_customers() -> None:
    read = Read(
        CONSUMERS,
        "Customer ID,First Name,Last Name,Email,Accepts Email Marketing,Default Address Company,"
        "Default Address Address1,Default Address City,Default Address Province Code,Default Address Country Code,"
        "Default Address Zip,Default Address Phone,Phone,Accepts SMS Marketing,Total Spent,Total Orders,Note,"
        "Tax Exempt,Tags,Birthday (customer.metafields.facts.birth_date)\n"
        "'7210448301122,Ann,O'Lee,Ann@Shop.Example,yes,Lee Ltd,1 High St,Leeds,,GB,'01234,07400 123456,'+447400123457,"
        'no,79.44,2,"Likes tea, and cake",no,"vip, wholesale",1990-01-31\n'
        "'7210448301123,,'t Hooft,,no,,,,,,,'07400 123456,,no,0.00,0,,no,,\n",
    )
    assert read.export == "shopify customer export"
    assert read.columns.ignored == ["Default Address Address1", "Total Spent", "Total Orders"]
    assert read.rows == [
        {
            "externalId": "7210448301122",
            "email": "Ann@shop.example",
            "fullName": "Ann O'Lee",
            "phone": "+447400123457",
            "metadata": {
                "company": "Lee Ltd",
                "city": "Leeds",
                "country": "GB",
                "zip": "01234",
                "note": "Likes tea, and cake",
                "acceptsEmail": True,
                "acceptsSms": False,
                "taxExempt": False,
                "tags": ["vip", "wholesale"],
                "birth_date": "1990-01-31",
            },
        },
        {
            "externalId": "7210448301123",
            "fullName": "'t Hooft",
            "phone": "+447400123456",
            "metadata": {"acceptsEmail": False, "acceptsSms": False, "taxExempt": False},
        },
    ]


SHOPIFY_ORDERS = (
    "Name,Email,Financial Status,Paid at,Currency,Subtotal,Total,Discount Code,Discount Amount,Created at,"
    "Lineitem quantity,Lineitem name,Lineitem price,Lineitem sku,Billing Name,Cancelled at,Refunded Amount,Id,Tags\n"
)


def test_shopify_orders_with_rows_of_items() -> None:
    read = Read(
        ORDERS,
        SHOPIFY_ORDERS + "#1001,ann@shop.example,paid,2024-03-31 02:31:00 +0100,GBP,50.00,45.00,WELCOME,5.00,"
        '2024-03-31 02:30:00 +0100,2,Mug,10.00,MUG-1,Ann Lee,,0.00,\'5001,"gift, new"\n'
        "#1001,ann@shop.example,,,,,,,,,1,Plate,30.00,,,,,,\n"
        "#1002,bob@shop.example,partially_refunded,,GBP,10.00,10.00,,,2024-03-31 02:30:00 +0100,1,Mug,10.00,MUG-1,,,"
        "4.00,5002,\n"
        "#1003,bob@shop.example,paid,,GBP,10.00,10.00,,,2024-03-31 02:30:00 +0100,1,Mug,10.00,MUG-1,,"
        "2024-04-01 00:00:00 +0100,0,5003,\n",
    )
    assert read.export == "shopify order export"
    assert read.columns.ignored == ["Paid at", "Subtotal", "Billing Name"]
    mug = {"productId": "MUG-1", "variantId": None, "quantity": 1, "unitAmount": "10.00"}
    plate = {"productId": "Plate", "variantId": None, "quantity": 1, "unitAmount": "30.00"}
    placed = {"currencyCode": "GBP", "placedAt": "2024-03-31T01:30:00+00:00"}
    assert read.rows == [
        {
            "externalId": "#1001",
            "consumerEmail": "ann@shop.example",
            "status": "COMPLETED",
            "amount": "45.00",
            "refundedAmount": "0.00",
            "items": [mug | {"quantity": 2}, plate],
            "metadata": {"shopifyId": "5001", "discountCode": "WELCOME", "discountAmount": 5, "tags": ["gift", "new"]},
            **placed,
        },
        {
            "externalId": "#1002",
            "consumerEmail": "bob@shop.example",
            "status": "COMPLETED",
            "amount": "10.00",
            "refundedAmount": "4.00",
            "items": [mug],
            "metadata": {"shopifyId": "5002"},
            **placed,
        },
        {
            "externalId": "#1003",
            "consumerEmail": "bob@shop.example",
            "status": "CANCELLED",
            "amount": "10.00",
            "refundedAmount": "0",
            "items": [mug],
            "metadata": {"shopifyId": "5003"},
            **placed,
        },
    ]


def test_rows_of_an_order_that_contradict_are_rejected() -> None:
    read = Read(ORDERS, SHOPIFY_ORDERS + "#1,a@s.example,paid,,GBP,1,1\n#1,b@s.example,paid,,GBP,1,2\n")
    assert read.rejects == {
        2: "consumerEmail: the rows of this order have 'a@s.example' and 'b@s.example'; "
        "amount: the rows of this order have '1' and '2'"
    }


def test_rows_of_an_order_with_other_orders_between_are_rejected() -> None:
    row = "#{},a@s.example,paid,,GBP,1,1,,,,1,{}\n"
    rows = [("1", "a"), ("1", "b"), ("2", "c"), ("1", "d"), ("3", "e"), ("3", "f"), ("2", "g"), ("4", "h")]
    read = Read(ORDERS, SHOPIFY_ORDERS + "".join(row.format(*values) for values in rows))
    reason = "externalId: lines {} begin rows of the same order, with rows of other orders between: sort the file"
    assert read.rejects.keys() == {2, 4, 5, 8}
    assert read.rejects[2] == read.rejects[5] == reason.format("2 and 5") + " by this column"
    assert read.rejects[4] == read.rejects[8] == reason.format("4 and 8") + " by this column"
    assert [(row["externalId"], len(row["items"])) for row in read.rows] == [("#3", 2), ("#4", 1)]


def test_faulty_row_of_an_order_rejects_the_whole_order() -> None:
    first, further = "#1,a@s.example,paid,,GBP,1,1,,,,1,Mug,1,,,,,,\n", "#1,,,,,,,,,,1,Cup,1,,,,,,\n"
    too_long = further.replace("\n", ",x\n")
    for rows, line in ((first + too_long, 3), (first + further + too_long, 4), (first + too_long + further, 3)):
        read = Read(ORDERS, SHOPIFY_ORDERS + rows)
        assert (read.rows, read.rejects) == ([], {2: f"line {line} of the same record: 20 columns instead of 19"})
    read = Read(ORDERS, SHOPIFY_ORDERS + first.replace("\n", ",x\n") + further)
    assert (read.rows, read.rejects) == ([], {2: "20 columns instead of 19"})


def test_orders_are_joined_by_the_first_column_with_a_number() -> None:
    head = "order_number,order_id,date,order_total,billing_email,item_name,item_quantity\n"
    rows = ",7,2024-07-01,1,a@s.example,Mug,1\n,7,2024-07-01,1,a@s.example,Cup,1\n,8,2024-07-01,1,a@s.example,Cup,1\n"
    read = Read(ORDERS, head + rows, timezone="UTC")
    assert [(row["externalId"], len(row["items"])) for row in read.rows] == [("7", 2), ("8", 1)]


def test_rows_of_an_order_may_write_the_same_value_in_two_ways() -> None:
    read = Read(ORDERS, SHOPIFY_ORDERS + '#1,A@s.example,paid,,GBP,1,1.50\n#1,a@S.example,paid,,GBP,1,"1,5"\n')
    assert [row["amount"] for row in read.rows] == ["1.50"]


def test_named_system_continues_rows_of_a_file_with_field_names() -> None:
    read = Read(ORDERS, "externalId,consumerEmail,amount\n#1,a@s.example,50.00\n#1,,\n", system="shopify")
    assert read.rows == [{"externalId": "#1", "consumerEmail": "a@s.example", "amount": "50.00"}]


def test_woocommerce_customers() -> None:
    read = Read(
        CONSUMERS,
        "Name,Username,Last Active,Sign Up,Email,Orders,Total Spend,AOV,Country / Region,City,Region,Postal Code\n"
        "Ann Lee,ann,2024-03-31 01:30:00,2024-01-01 10:00:00,ann@shop.example,2,79.44,39.72,GB,Leeds,,LS1 1AA\n",
    )
    assert read.export == "woocommerce customer report (Analytics)"
    address = {"username": "ann", "country": "GB", "city": "Leeds", "zip": "LS1 1AA"}
    assert read.rows == [{"email": "ann@shop.example", "fullName": "Ann Lee", "metadata": address}]
    read = Read(
        CONSUMERS,
        "customer_id,first_name,last_name,user_login,email,user_pass,date_registered,billing_first_name,"
        "billing_last_name,billing_company,billing_email,billing_phone,billing_city,billing_country\n"
        "7,Ann,Lee,ann,ann@shop.example,$P$B,2024-01-01 10:00:00,A,L,,bill@shop.example,07400 123456,Leeds,GB\n"
        "0,,,,,,,Guest,Gold,,guest@shop.example,,,\n",
    )
    assert [(row.get("externalId"), row["email"], row["fullName"], row.get("phone")) for row in read.rows] == [
        ("7", "ann@shop.example", "Ann Lee", "+447400123456"),
        (None, "guest@shop.example", "Guest Gold", None),
    ]
    assert "user_pass" in read.columns.ignored


@pytest.mark.parametrize("guest", ["0", "0.0", "", " "])
def test_woocommerce_guests_are_different_people(guest: str) -> None:
    head = "customer_id,first_name,last_name,user_login,email,billing_email\n"
    rows = f"7,Ann,,ann,ann@s.example,\n{guest},Bob,,,bob@s.example,\n{guest},Cy,,,,cy@s.example\n"
    read = Read(CONSUMERS, head + rows)
    assert read.rejects == {}
    assert [(row.get("externalId"), row["email"]) for row in read.rows] == [
        ("7", "ann@s.example"),
        (None, "bob@s.example"),
        (None, "cy@s.example"),
    ]


CUSTOMER_ORDER_EXPORT = (
    "order_id,order_number,date,status,order_total,refunded_total,order_currency,customer_id,billing_email,"
    "item_name,item_sku,item_quantity\n"
    "10,10,2024-07-01 10:00:00,completed,30.00,0,EUR,7,ann@shop.example,Mug,M1,2\n"
    "10,10,2024-07-01 10:00:00,completed,30.00,0,EUR,7,ann@shop.example,Cup,,1\n"
    "11,11,2024-07-01 10:00:00,wc-on-hold,3.00,,EUR,0,guest@shop.example,Mug,M1,1\n"
)
ADVANCED_ORDER_EXPORT = (
    "Order Number,Order Status,Order Date,Email (Billing),Order Total Amount,Order Refund Amount,Currency,"
    "Customer User ID,SKU,Item Name,Quantity\n"
    "10,Completed,2024-07-01 10:00,ann@shop.example,30.00,0,EUR,7,M1,Mug,2\n"
    "10,Completed,2024-07-01 10:00,ann@shop.example,30.00,0,EUR,7,,Cup,1\n"
    "11,On hold,2024-07-01 10:00,guest@shop.example,3.00,,EUR,0,M1,Mug,1\n"
)


@pytest.mark.parametrize("text", [CUSTOMER_ORDER_EXPORT, ADVANCED_ORDER_EXPORT])
def test_woocommerce_orders(text: str) -> None:
    assert "have no time zone: name the zone that is set in woocommerce by --timezone" in refusal(ORDERS, text)
    read = Read(ORDERS, text, timezone="Europe/Berlin")
    ids = [(row["externalId"], row.get("consumerExternalId"), row["consumerEmail"], row["status"]) for row in read.rows]
    assert ids == [("10", "7", "ann@shop.example", "COMPLETED"), ("11", None, "guest@shop.example", "CREATED")]
    assert [item["productId"] for item in read.rows[0]["items"]] == ["M1", "Cup"]
    assert {row["placedAt"] for row in read.rows} == {"2024-07-01T08:00:00+00:00"}


def test_hubspot_contacts_and_deals() -> None:
    read = Read(
        CONSUMERS,
        "Record ID,First Name,Last Name,Email,Phone Number,Contact owner,Lead Status,Create Date,Associated Company\n"
        "8001,Ann,Lee,ann@shop.example,+44 7400 123456,Eve,NEW,2024-01-01 10:00,Lee Ltd\n",
    )
    assert read.export == "hubspot contact export"
    assert read.rows == [
        {
            "externalId": "8001",
            "email": "ann@shop.example",
            "fullName": "Ann Lee",
            "phone": "+447400123456",
            "metadata": {"company": "Lee Ltd", "leadStatus": "NEW", "owner": "Eve"},
        }
    ]
    read = Read(
        ORDERS,
        "Record ID,Deal Name,Deal Stage,Close Date,Deal owner,Amount,Associated Contact IDs\n"
        "9001,Chairs,Closed won,2024-07-01 10:00,Eve,1500,8001;8002\n"
        "9002,Desks,Negotiation,2024-07-01,Eve,1500,8001\n"
        "9003,Lamps,Closed lost,2024-07-01,Eve,1500,8001\n",
    )
    assert [(row["externalId"], row["consumerExternalId"], row["status"]) for row in read.rows] == [
        ("9003", "8001", "CANCELLED")
    ]
    assert read.rejects[2].startswith("placedAt: '2024-07-01 10:00' has no time zone")
    assert read.rejects[3].startswith("status: 'negotiation' is not imported; imported are closed won")


def test_stripe_customers_and_payments() -> None:
    read = Read(
        CONSUMERS,
        "id,Description,Email,Name,Created (UTC),Delinquent,Plan,Total Spend,tier (metadata)\n"
        "cus_1,VIP,ann@shop.example,Ann Lee,2024-07-01 09:12,false,,79.44,gold\n",
    )
    assert read.export == "stripe customer export"
    assert read.rows == [
        {
            "externalId": "cus_1",
            "email": "ann@shop.example",
            "fullName": "Ann Lee",
            "metadata": {"description": "VIP", "delinquent": False, "tier": "gold"},
        }
    ]
    read = Read(
        ORDERS,
        "id,Description,Created date (UTC),Amount,Amount Refunded,Currency,Converted Amount,Converted Currency,Fee,"
        "Status,Customer ID,Customer Email,campaign (metadata)\n"
        'ch_1,Pro,2024-07-01 9:12:33,"1,129.00",0.00,usd,900.00,gbp,1,Paid,cus_1,ann@shop.example,spring\n'
        'ch_2,,2024-07-01 09:12,"49,00","49,00",gbp,"49,00",gbp,1,Refunded,,bob@shop.example,\n'
        "ch_3,,2024-07-01 09:12,49.00,0,usd,45.00,eur,1,Failed,,bob@shop.example,\n",
    )
    assert read.export == "stripe payment export"
    assert [(row["amount"], row["currencyCode"], row.get("baseAmount"), row["status"]) for row in read.rows] == [
        ("1129.00", "USD", "900.00", "COMPLETED"),
        ("49.00", "GBP", "49.00", "REFUNDED"),
        ("49.00", "USD", None, "CANCELLED"),
    ]
    assert read.rows[0]["placedAt"] == "2024-07-01T09:12:33+00:00"
    assert read.rows[0]["metadata"] == {"description": "Pro", "campaign": "spring"}


def test_klaviyo_profiles() -> None:
    read = Read(
        CONSUMERS,
        "Email,Klaviyo ID,First Name,Last Name,Organization,Title,Phone Number,City,State / Region,Country,Zip Code,"
        "Source,Email Marketing Consent,Date Added\n"
        "ann@shop.example,01HXYZ,Ann,Lee,,Chef,'+447400123456,Leeds,,UK,'01234,Form,SUBSCRIBED,2024-01-01\n",
    )
    assert read.export == "klaviyo profile export"
    assert read.rows == [
        {
            "externalId": "01HXYZ",
            "email": "ann@shop.example",
            "fullName": "Ann Lee",
            "phone": "+447400123456",
            "metadata": {
                "jobTitle": "Chef",
                "city": "Leeds",
                "country": "UK",
                "zip": "01234",
                "source": "Form",
                "emailConsent": "SUBSCRIBED",
            },
        }
    ]
    assert refusal(ORDERS, "a\n", system="klaviyo") == "--from klaviyo imports no orders, because klaviyo exports none"


def test_magento_customers() -> None:
    read = Read(
        CONSUMERS,
        "ID,Name,Email,Group,Phone,ZIP,Country,State/Province,Customer Since,Web Site,Confirmed email\n"
        '5,Ann Lee,ann@shop.example,General,07400 123456,LS1 1AA,UK,,"Jan 1, 2024 10:00:00 AM",Main,Confirmed\n',
    )
    assert read.export == "magento customer grid export"
    assert (read.rows[0]["externalId"], read.rows[0]["fullName"]) == ("5", "Ann Lee")
    read = Read(
        CONSUMERS,
        "email,_website,_store,created_at,dob,firstname,group_id,lastname,middlename,password_hash\n"
        "ann@shop.example,base,default,2024-01-01 10:00:00,1990-01-31,Ann,1,Lee,M.,0a1b:2\n",
    )
    assert read.export == "magento customers main file"
    metadata = {"group": "1", "website": "base", "birthday": "1990-01-31"}
    assert read.rows == [{"email": "ann@shop.example", "fullName": "Ann M. Lee", "metadata": metadata}]
    assert "password_hash" in read.columns.ignored


def test_magento_orders() -> None:
    read = Read(
        ORDERS,
        "ID,Purchase Point,Purchase Date,Bill-to Name,Grand Total (Base),Grand Total (Purchased),Status,Customer Email,"
        "Customer Group,Total Refunded\n"
        '000000012,Main,"Jul 1, 2024 3:30:00 PM",Ann Lee,"1,036.39","1,036.39",complete,ann@shop.example,General,\n'
        '000000013,Main,"Jul 1, 2024, 3:30:00 PM",Ann Lee,36.3900,36.3900,Closed,ann@shop.example,General,36.3900\n',
        timezone="Europe/London",
    )
    assert [(row["externalId"], row["amount"], row["status"], row["placedAt"]) for row in read.rows] == [
        ("000000012", "1036.39", "COMPLETED", "2024-07-01T14:30:00+00:00"),
        ("000000013", "36.3900", "REFUNDED", "2024-07-01T14:30:00+00:00"),
    ]


def test_export_of_another_kind_is_refused_with_the_right_command() -> None:
    message = "The file is a shopify order export: import it by `consumers import orders`"
    assert refusal(CONSUMERS, SHOPIFY_ORDERS) == message
    assert refusal(CONSUMERS, SHOPIFY_ORDERS, system="shopify") == message


def test_unknown_time_zone_is_refused() -> None:
    assert refusal(ORDERS, "externalId\n", timezone="Moon/Sea").startswith("--timezone Moon/Sea is unknown")


def test_options_replace_the_mapping_of_an_export() -> None:
    header = "Email,Klaviyo ID,First Name,Last Name,Email Marketing Consent,Birthday"
    text = f"{header}\na@s.example,01H,Ann,Lee,YES,1990-01-31\n"
    mapping = {"Klaviyo ID": "metadata.klaviyoId", "Email Marketing Consent": "", "Birthday": "metadata.birthday"}
    read = Read(CONSUMERS, text, mapping=mapping | {"fullName": "Last Name+First Name"})
    metadata = {"klaviyoId": "01H", "birthday": "1990-01-31"}
    assert read.rows == [{"email": "a@s.example", "fullName": "Lee Ann", "metadata": metadata}]
    assert read.columns.ignored == []


@pytest.mark.parametrize(
    "mapping",
    [
        {"fullName": '"First Name"+"Last Name"', "Mail": "email"},
        {"fullName": "First Name + Last Name", "email": "Mail"},
        {"fullName": "Nick|First Name+Last Name", "Mail": "email"},
    ],
)
def test_columns_of_any_file_are_joined(mapping: dict[str, str]) -> None:
    read = Read(CONSUMERS, "First Name,Last Name,Nick,Mail\nAnn,Lee,,a@s.example\n", mapping={"Nick": ""} | mapping)
    assert read.rows == [{"email": "a@s.example", "fullName": "Ann Lee"}]


def test_marks_of_spreadsheets_and_databases_are_no_part_of_a_value() -> None:
    rows = ["externalId,fullName,metadata.zip:text", '="007","=""Ann""",\\N', """'8,\\N,="01234\"""", ""]
    read = Read(CONSUMERS, "\n".join(rows))
    assert read.rows == [
        {"externalId": "007", "fullName": "Ann"},
        {"externalId": "'8", "metadata": {"zip": "01234"}},
    ]


@pytest.mark.parametrize("text", ["#NAME?", "#N/A", "#REF!", "#DIV/0!", "#WERT!", "#NV", "########"])
@pytest.mark.parametrize("field", ["externalId", "fullName", "phone"])
def test_error_of_a_spreadsheet_is_refused(field: str, text: str) -> None:
    columns = dict.fromkeys(("externalId", "email", "fullName", "phone"), "") | {"email": "a@s.example", field: text}
    read = Read(CONSUMERS, f"{','.join(columns)}\n{','.join(columns.values())}\n")
    assert read.rejects[2].startswith(f"{field}: {text!r} is an error of a spreadsheet: correct the cell there")


def test_error_in_a_joined_name_is_refused() -> None:
    read = Read(CONSUMERS, "Record ID,First Name,Last Name,Email\n1,#NAME?,Lee,\n2,Ann,#N/A,\n3,Ann #1,Lee,\n")
    assert list(read.rejects) == [2, 3]


@pytest.mark.parametrize("text", ["#1001", "#VIP-1!", "#a b!", "#", "Ann #new!", "C#N/A", "a #N/Ab"])
def test_other_texts_with_a_number_sign_are_taken(text: str) -> None:
    assert Read(CONSUMERS, f"externalId\n{text}\n").rows == [{"externalId": text}]


def test_invisible_characters_of_headers_are_passed_over() -> None:
    read = Read(CONSUMERS, "\ufeffexternalId\u200b,\u00a0fullName\n1,Ann\n")
    assert read.rows == [{"externalId": "1", "fullName": "Ann"}]


def test_missing_column_of_a_join_is_named() -> None:
    message = refusal(CONSUMERS, "First,email\n", mapping={"fullName": "First+Last+Second"})
    assert "--column names 'Last', which is not a column" in message
    assert "--column names 'Second', which is not a column" in message


@pytest.mark.parametrize(
    ("totals", "options", "amounts", "rejected"),
    [
        (["1.000", "19.99"], {}, ["1.000", "19.99"], []),
        (["1.000", "19,99"], {}, ["1000", "19.99"], []),
        (["1,000", "19.99"], {}, ["1000", "19.99"], []),
        (["1,000", "0,5"], {}, ["1.000", "0.5"], []),
        (["12.500", "0.250"], {}, ["12.500", "0.250"], []),
        (["1.000", "5"], {}, ["5"], [2]),
        (["5", "1,000"], {}, ["5"], [3]),
        (["1.000", "2.00", "3,00"], {}, ["2.00", "3.00"], [2]),
        (["1.000", "5"], {"decimal": "."}, ["1.000", "5"], []),
        (["1.000", "2.000.000"], {"decimal": ","}, ["1000", "2000000"], []),
        (["1.000", "2,00"], {"decimal": "."}, ["1.000"], [3]),
    ],
)
def test_decimal_separator_is_the_same_in_the_whole_export(
    totals: list[str], options: dict[str, Any], amounts: list[str], rejected: list[int]
) -> None:
    rows = "".join(f'#{number},a@s.example,paid,,GBP,,"{total}"\n' for number, total in enumerate(totals))
    read = Read(ORDERS, SHOPIFY_ORDERS + rows, **options)
    assert [row["amount"] for row in read.rows] == amounts
    assert list(read.rejects) == rejected
    assert all("--decimal point or --decimal comma" in reason for reason in read.rejects.values())


def test_price_refund_and_discount_show_the_decimal_separator_too() -> None:
    row = '#{},a@s.example,paid,,GBP,,1.000,,"{}",,1,Mug,"{}",,,,"{}"\n'
    for texts in (("1,50", "1", "0"), ("", "1,50", "0"), ("", "1", "1,50")):
        read = Read(ORDERS, SHOPIFY_ORDERS + row.format("1", *texts))
        assert [row["amount"] for row in read.rows] == ["1000"]
    read = Read(ORDERS, SHOPIFY_ORDERS + row.format("1", "1.500", "2.500", "3.500"))
    assert read.rejects[2].count("--decimal point or --decimal comma") == 4


def test_own_file_has_a_decimal_point_unless_another_is_named() -> None:
    text = 'externalId,consumerEmail,amount\n1,a@s.example,1.000\n2,a@s.example,"2,50"\n'
    read = Read(ORDERS, text)
    assert ([row["amount"] for row in read.rows], list(read.rejects)) == (["1.000"], [3])
    assert "--decimal point or --decimal comma" in read.rejects[3]
    assert [row["amount"] for row in Read(ORDERS, text, decimal=",").rows] == ["1000", "2.50"]


@pytest.mark.parametrize("text", ["1.23E+08", "1,23E+08", "5E+12", "1.5e3"])
def test_amount_in_scientific_notation_is_refused(text: str) -> None:
    read = Read(ORDERS, f"externalId;consumerEmail;amount\n1;a@s.example;{text}\n2;a@s.example;1e3\n")
    assert read.rejects[2].startswith(f"amount: {text!r} is in scientific notation")
    assert [row["amount"] for row in read.rows] == ["1000"]


@pytest.mark.parametrize(
    ("sent", "stored", "rejected"),
    [
        (["12345.0", "67890.0"], ["12345", "67890"], []),
        (["12345,0", "7"], ["12345", "7"], []),
        (["1.0", "2.5"], ["2.5"], [2]),
        (["1.0", "A-7"], ["A-7"], [2]),
        (["12345.0", "A-7"], ["A-7"], [2]),
        (["12345.0", "67890.0", "12345"], ["67890"], [2, 4]),
        (["12345.0", "12345.00", "7"], ["7"], [2, 3]),
        (["007", "12.0"], ["007"], [3]),
        (["12345678901234568.0", "7.0"], ["7"], [2]),
    ],
)
def test_ids_with_decimals_are_whole_numbers_in_a_column_of_numbers(
    sent: list[str], stored: list[str], rejected: list[int]
) -> None:
    read = Read(CONSUMERS, "externalId;fullName\n" + "".join(f"{external_id};Ann\n" for external_id in sent))
    assert [row["externalId"] for row in read.rows] == stored
    assert sorted(read.rejects) == rejected
    assert bool(read.columns.decimal_ids) == all(map(ids.WHOLE_ID.fullmatch, sent))


def test_ids_with_and_without_decimals_are_one_person() -> None:
    read = Read(CONSUMERS, "externalId,email\n12.0,a@s.example\n12,b@s.example\n13.0,c@s.example\n")
    assert sorted(read.rejects) == [2, 3]
    assert "lines 2 and 3 have the same externalId and different e-mail addresses" in read.rejects[2]
    assert "lines 2 and 3 have the same number with and without decimals" in read.rejects[2]


def test_ids_of_consumers_of_orders_may_have_decimals() -> None:
    text = "externalId,consumerExternalId,amount\nA1,7.0,1\nA2,8.0,1\nA3,7,1\n"
    assert [row["consumerExternalId"] for row in Read(ORDERS, text).rows] == ["7", "8", "7"]


@pytest.mark.parametrize("text", ["email,metadata.a,metadata.a:text\n", "email,metadata.a:number,metadata.a:text\n"])
def test_metadata_key_has_a_single_column(text: str) -> None:
    assert "duplicate column 'metadata.a'" in refusal(CONSUMERS, text)


def test_key_of_metadata_may_contain_a_colon() -> None:
    read = Read(CONSUMERS, "email,metadata.utm:source,metadata.a:b:number\na@s.example,1,2\n")
    assert read.rows[0]["metadata"] == {"utm:source": 1, "a:b": 2}


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: export.name)
def test_tables_name_known_fields_and_statuses(export: Export) -> None:
    kind = {"consumers": CONSUMERS, "orders": ORDERS}[export.kind]
    fields = {name for name in export.fields if not name.startswith("metadata.")}
    assert fields <= kind.rules.columns.keys()
    assert fields & set(kind.required)
    assert set(export.statuses.values()) <= {"CREATED", "COMPLETED", "CANCELLED", "REFUNDED"}
    assert all(status == status.lower() for status in export.statuses)
