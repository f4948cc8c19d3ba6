"""Every sample of a run as one HTML file that opens offline: `wind samples`."""
