"""The installed supervisor stands in for this room whenever the self is started."""
