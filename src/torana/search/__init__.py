"""LOOK UP: product documentation as one SQLite file with full-text search; built by `torana docs index`."""
