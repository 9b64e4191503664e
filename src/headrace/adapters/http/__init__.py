"""Line protocol and JSON lines that clients push over HTTP."""
