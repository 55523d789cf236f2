"""A client's end of end-to-end protection: its keys, whom it trusts, what it says and hears."""

from __future__ import annotations
