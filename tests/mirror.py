"""A mirror: a copy of an environment's consumers or orders, kept up to date by the feed of changes alone."""

from typing import Any

import httpx


class Mirror:
    """A copy that begins with the present. `copy` has the objects by id, as the feed told them."""

    def __init__(self, client: httpx.Client, resource: str, **parameters: Any) -> None:
        self._client, self._path = client, f"/{resource}/changes"
        self._member = resource.removesuffix("s")
        self._is_stopped = False
        self.copy = dict[str, Any]()
        self.cursor = self.page(**parameters)["pageInfo"]["endCursor"]

    def page(self, wait: int = 0, **parameters: Any) -> Any:
        """Read a page, apply its changes, and return the page."""
        headers = {"Prefer": f"wait={wait}"}
        page = self._client.get(self._path, params=parameters, headers=headers).raise_for_status().json()
        for change in page["data"]:
            current = change[self._member]
            assert (change["type"] == "deleted") == (current is None)
            if current is None:
                self.copy.pop(change["id"], None)
            else:
                assert current["id"] == change["id"]
                self.copy[change["id"]] = current
        return page

    def read(self, first: int = 500) -> list[tuple[str, str]]:
        """Read to the end, page by page; return the type and the id of each change."""
        changes = list[tuple[str, str]]()
        while True:
            page = self.page(first=first, after=self.cursor)
            changes += [(change["type"], change["id"]) for change in page["data"]]
            self.cursor = page["pageInfo"]["endCursor"]
            if not page["pageInfo"]["hasNextPage"]:
                return changes

    def follow(self) -> None:
        """Follow the feed until stopped. A request that fails is repeated, but an expired cursor is an error."""
        while not self._is_stopped:
            try:
                self.cursor = self.page(1, first=100, after=self.cursor)["pageInfo"]["endCursor"]
            except httpx.TransportError:
                continue
            except httpx.HTTPStatusError as error:
                if error.response.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                    raise

    def stop(self) -> None:
        self._is_stopped = True
