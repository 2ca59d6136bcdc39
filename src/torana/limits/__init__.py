"""ADMIT: how much is left, of requests, tokens, money and concurrent streams."""
