"""What operators and feature authors edit, and its reading into checked records."""
