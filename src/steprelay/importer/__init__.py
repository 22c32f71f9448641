"""Brings sessions of a home-made agent loop into steprelay: `steprelay import`, and the same in code."""

from .sessions import STATUSES, Note, Report, Target, import_sessions, plan
from .tables import Columns, Row, rows

__all__ = ["STATUSES", "Columns", "Note", "Report", "Row", "Target", "import_sessions", "plan", "rows"]
