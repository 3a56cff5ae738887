"""The API's own documentation: `/openapi.json`, and Swagger UI at `/docs`, whole without any network."""

from importlib.resources import files

from litestar import Response
from litestar.exceptions import NotFoundException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.router import Router
from litestar.static_files import create_static_files_router

ASSETS = "/docs/assets"


def found(response: Response[bytes]) -> Response[bytes]:
    """Litestar serves a page of its own for every other path: those are answered as the rest of the API is."""
    if response.status_code == NotFoundException.status_code:
        raise NotFoundException
    return response


CONFIG = OpenAPIConfig(
    title="Consumers API",
    version="1",
    openapi_router=Router("/", route_handlers=[], include_in_schema=False, after_request=found),
    components=Components(
        security_schemes={"key": SecurityScheme(type="http", scheme="bearer", description="`sk_live_…` or `sk_test_…`")}
    ),
    security=[{"key": []}],
    render_plugins=[
        JsonRenderPlugin(path="/openapi.json"),
        SwaggerRenderPlugin(
            path="/docs",
            js_url=f"{ASSETS}/swagger-ui-bundle.js",
            css_url=f"{ASSETS}/swagger-ui.css",
            standalone_preset_js_url=f"{ASSETS}/swagger-ui-standalone-preset.js",
            favicon=f'<link rel="icon" href="{ASSETS}/favicon-32x32.png">',
        ),
    ],
)


def assets() -> Router:
    return create_static_files_router(
        path=ASSETS, directories=[str(files("swagger_ui") / "static")], include_in_schema=False
    )
