"""Answers of the operations' routes. Their types hold times as `datetime`, unlike the resources of merchants."""

from http import HTTPStatus

import msgspec

from api.answers import Answer
from infra.wire import as_json


def ok(value: msgspec.Struct) -> Answer:
    return Answer(HTTPStatus.OK, as_json(value).encode())


def accepted(value: msgspec.Struct) -> Answer:
    return Answer(HTTPStatus.ACCEPTED, as_json(value).encode())
