"""Where usage records go. One file per kind; each knows one receiver's way of taking and refusing."""
