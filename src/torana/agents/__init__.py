"""One step of a ReAct loop whose loop and tools the client owns: what the model is told, what its text means."""
