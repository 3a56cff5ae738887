"""Routes of the guide: `/docs/guide`, and a page for each chapter, served without files from the internet."""

from litestar import MediaType, get
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.response.redirect import Redirect

from api.guide import chapters


@get(chapters.PATH, include_in_schema=False, sync_to_thread=False)
def guide() -> Redirect:
    return Redirect(f"{chapters.PATH}/{next(iter(chapters.CHAPTERS))}")


@get(f"{chapters.PATH}/{{chapter:str}}", include_in_schema=False, media_type=MediaType.HTML.value, sync_to_thread=False)
def guide_chapter(chapter: str) -> str:
    try:
        return chapters.page(chapter)
    except KeyError:
        raise NotFoundException from None


ROUTES: list[HTTPRouteHandler] = [guide, guide_chapter]
