"""Writes a policy of a run as a plain Hugging Face directory with a model card; an adapter is merged into its base.

    wind export WindFlow/RUN [DIR] [--iteration N|last] [--dtype fp32|bf16|fp16] [--push ORG/NAME [--private]]
    wind export CompareFlow/RUN/ARM/SEED …

Run it where the flow ran: Metaflow looks for runs in `.metaflow` of the working directory or one above it, or in the
datastore that your Metaflow is configured for.
"""

from components.export.command import load_snippet, main
from components.export.policy import CardOptions, ExportError, export

__all__ = ["CardOptions", "ExportError", "export", "load_snippet", "main"]
