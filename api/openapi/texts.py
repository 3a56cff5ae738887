"""Texts of the OpenAPI documents that belong to no single route or type."""

TAGS = {
    "Consumers": "Persons who buy. Lists and searches are answered from the index; single consumers from the database.",
    "Orders": "Orders of consumers. Orders with status `CREATED` or `COMPLETED` count in the consumer's totals.",
    "Audiences": "Groups of consumers: with stored members, or with rules, so that membership follows the data.",
    "Exports": "Complete copies of the tables for analysts, as files, at one moment of the database.",
    "Live questions": "Searches and aggregations of the consumers in OpenSearch's own language, without personal data.",
    "Service": "Health checks and this documentation. Requests need no key.",
    "Operations": "The index behind lists and searches: status, rebuilds, verification and repair.",
}
"""Descriptions of the tags, in the order of a reader."""

PATH_PARAMETERS = {
    "audienceId": "The id of the audience, `aud_…`.",
    "consumerId": "The id of the consumer, `cons_…`.",
    "exportId": "The id of the export, `exp_…`.",
    "name": "The name of the file, as listed.",
    "orderId": "The id of the order, `ord_…`.",
}
