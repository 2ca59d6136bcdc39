"""COUNT: what each model call spent, as one durable record, and where those records go."""
