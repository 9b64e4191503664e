"""The HTTP interface, in a process of its own: a heavy page or query never stalls what comes in."""
