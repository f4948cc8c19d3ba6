"""How far a judge can be trusted, measured on pairs of responses that people have labelled."""
