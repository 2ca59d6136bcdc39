"""Authorize: who calls, and what may they do."""
