"""Reports: one self-contained page about a store. What it tells is collected first, as plain figures without HTML."""

from .collection import collect_report
from .collection_spec import CollectionSpec
from .content import ReportContent
from .page import render_page, write_page

__all__ = ["CollectionSpec", "ReportContent", "collect_report", "render_page", "write_page"]
