"""The exports of other systems: which columns go where.

Each table names, for a field, the columns of the export: `A + B` joins cells by a space, `A | B` takes the first
non-empty cell. A metadata key may end in a type of `infra.imports.values.TYPES`. Columns missing in a file are passed
over, and columns missing in the table are not imported. Sources: the systems' public documentation of their exports,
and headers of real files.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

System = Literal["shopify", "woocommerce", "hubspot", "stripe", "klaviyo", "magento"]
CONSUMERS, ORDERS = "consumers", "orders"
TIMES_OF_MAGENTO = ("%b %d, %Y, %I:%M:%S %p", "%b %d, %Y %I:%M:%S %p", "%b %d, %Y")


class Items(NamedTuple):
    """Columns of an order's items. Further rows with the order's externalId, or with none, hold further items."""

    product: str
    quantity: str
    price: str


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """An export of a system: the rows of one kind."""

    system: System
    kind: str
    title: str
    marks: tuple[str, ...]
    """Columns that together identify the export."""
    fields: Mapping[str, str]
    """Field or `metadata.KEY:TYPE` → columns."""
    metadata: str = ""
    """A regular expression of further columns to import as metadata; the first group is the key."""
    statuses: Mapping[str, str] = {}
    """The system's status in lower case → status of an order."""
    cancelled_at: str = ""
    """A column that is empty unless the order is cancelled."""
    base_currency: str = ""
    """The column with the currency of `baseAmount`."""
    items: Items | None = None
    zone: str | None = None
    """The time zone of times without an offset, if it is always the same."""
    local_times: bool = False
    """Times have no offset, and the zone is a setting of the system: `--timezone` must name it."""
    times: tuple[str, ...] = ()
    """Further formats of times, for `datetime.strptime`."""

    @property
    def name(self) -> str:
        return f"{self.system} {self.title}"


