"""Our side of an MQTT broker, for every adapter that takes what one brings: address, session, inbox, listening."""
