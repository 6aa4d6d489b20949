"""The public face: metrics for an application to emit, and the command `streamgauge`."""
