"""The sample data of `make up`: an organization to look at, made once and the same everywhere."""

from infra.local.sample.loading import ensure_demo

__all__ = ["ensure_demo"]
