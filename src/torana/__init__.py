"""torana: an AI gateway. Start reading at `app.py`."""

__version__ = "0.1.0"
