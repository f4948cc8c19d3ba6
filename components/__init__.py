"""What a WIND run computes, as plain functions; Metaflow appears only in `flows/`, `cards` and `export`."""

# Read by Metaflow when it packages code for remote steps: an editable install is included too.
METAFLOW_PACKAGE_POLICY = "include"
