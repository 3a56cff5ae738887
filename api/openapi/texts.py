"""Texts of the OpenAPI documents that belong to no single route or type."""

TAGS = {
    "Consumers": "Persons who buy. Lists and searches are answered from the index; single consumers from the database.",
    "Orders": "Orders of consumers. Orders with status `CREATED` or `COMPLETED` count in the consumer's totals.",
    "Audiences": "Groups of consumers: with stored members, or with rules, so that membership follows the data.",
    "Service": "Health checks and this documentation. Requests need no key.",
    "Operations": "The index behind lists and searches: status, rebuilds, verification and repair.",
}
"""Descriptions of the tags, in the order of a reader."""

PATH_PARAMETERS = {
    "audienceId": "The id of the audience, `aud_…`.",
    "consumerId": "The id of the consumer, `cons_…`.",
    "orderId": "The id of the order, `ord_…`.",
}
