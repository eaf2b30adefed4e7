"""`Database` of sqlite-utils, loaded without pandas.

sqlite-utils loads pandas where it finds it, to know one type that nothing here stores: a second of every command.
"""

from __future__ import annotations

import sys

_blocked = "pandas" not in sys.modules
if _blocked:
    sys.modules["pandas"] = None  # type: ignore[assignment]  # importing it fails, which sqlite-utils provides for
try:
    from sqlite_utils import Database
finally:
    if _blocked:
        del sys.modules["pandas"]

__all__ = ["Database"]
