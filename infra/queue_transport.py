"""Celery's transport for Redis, tolerant of foreign elements in the queues.

An element that is not a message of Celery (no JSON, or JSON of another shape) makes the original transport raise, which
ends the worker. Another program with a queue of the same name could write such an element.
"""

from typing import Annotated, Any

import msgspec
import structlog
from kombu.transport import redis, virtual
from redis.exceptions import RedisError
from redis.sentinel import Sentinel, SentinelConnectionPool

log = structlog.get_logger()

MALFORMED = (msgspec.ValidationError, ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""Errors of decoding a foreign element. Errors of the connection are `OSError` or `RedisError`."""


class Properties(msgspec.Struct):
    delivery_tag: str
    delivery_info: dict[str, Any]


class Headers(msgspec.Struct):
    task: str
    id: str
    timelimit: tuple[float | None, float | None] | None = None
    """Checked because Celery would start the task with a wrong value, fail, and never free the task's process."""


class Message(msgspec.Struct):
    """The parts of a message without which Celery fails. Celery itself refuses faults in the other parts."""

    body: Annotated[str, msgspec.Meta(min_length=1)]
    headers: Headers
    properties: Properties


class QoS(redis.QoS):
    """Free the place of a message also if its acknowledgement fails.

    A worker with a message for each process polls no queue. If the server is lost meanwhile, the acknowledgement fails,
    and the original transport would keep the place: the worker would never poll again, nor connect again.
    """

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]  # kombu is partly typed
        except (RedisError, OSError):
            virtual.QoS.ack(self, delivery_tag)  # type: ignore[no-untyped-call]  # kombu is partly typed
            raise


class Channel(redis.Channel):
    """Drop foreign elements of a queue, with a line in the log for each."""

    QoS = QoS

    def _brpop_read(self, **options: Any) -> bool:
        try:
            return bool(super()._brpop_read(**options))  # type: ignore[no-untyped-call]  # kombu is partly typed
        except MALFORMED as error:
            log.warning("foreign_message_dropped", error=type(error).__name__)
            return True


class Transport(redis.Transport):
    Channel = Channel

    def _deliver(self, message: Any, queue: str) -> None:
        msgspec.convert(message, Message)
        super()._deliver(message, queue)  # type: ignore[no-untyped-call]  # kombu is partly typed


class SentinelChannel(Channel, redis.SentinelChannel):
    """Connect to the server that Redis Sentinel names."""

    from_transport_options = (  # type: ignore[assignment]  # kombu declares the length of the tuple
        *redis.SentinelChannel.from_transport_options,
        "sentinels",
        "service",
    )
    sentinels: list[tuple[str, int]]
    service: str
    sentinel_kwargs: dict[str, Any]

    def _get_pool(self, asynchronous: bool = False) -> SentinelConnectionPool:  # noqa: FBT001, FBT002 (kombu's signature)
        options = self._connparams(asynchronous)  # type: ignore[no-untyped-call]  # kombu is partly typed
        self.keyprefix_fanout = self.keyprefix_fanout.format(db=options["db"])
        for name in ("host", "port"):
            options.pop(name, None)
        times = {name: options[name] for name in ("socket_timeout", "socket_connect_timeout")}
        sentinel = Sentinel(self.sentinels, sentinel_kwargs=self.sentinel_kwargs | times)  # type: ignore[no-untyped-call]  # redis is partly typed
        return SentinelConnectionPool(self.service, sentinel, **options)  # type: ignore[no-untyped-call]  # redis is partly typed


class SentinelTransport(Transport):
    Channel = SentinelChannel
