"""Routes of the documentation: `/openapi.json`, and Swagger UI at `/docs`, served without files from the internet."""

from functools import cache
from importlib.resources import files
from typing import Any

from litestar import Litestar, MediaType, Router, get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.static_files import create_static_files_router

from api.openapi.document import document
from api.request import AnyRequest

ASSETS = "/docs/assets"
PAGE = SwaggerRenderPlugin(
    js_url=f"{ASSETS}/swagger-ui-bundle.js",
    css_url=f"{ASSETS}/swagger-ui.css",
    standalone_preset_js_url=f"{ASSETS}/swagger-ui-standalone-preset.js",
    favicon=f'<link rel="icon" href="{ASSETS}/favicon-32x32.png">',
)


@cache
def document_of(app: Litestar) -> dict[str, Any]:
    """Build the application's document at the first request; return the same afterwards."""
    return document(app.routes)


@get("/openapi.json", tags=["Service"], summary="Get this document", sync_to_thread=False)
def openapi(request: AnyRequest) -> dict[str, Any]:
    return document_of(request.app)


@get(
    "/docs",
    tags=["Service"],
    summary="Read this document, and try requests, in a browser",
    media_type=MediaType.HTML.value,
    sync_to_thread=False,
)
def docs(request: AnyRequest) -> bytes:
    return PAGE.render(request, document_of(request.app))


ROUTES: list[HTTPRouteHandler | Router] = [
    openapi,
    docs,
    create_static_files_router(path=ASSETS, directories=[str(files("swagger_ui") / "static")], include_in_schema=False),
]
