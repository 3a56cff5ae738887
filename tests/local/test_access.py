"""Other users of the machine reach the ports of the servers, and read nothing."""

import socket
import struct
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
import redis

from infra.local.servers import LocalServers

# A request as another node sends it: the type and length of the message, the id of the request, the status, the
# version, and the action.
ACTION = b"internal:transport/handshake"
VARIABLE_HEADER = b"\x00\x00\x00" + bytes([len(ACTION)]) + ACTION
BODY = struct.pack(">qBiI", 1, 0, 3080099 ^ 0x08000000, len(VARIABLE_HEADER)) + VARIABLE_HEADER + b"\x00"
REQUEST_OF_A_NODE = b"ES" + struct.pack(">I", len(BODY)) + BODY


def without_login(address: str) -> str:
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/_search"),
        ("GET", "/_all/_search?q=*"),
        ("GET", "/_cat/indices"),
        ("GET", "/_nodes/settings"),
        ("HEAD", "/_all"),
        ("POST", "/_msearch"),
        ("PUT", "/new"),
        ("PUT", "/_cluster/settings"),
        ("PUT", "/_snapshot/copy"),
        ("DELETE", "/_all"),
    ],
)
@pytest.mark.parametrize("login", [None, ("consumers", "wrong"), ("consumers", "")])
def test_index_answers_nothing_without_password(
    servers: LocalServers, method: str, path: str, login: tuple[str, str] | None
) -> None:
    url = f"{without_login(servers.addresses['opensearch_url'])}{path}"
    response = httpx.request(method, url, auth=login, json={} if method in {"POST", "PUT"} else None)
    assert (response.status_code, response.text) == (401, "" if method == "HEAD" else "wrong password")


def test_index_accepts_the_password_and_does_not_show_it(servers: LocalServers) -> None:
    address = servers.addresses["opensearch_url"]
    response = httpx.get(f"{address}/_nodes/settings")
    assert response.status_code == 200
    assert "authorization" not in response.text


def test_index_refuses_requests_of_other_nodes(servers: LocalServers) -> None:
    """OpenSearch on another port, started by another user, could search here as in a remote cluster."""
    nodes = httpx.get(f"{servers.addresses['opensearch_url']}/_nodes/transport").json()["nodes"]
    ((host, port),) = [node["transport_address"].split(":") for node in nodes.values()]
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(REQUEST_OF_A_NODE)
        answer = connection.recv(65536)
    assert b"this node accepts no requests of other nodes" in answer


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_arguments_of_servers_hold_no_password(servers: LocalServers) -> None:
    """Every user of the machine can read the arguments of a process."""
    for server in servers.running.values():
        password = urlsplit(server.url).password
        assert password
        assert password.encode() not in Path(f"/proc/{server.pid}/cmdline").read_bytes()


def test_database_and_queue_need_their_passwords(servers: LocalServers) -> None:
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(without_login(servers.addresses["database_url"]), user="consumers")
    with redis.Redis.from_url(without_login(servers.addresses["redis_url"])) as client:
        for command in ("KEYS *", "PUBSUB CHANNELS", "CONFIG GET *", "PING"):
            with pytest.raises(redis.AuthenticationError):
                client.execute_command(command)
