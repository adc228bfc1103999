"""Nothing lost, nothing left open: what sapd does when something else goes wrong."""
