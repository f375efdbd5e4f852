"""What all routes share: problems, bodies, parameters, client addresses, request ids."""
