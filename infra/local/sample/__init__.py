"""The sample data of `make up`: one organization, created once, with the same data on every machine."""

from infra.local.sample.loading import ensure_demo

__all__ = ["ensure_demo"]
