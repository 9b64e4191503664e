"""What everything else is made of: frames, layouts, sensors, time, errors, files."""
