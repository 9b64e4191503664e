"""Device servers: simulated devices that speak their protocol over a real socket."""
