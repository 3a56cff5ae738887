"""A worker whose exports halt once at a step (`tests/indexer/halting_export.py`), so that a test can kill it there.

Started as `celery -A tests.guarantees.halting_exports`.
"""

from indexer import worker
from indexer.exports import exporter
from tests.indexer import halting_export

exporter.MODULE = halting_export.__name__
app = worker.app
