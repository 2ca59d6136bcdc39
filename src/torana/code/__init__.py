"""Code suggestions: what surrounds a cursor becomes a prompt, what a model answers becomes a suggestion.

Pure functions. No HTTP, no models, no templates: the gateway renders and calls, this room shapes.
"""
