"""What a run computes, as plain functions; only cards, `stages.runs` and the house-keeping of `store` know Metaflow."""

# Read by Metaflow when it packages code for remote steps: an editable install is included too.
METAFLOW_PACKAGE_POLICY = "include"