EXPORTS = (
    Export(
        system="shopify",
        kind=CONSUMERS,
        title="customer export",
        marks=("Accepts Email Marketing | Accepts Marketing", "Email", "First Name"),
        fields={
            "externalId": "Customer ID",
            "email": "Email",
            "phone": "Phone | Default Address Phone",
            "fullName": "First Name + Last Name",
            "metadata.company:text": "Default Address Company | Company",
            "metadata.city:text": "Default Address City | City",
            "metadata.region:text": "Default Address Province Code | Province Code",
            "metadata.country:text": "Default Address Country Code | Country Code",
            "metadata.zip:text": "Default Address Zip | Zip",
            "metadata.acceptsEmail:boolean": "Accepts Email Marketing | Accepts Marketing",
            "metadata.acceptsSms:boolean": "Accepts SMS Marketing",
            "metadata.taxExempt:boolean": "Tax Exempt",
            "metadata.note:text": "Note",
            "metadata.tags:list": "Tags",
        },
        metadata=r".*\(customer\.metafields\.(?:[^.]+\.)?([^.)]+)\)",
    ),
    Export(
        system="shopify",
        kind=ORDERS,
        title="order export",
        marks=("Financial Status", "Lineitem name", "Name"),
        fields={
            "externalId": "Name",
            "consumerEmail": "Email",
            "amount": "Total",
            "refundedAmount": "Refunded Amount",
            "currencyCode": "Currency",
            "status": "Financial Status",
            "placedAt": "Created at",
            "metadata.shopifyId:text": "Id",
            "metadata.fulfillment:text": "Fulfillment Status",
            "metadata.discountCode:text": "Discount Code",
            "metadata.discountAmount:number": "Discount Amount",
            "metadata.shippingMethod:text": "Shipping Method",
            "metadata.paymentMethod:text": "Payment Method",
            "metadata.source:text": "Source",
            "metadata.tags:list": "Tags",
        },
        statuses={
            **dict.fromkeys(("paid", "partially_refunded"), "COMPLETED"),
            **dict.fromkeys(("pending", "authorized", "partially_paid", "unpaid"), "CREATED"),
            **dict.fromkeys(("voided", "expired"), "CANCELLED"),
            "refunded": "REFUNDED",
        },
        cancelled_at="Cancelled at",
        items=Items("Lineitem sku | Lineitem name", "Lineitem quantity", "Lineitem price"),
    ),
    Export(
        system="woocommerce",
        kind=CONSUMERS,
        title="customer report (Analytics)",
        marks=("Username", "AOV", "Email"),
        fields={
            "email": "Email",
            "fullName": "Name",
            "metadata.username:text": "Username",
            "metadata.city:text": "City",
            "metadata.region:text": "Region",
            "metadata.country:text": "Country / Region | Country",
            "metadata.zip:text": "Postal Code",
        },
    ),
    Export(
        system="woocommerce",
        kind=CONSUMERS,
        title="customer export (Customer/Order/Coupon Export)",
        marks=("billing_email", "user_login"),
        fields={
            "externalId": "customer_id | ID",
            "email": "email | user_email | billing_email",
            "phone": "billing_phone",
            "fullName": "first_name + last_name | billing_first_name + billing_last_name | display_name",
            "metadata.username:text": "user_login",
            "metadata.company:text": "billing_company",
            "metadata.city:text": "billing_city",
            "metadata.region:text": "billing_state",
            "metadata.country:text": "billing_country",
            "metadata.zip:text": "billing_postcode",
        },
    ),
    Export(
        system="woocommerce",
        kind=ORDERS,
        title="order export (Customer/Order/Coupon Export)",
        marks=("order_total", "billing_email"),
        fields={
            "externalId": "order_number | order_number_formatted | order_id",
            "consumerExternalId": "customer_id",
            "consumerEmail": "billing_email | customer_email",
            "amount": "order_total",
            "refundedAmount": "refunded_total",
            "currencyCode": "order_currency | currency",
            "status": "status",
            "placedAt": "order_date | date",
            "metadata.discountAmount:number": "discount_total",
            "metadata.coupons:text": "coupons",
            "metadata.shippingMethod:text": "shipping_method",
            "metadata.paymentMethod:text": "payment_method",
            "metadata.note:text": "customer_note",
        },
        statuses={
            **dict.fromkeys(("completed", "processing"), "COMPLETED"),
            **dict.fromkeys(("pending", "on-hold"), "CREATED"),
            **dict.fromkeys(("cancelled", "failed"), "CANCELLED"),
            "refunded": "REFUNDED",
        },
        items=Items("item_sku | item_name", "item_quantity", ""),
        local_times=True,
    ),
    Export(
        system="woocommerce",
        kind=ORDERS,
        title="order export (Advanced Order Export)",
        marks=("Order Number", "Order Status", "Order Date", "Email (Billing)"),
        fields={
            "externalId": "Order Number",
            "consumerExternalId": "Customer User ID",
            "consumerEmail": "Email (Billing)",
            "amount": "Order Total Amount",
            "refundedAmount": "Order Refund Amount",
            "currencyCode": "Currency | Order Currency",
            "status": "Order Status",
            "placedAt": "Order Date",
            "metadata.discountAmount:number": "Cart Discount Amount",
            "metadata.coupons:text": "Coupon Code",
            "metadata.shippingMethod:text": "Shipping Method Title",
            "metadata.paymentMethod:text": "Payment Method Title",
            "metadata.note:text": "Customer Note",
        },
        statuses={
            **dict.fromkeys(("completed", "processing"), "COMPLETED"),
            **dict.fromkeys(("pending payment", "pending", "on hold", "on-hold"), "CREATED"),
            **dict.fromkeys(("cancelled", "failed"), "CANCELLED"),
            "refunded": "REFUNDED",
        },
        items=Items("SKU | Item Name | Name", "Quantity | Quantity (- Refund)", "Item Cost"),
        local_times=True,
    ),
    Export(
        system="hubspot",
        kind=CONSUMERS,
        title="contact export",
        marks=("Record ID | Record ID - Contact", "First Name", "Email"),
        fields={
            "externalId": "Record ID | Record ID - Contact",
            "email": "Email",
            "phone": "Phone Number | Mobile Phone Number",
            "fullName": "First Name + Last Name",
            "metadata.company:text": "Company Name | Associated Company | Primary company",
            "metadata.jobTitle:text": "Job Title",
            "metadata.lifecycleStage:text": "Lifecycle Stage",
            "metadata.leadStatus:text": "Lead Status",
            "metadata.owner:text": "Contact owner",
            "metadata.city:text": "City",
            "metadata.region:text": "State/Region",
            "metadata.country:text": "Country/Region",
            "metadata.zip:text": "Postal Code",
        },
    ),
    Export(
        system="hubspot",
        kind=ORDERS,
        title="deal export",
        marks=("Record ID | Record ID - Deal", "Deal Name", "Deal Stage", "Amount"),
        fields={
            "externalId": "Record ID | Record ID - Deal",
            "consumerExternalId": "Associated Contact IDs | Associated Contact ID",
            "amount": "Amount",
            "baseAmount": "Amount in company currency",
            "currencyCode": "Currency",
            "status": "Deal Stage",
            "placedAt": "Close Date",
            "metadata.dealName:text": "Deal Name",
            "metadata.pipeline:text": "Pipeline",
            "metadata.owner:text": "Deal owner",
        },
        statuses={
            **dict.fromkeys(
                ("closed won", "closedwon", "checkout completed", "processed", "shipped", "delivered"), "COMPLETED"
            ),
            **dict.fromkeys(("closed lost", "closedlost", "checkout abandoned", "cancelled"), "CANCELLED"),
        },
    ),
    Export(
        system="stripe",
        kind=CONSUMERS,
        title="customer export",
        marks=("id", "Email", "Delinquent"),
        fields={
            "externalId": "id",
            "email": "Email",
            "phone": "Phone",
            "fullName": "Name",
            "metadata.description:text": "Description",
            "metadata.delinquent:boolean": "Delinquent",
            "metadata.plan:text": "Plan",
        },
        metadata=r"(.+) \(metadata\)",
    ),
    Export(
        system="stripe",
        kind=ORDERS,
        title="payment export",
        marks=("id", "Amount", "Amount Refunded", "Currency"),
        fields={
            "externalId": "id",
            "consumerExternalId": "Customer ID",
            "consumerEmail": "Customer Email",
            "amount": "Amount",
            "refundedAmount": "Amount Refunded",
            "currencyCode": "Currency",
            "baseAmount": "Converted Amount",
            "status": "Status",
            "placedAt": "Created date (UTC) | Created (UTC)",
            "metadata.description:text": "Description",
            "metadata.invoiceId:text": "Invoice ID",
            "metadata.paymentMethod:text": "Payment Source Type",
        },
        metadata=r"(.+) \(metadata\)",
        statuses={
            **dict.fromkeys(("paid", "succeeded", "partial refund", "partially refunded"), "COMPLETED"),
            **dict.fromkeys(("pending", "uncaptured", "processing", "incomplete"), "CREATED"),
            **dict.fromkeys(("failed", "canceled", "cancelled", "expired", "blocked"), "CANCELLED"),
            "refunded": "REFUNDED",
        },
        base_currency="Converted Currency",
        zone="UTC",
    ),
    Export(
        system="klaviyo",
        kind=CONSUMERS,
        title="profile export",
        marks=("Email", "Email Marketing Consent | Klaviyo ID"),
        fields={
            "externalId": "Klaviyo ID",
            "email": "Email",
            "phone": "Phone Number",
            "fullName": "First Name + Last Name",
            "metadata.company:text": "Organization",
            "metadata.jobTitle:text": "Title",
            "metadata.city:text": "City",
            "metadata.region:text": "State / Region",
            "metadata.country:text": "Country",
            "metadata.zip:text": "Zip Code",
            "metadata.emailConsent:text": "Email Marketing Consent",
            "metadata.smsConsent:text": "SMS Marketing Consent",
            "metadata.source:text": "Source",
            "metadata.tags:list": "Tags | Shopify Tags",
        },
    ),
    Export(
        system="magento",
        kind=CONSUMERS,
        title="customer grid export",
        marks=("ID", "Email", "Customer Since", "Web Site"),
        fields={
            "externalId": "ID",
            "email": "Email",
            "phone": "Phone",
            "fullName": "Name",
            "metadata.group:text": "Group",
            "metadata.company:text": "Company",
            "metadata.city:text": "City",
            "metadata.region:text": "State/Province",
            "metadata.country:text": "Country",
            "metadata.zip:text": "ZIP",
            "metadata.website:text": "Web Site",
        },
    ),
    Export(
        system="magento",
        kind=CONSUMERS,
        title="customers main file",
        marks=("email", "_website", "firstname", "lastname"),
        fields={
            "email": "email",
            "fullName": "firstname + middlename + lastname",
            "metadata.group:text": "group_id",
            "metadata.website:text": "_website",
            "metadata.birthday:text": "dob",
        },
    ),
    Export(
        system="magento",
        kind=ORDERS,
        title="order grid export",
        marks=("Purchase Point", "Purchase Date", "Customer Email"),
        fields={
            "externalId": "ID",
            "consumerEmail": "Customer Email",
            "amount": "Grand Total (Base)",
            "refundedAmount": "Total Refunded",
            "status": "Status",
            "placedAt": "Purchase Date",
            "metadata.purchasePoint:text": "Purchase Point",
            "metadata.group:text": "Customer Group",
            "metadata.shippingMethod:text": "Shipping Information",
            "metadata.paymentMethod:text": "Payment Method",
        },
        statuses={
            **dict.fromkeys(("complete", "processing"), "COMPLETED"),
            **dict.fromkeys(
                ("pending", "pending_payment", "pending payment", "payment_review", "payment review"), "CREATED"
            ),
            **dict.fromkeys(("holded", "on hold"), "CREATED"),
            **dict.fromkeys(("canceled", "cancelled", "fraud", "suspected fraud"), "CANCELLED"),
            "closed": "REFUNDED",
        },
        times=TIMES_OF_MAGENTO,
        local_times=True,
    ),
)
