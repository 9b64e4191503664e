"""From decoded frames to the journal: normalise, journal, acknowledge."""
