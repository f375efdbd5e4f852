"""Key derivation, authenticated encryption and signatures."""
