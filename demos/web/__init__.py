"""``edge-deeplab demo web``: the page in ``page/``, and the server that gives it out on loopback."""
