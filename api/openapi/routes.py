"""Routes of the documentation: the OpenAPI documents, and Swagger UI for both, without files from the internet."""

from functools import cache
from importlib.resources import files
from string import Template
from typing import Any

from litestar import Litestar, MediaType, Router, get
from litestar.handlers import HTTPRouteHandler
from litestar.response import Redirect
from litestar.static_files import create_static_files_router

from api.openapi.document import document
from api.request import AnyRequest

ASSETS = "/docs/assets"
# The document is loaded by the page, so nothing of a request gets into the page. `opsFilter` searches paths and
# summaries; without it, the filter compares with the names of tags alone.
PAGE = Template(f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<link rel="icon" href="{ASSETS}/favicon-32x32.png">
<link rel="stylesheet" href="{ASSETS}/swagger-ui.css">
<script src="{ASSETS}/swagger-ui-bundle.js"></script>
<script src="{ASSETS}/swagger-ui-standalone-preset.js"></script>
</head>
<body>
<div id="page"></div>
<script>
const holds = (phrase) => (operation) =>
  [operation.get("path"), operation.get("method"), operation.getIn(["operation", "summary"])]
    .some((text) => String(text).toLowerCase().includes(phrase.toLowerCase()));
const opsFilter = (tags, phrase) =>
  tags.map((tag) => tag.set("operations", tag.get("operations").filter(holds(phrase))))
    .filter((tag) => tag.get("operations").size > 0);
SwaggerUIBundle({{
  url: "$document",
  dom_id: "#page",
  deepLinking: true,
  filter: true,
  persistAuthorization: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset],
  plugins: [{{ fn: {{ opsFilter }} }}],
}});
</script>
</body>
</html>
""")


@cache
def document_of(app: Litestar, *, for_operators: bool = False) -> dict[str, Any]:
    """Build a document of the application at the first request; return the same afterwards."""
    return document(app.routes, for_operators=for_operators)


@get(
    "/openapi.json",
    tags=["Service"],
    summary="Get this document",
    description="The OpenAPI document, from which client libraries can be generated. "
    "`/openapi-operations.json` is the document for operators of the service.",
    sync_to_thread=False,
)
def openapi(request: AnyRequest) -> dict[str, Any]:
    return document_of(request.app)


@get("/openapi-operations.json", include_in_schema=False, sync_to_thread=False)
def openapi_for_operators(request: AnyRequest) -> dict[str, Any]:
    return document_of(request.app, for_operators=True)


@get(
    "/docs",
    tags=["Service"],
    summary="Read this document, and try requests, in a browser",
    description="The page works offline and keeps the key in the browser. `/docs/operations` is the page for "
    "operators of the service.",
    media_type=MediaType.HTML.value,
    sync_to_thread=False,
)
def docs() -> bytes:
    return PAGE.substitute(title="Consumers API", document="/openapi.json").encode()


@get("/docs/operations", include_in_schema=False, media_type=MediaType.HTML.value, sync_to_thread=False)
def docs_for_operators() -> bytes:
    return PAGE.substitute(title="Consumers API: operations", document="/openapi-operations.json").encode()


@get("/", include_in_schema=False, sync_to_thread=False)
def start() -> Redirect:
    return Redirect("/docs")


ROUTES: list[HTTPRouteHandler | Router] = [
    *(openapi, openapi_for_operators, docs, docs_for_operators, start),
    create_static_files_router(path=ASSETS, directories=[str(files("swagger_ui") / "static")], include_in_schema=False),
]
