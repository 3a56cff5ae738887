"""Exports of several systems in one environment."""

from tests.imports.import_environment import ImportEnvironment

SHOPIFY_CUSTOMERS = (
    "Customer ID,First Name,Last Name,Email,Accepts Email Marketing,Tags\n"
    "'1,Ann,Lee,ann@shop.example,yes,\"vip, new\"\n'2,Bob,Ray,bob@shop.example,no,\n"
)
SHOPIFY_ORDERS = (
    "Name,Email,Financial Status,Currency,Total,Created at,Lineitem quantity,Lineitem name,Lineitem price,"
    "Lineitem sku\n"
    "#1,ann@shop.example,paid,GBP,45.00,2024-03-31 02:30:00 +0100,2,Mug,10.00,M\n"
    "#1,ann@shop.example,,,,,1,Plate,25.00,\n"
    "#2,eve@shop.example,paid,GBP,10.00,2024-03-31 02:30:00 +0100,1,Mug,10.00,M\n"
    "#2,eve@shop.example,,,,,1,Plate,25.00,\n"
)
STRIPE_PAYMENTS = (
    "id,Amount,Amount Refunded,Currency,Status,Created date (UTC),Customer ID,Customer Email\n"
    "ch_1,5.00,0.00,gbp,Paid,2024-07-01 10:00:00,cus_9,bob@shop.example\n"
)
KLAVIYO = "Email,First Name,Last Name,Email Marketing Consent\nann@shop.example,Ann,Lee,SUBSCRIBED\n"


def test_exports_of_several_systems_are_imported_one_after_the_other(shop: ImportEnvironment) -> None:
    for _ in range(2):  # the second time, nothing changes
        assert shop.consumers(SHOPIFY_CUSTOMERS).export == "shopify customer export"
        counts = shop.orders(SHOPIFY_ORDERS)
        assert (counts.read, counts.continued, counts.rejected) == (2, 2, 1)
        # The customer is known by the address alone, because the externalId is that of another system.
        assert shop.orders(STRIPE_PAYMENTS).rejected == 0
        counts = shop.consumers(KLAVIYO)
        assert counts.rejected == 0
    assert counts.unchanged == 1
    assert shop.stored("external_id, full_name, total_orders, total_order_value") == [
        ("1", "Ann Lee", 1, 45),
        ("2", "Bob Ray", 1, 5),
    ]
    assert shop.stored("metadata") == [
        ({"tags": ["vip", "new"], "acceptsEmail": True, "emailConsent": "SUBSCRIBED"},),
        ({"acceptsEmail": False},),
    ]
    items = "items->0->>'productId', items->1->>'productId', items->0->'quantity', items->0->>'unitAmount'"
    assert shop.stored(f"external_id, {items}", "orders")[0] == ("#1", "M", "Plate", 2, "10.00")


def test_rejected_order_can_be_imported_again_with_all_its_rows(shop: ImportEnvironment) -> None:
    shop.orders(SHOPIFY_ORDERS)
    assert shop.errors() == [
        *(["2", "consumerEmail: unknown consumer"], ["2", ""]),
        *(["4", "consumerEmail: unknown consumer"], ["4", ""]),
    ]
    errors = shop.errors_path.read_text()
    shop.consumers("email\nann@shop.example\neve@shop.example\n")
    counts = shop.orders(errors)
    assert (counts.inserted, counts.continued) == (2, 2)
    assert {len(items) for (items,) in shop.stored("items", "orders")} == {2}


def test_notation_of_the_whole_file_counts_in_every_chunk(shop: ImportEnvironment) -> None:
    counts = shop.consumers("externalId,email\n12.0,ann@shop.example\n7.0,bob@shop.example\n", chunk_rows=1)
    assert (counts.inserted, counts.decimal_ids) == (2, ["externalId"])
    head, *rows = SHOPIFY_ORDERS.replace("eve@", "bob@").splitlines(keepends=True)
    scattered = [rows[0], rows[2], rows[3], rows[1]]
    last = '#3,bob@shop.example,paid,GBP,"1.000",2024-03-31 02:30:00 +0100,1,Mug,"1,50",M\n'
    text = head + "".join(scattered).replace("5.00", "5").replace("0.00", "0") + last
    assert (counts := shop.orders(text, chunk_rows=1)).rejected == 2
    assert [line for line, _ in shop.errors()] == ["2", "5"]
    assert shop.errors()[0][1].startswith("externalId: lines 2 and 5 begin rows of the same order")
    assert (counts.inserted, counts.continued) == (2, 1)
    assert shop.stored("external_id, amount", "orders") == [("#2", 10), ("#3", 1000)]
    assert shop.stored("external_id") == [("12",), ("7",)]
