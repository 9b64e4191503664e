"""Programs that write samples to their standard output, in any language."""
