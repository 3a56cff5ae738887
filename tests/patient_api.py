"""The API for tests: waits up to a second for the count of a request in Redis, and collects metrics for each scrape.

Usually a request passes uncounted after 20 ms, and the next five seconds as well. A machine busy with several tests at
once needs more time, and tests of rate limits would fail by chance.
"""

from litestar.types import ASGIApp

import api.app
from api import limits, metrics
from api.server.__main__ import serve


def create_app() -> ASGIApp:
    limits.WAIT_SECONDS = 1.0
    metrics.CACHE_SECONDS = 0.0
    return api.app.create_app()


if __name__ == "__main__":
    serve("tests.patient_api:create_app")
