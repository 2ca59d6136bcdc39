"""RENDER: a prompt id and inputs become a ChatRequest. Entrance: `registry.Prompts`."""
