"""Wire formats ↔ our words: pure functions, used where a call enters and where it leaves."""
