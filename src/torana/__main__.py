"""`python -m torana`."""

from torana.cli import main

main()
