"""What a run computes, as plain functions; cards, `stages.runs` and the house-keeping of `store` alone know Metaflow."""

# Read by Metaflow when it packages code for remote steps: an editable install is included too.
METAFLOW_PACKAGE_POLICY = "include"
