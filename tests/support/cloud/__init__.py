"""Stand-ins for what a cluster has: Argo, S3 servers, web servers."""
