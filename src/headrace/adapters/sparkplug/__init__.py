"""Sparkplug B: nodes that say what they have at their birth, over MQTT."""
