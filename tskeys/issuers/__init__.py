"""Who mints, looks up and revokes keys; one module each, `issuer` is the interface."""
