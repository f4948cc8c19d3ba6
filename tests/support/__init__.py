"""What several tests need: tiny models, flows and what they leave, stand-ins for a cluster, faults."""
