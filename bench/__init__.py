"""The load and cost measurements, with their mock provider. Run by `make bench`; never a gate in CI."""
