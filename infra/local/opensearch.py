"""OpenSearch from its unpacked distribution, with a direct call of Java.

The start script of the distribution runs six Java machines before the server: 12.0 s until the first answer, against
8.8 s with a direct call. The options come from the distribution's jvm.options, without the agent that limits the files
and the addresses of plugins: it inspects every class, which takes 2.7 s. The plugins here are ICU's and the password's.
"""

import http.client
import json
import os
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from infra.index import isolation
from infra.local import folder as data_folder
from infra.local import java
from infra.local.class_archive import Archiving, ClassArchive
from infra.local.ports import LOOPBACK
from infra.local.server import Server

USER = "consumers"
# Options with a file or a size, which each instance sets itself.
OWN_OPTIONS = re.compile(r"-Xm[sx]|-Xlog|.*(HeapDump|ErrorFile|java\.io\.tmpdir)")
# Options that the start script adds to jvm.options.
ALWAYS = (
    "-Dopensearch.networkaddress.cache.ttl=60",
    "-Dopensearch.networkaddress.cache.negative.ttl=10",
    "-Xss1m",
    "-Djava.awt.headless=true",
    "-Dfile.encoding=UTF-8",
    "-Djna.nosys=true",
    "-XX:-OmitStackTraceInFastThrow",
    "-Dio.netty.noUnsafe=true",
    "-Dio.netty.noKeySetOptimization=true",
    "-Dio.netty.recycler.maxCapacityPerThread=0",
    "-Dio.netty.allocator.numDirectArenas=0",
    "-Dlog4j.shutdownHookEnabled=false",
    "-Dlog4j2.disable.jmx=true",
    # ICU (SPI) provides the Thai word breaks if Java lacks them; without them no index can be created.
    "-Djava.locale.providers=CLDR,SPI",
    "-Dopensearch.distribution.type=zip",
    "-Dopensearch.bundled_jdk=false",
)
LOGGING = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %-5p %c{1.} %marker%m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""


class OpenSearch(Server):
    """A single-node cluster on the loopback interface; every request needs a password (`PasswordPlugin.java`)."""

    refuses_root = True

    def __init__(
        self,
        folder: Path,
        home: Path,
        *,
        heap: str,
        java_options: Sequence[str],
        settings_of_profile: Mapping[str, Any] = MappingProxyType({}),
        records_classes: bool = False,
        keep_open: Sequence[int] = (),
    ) -> None:
        super().__init__("OpenSearch", folder, keep_open)
        self._home = home
        self._java = java.find()
        self._config = folder / "opensearch.config"
        self._temporary = folder / "opensearch.tmp"
        self._heap = heap
        self._java_options = java_options
        self._settings = settings_of_profile
        self._records_classes = records_classes
        self._archive = ClassArchive(home, self._java, self._temporary / "classes")
        self._password = data_folder.secret(folder / "opensearch.password")

    @property
    def url(self) -> str:
        return f"http://{USER}:{self._password}@{LOOPBACK}:{self.port}"

    @property
    def _authorization(self) -> str:
        return f"Basic {b64encode(f'{USER}:{self._password}'.encode()).decode()}"

    def settings(self) -> dict[str, Any]:
        """Return the content of opensearch.yml."""
        return {
            "cluster.name": "consumers",
            "node.name": "local",
            "path.data": str(self.data),
            "path.logs": str(self.log.parent),
            # For trying snapshots.
            "path.repo": str(self._temporary),
            "consumers.authorization": self._authorization,
            "network.host": LOOPBACK,
            "http.port": self.port,
            "transport.port": 0,
            "discovery.type": "single-node",
            "action.auto_create_index": False,
            **isolation.RECOMMENDED,
            # The default shares (85, 90, 95 %) stop writes on a large disk with much free space.
            "cluster.routing.allocation.disk.watermark.low": "1gb",
            "cluster.routing.allocation.disk.watermark.high": "500mb",
            "cluster.routing.allocation.disk.watermark.flood_stage": "250mb",
            **self._settings,
        }

    def prepare(self) -> None:
        for folder in (self.data, self._config, self._temporary):
            folder.mkdir(exist_ok=True)
        # JSON is valid YAML, and quotes special characters in paths.
        data_folder.write_private(self._config / "opensearch.yml", json.dumps(self.settings()))
        (self._config / "log4j2.properties").write_text(LOGGING)

    def command(self) -> list[str]:
        archive = self._archive.options(record=self._records_classes)
        return [*self._java_command(), *archive, "org.opensearch.bootstrap.OpenSearch"]

    def archiving(self) -> list[Archiving]:
        """Return the process that makes a missing archive of the classes, if they were recorded."""
        if not self._archive.is_wanted or not self._archive.recorded.exists():
            return []
        return [Archiving(self._archive, self._java_command(), self.environ(), self.log.parent)]

    def _java_command(self) -> list[str]:
        return [
            str(self._java.home / "bin" / "java"),
            *self._recommended_options(),
            self._agent_classes(),
            *ALWAYS,
            f"-Xms{self._heap}",
            f"-Xmx{self._heap}",
            *self._java_options,
            f"-Djava.io.tmpdir={self._temporary}",
            f"-XX:ErrorFile={self.log.parent / 'opensearch.crash.log'}",
            f"-Dopensearch.path.home={self._home}",
            f"-Dopensearch.path.conf={self._config}",
            "-cp",
            f"{self._home}/lib/*",
        ]

    def environ(self) -> Mapping[str, str]:
        # As the start script does: options for other programs must not apply.
        return {name: value for name, value in os.environ.items() if name != "JAVA_TOOL_OPTIONS"}

    def cwd(self) -> Path:
        return self._home

    def ready(self) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=2)
        try:
            connection.request("GET", "/_cluster/health", headers={"Authorization": self._authorization})
            answer = connection.getresponse()
            return answer.status == http.HTTPStatus.OK and json.load(answer)["status"] != "red"
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _recommended_options(self) -> Iterator[str]:
        """Yield the lines of jvm.options that apply to this Java version (`21-24:…`, `21-:…`, `21:…`, or all)."""
        for line in (self._home / "config" / "jvm.options").read_text().splitlines():
            match = re.fullmatch(r"(?:(?P<first>\d+)(?P<range>-)?(?P<last>\d+)?:)?(?P<option>-.+)", line.strip())
            if not match or OWN_OPTIONS.match(match["option"]):
                continue
            if match["option"].startswith("-javaagent:"):
                continue
            first = int(match["first"] or 0)
            last = int(match["last"] or (999 if match["range"] or not first else first))
            module = match["option"].partition("--add-modules=")[2]
            if first <= self._java.version <= last and (not module or module in self._java.modules):
                yield match["option"]

    def _agent_classes(self) -> str:
        """Return the option for the agent's classes, which OpenSearch needs even if the agent does not run."""
        [classes] = (self._home / "agent").glob("opensearch-agent-bootstrap-*.jar")
        return f"-Xbootclasspath/a:{classes}"
