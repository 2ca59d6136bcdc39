"""The built-in provider: needs no key, no download and no weights, and still completes code."""
