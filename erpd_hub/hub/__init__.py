"""The Hub, seen from this package: the client side, and (in `server`) the embedded Hub."""
