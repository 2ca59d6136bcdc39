"""WATCH: what the gateway writes down about itself, and the figures it shows. Never slows a request."""
